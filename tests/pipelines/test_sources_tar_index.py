"""The index agrees with `tarfile` on every dialect of tar, reads headers only, and names what is damaged."""

import io
import shutil
import tarfile

import builders
import numpy as np
import pyarrow as pa
import pytest

from pipelines.sources import tar_index
from pipelines.sources.cache import WORTH_TASKS_BYTES, Indexes
from pipelines.sources.tar_index import dangling_links, index_tar, open_index
from pipelines.storage import FileEntry, Folder


def indexed(path) -> list[tuple[str, int, int]]:
    index = index_tar(Folder.at(path.parent), path.name)
    return list(zip(*(index[column].to_pylist() for column in ("path", "offset", "size")), strict=True))


def by_tarfile(path) -> list[tuple[str, int, int]]:
    with tarfile.open(path) as archive:
        return [(member.name, member.offset_data, member.size) for member in archive if member.isreg()]


@pytest.fixture
def write(tmp_path):
    def write(data: bytes):
        (tmp_path / "a.tar").write_bytes(data)
        return tmp_path / "a.tar"

    return write


NAMES = ["short.jpg", "d" * 90 + "/" + "f" * 60 + ".jpg", "x/" * 80 + "long.jpg", "grün/雪.jpg", "n" * 300 + ".jpg"]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_is_read_as_tarfile_reads_it(write, format):
    names = NAMES[:2] if format == tarfile.USTAR_FORMAT else NAMES
    sizes = np.random.default_rng(0).choice([0, 1, 511, 512, 513, 5000, 70_000], 40)
    files = {f"{i}/{name}": bytes(int(size)) for i, size in enumerate(sizes) for name in names[i % len(names) :][:1]}
    path = write(builders.tar_bytes(files, format=format, folders=format != tarfile.USTAR_FORMAT))
    assert indexed(path) == by_tarfile(path)
    assert [name for name, _, _ in indexed(path)] == list(files)


def test_folders_and_global_headers_are_passed_over_and_so_are_links_to_nowhere(write):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "all"}) as archive:
        for name, kind in [("a", tarfile.DIRTYPE), ("a/link", tarfile.SYMTYPE), ("a/hard", tarfile.LNKTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "y" * 200
            archive.addfile(info)
        info = tarfile.TarInfo("a/image.jpg")
        info.size, info.mtime = 3, 1.5  # a time that needs an extended header
        archive.addfile(info, io.BytesIO(b"abc"))
    path = write(file.getvalue())
    assert [name for name, _, _ in indexed(path)] == ["a/image.jpg"]
    assert path.read_bytes()[indexed(path)[0][1] :][:3] == b"abc"


LINKS = {  # link: kind, target
    "a/hard.jpg": (tarfile.LNKTYPE, "a/1.jpg"),
    "b/soft.jpg": (tarfile.SYMTYPE, "../a/1.jpg"),
    "b/again.jpg": (tarfile.SYMTYPE, "soft.jpg"),
    "b/" + "long" * 40 + ".jpg": (tarfile.SYMTYPE, "../" + "x" * 150 + "/2.jpg"),
    "b/nowhere.jpg": (tarfile.SYMTYPE, "../a/9.jpg"),
    "b/outside.jpg": (tarfile.SYMTYPE, "/etc/passwd"),
    "c/one.jpg": (tarfile.SYMTYPE, "two.jpg"),
    "c/two.jpg": (tarfile.SYMTYPE, "one.jpg"),
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_lead_to_their_file_and_loops_end(write, format, nested):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, (kind, target) in LINKS.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
        for name, content in (("a/1.jpg", b"one"), ("x" * 150 + "/2.jpg", b"two")):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(content))
    path = write(builders.tar_bytes({"n.tar": file.getvalue()}) if nested else file.getvalue())
    index = index_tar(Folder.at(path.parent), path.name)
    prefix = "n.tar/" if nested else ""
    content = {name.removeprefix(prefix): path.read_bytes()[at : at + size] for name, at, size in indexed(path)}
    assert [content[name] for name in LINKS if name in content] == [b"one", b"one", b"one", b"two"]
    assert dangling_links(index) == [
        prefix + name for name in ("b/nowhere.jpg", "b/outside.jpg", "c/one.jpg", "c/two.jpg")
    ]


def test_sizes_of_8_gib_and_more_are_understood(tmp_path):
    """As binary numbers (GNU) and in extended headers (pax); the archive is sparse on disk."""
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info, size = tarfile.TarInfo("big.bin"), 9 << 30
        info.size = size
        header = info.tobuf(format)
        path = tmp_path / f"{format}.tar"
        with path.open("wb") as file:
            file.write(header)
            file.seek(size, io.SEEK_CUR)
            file.write(builders.tar_bytes({"after.jpg": b"1"}))
        assert indexed(path) == [("big.bin", len(header), size), ("after.jpg", len(header) + size + 512, 1)]


def test_a_tar_of_tars_is_flattened(write):
    inner = {name: builders.tar_bytes({f"{name}_{i}.JPEG": bytes(600 * i) for i in range(3)}) for name in ("b", "a")}
    path = write(builders.tar_bytes({f"./sub/{name}.tar": data for name, data in inner.items()}))
    rows = indexed(path)
    assert [name for name, _, _ in rows] == [f"sub/{name}.tar/{name}_{i}.JPEG" for name in "ba" for i in range(3)]
    data = path.read_bytes()
    assert all(data[offset - 512 :].startswith(name.rpartition("/")[2].encode()) for name, offset, _ in rows)


def test_names_that_are_not_utf8_are_escaped(write):
    data = builders.tar_bytes({"caf_.jpg": b"1"})
    header = tarfile.TarInfo("caf\xe9.jpg")
    header.size = 1
    path = write(header.tobuf(tarfile.GNU_FORMAT, "latin-1", "strict") + data[512:])
    assert [name for name, _, _ in indexed(path)] == ["caf\\xe9.jpg"]


def test_only_headers_are_read(write, monkeypatch):
    path = write(builders.tar_bytes({f"{i}.jpg": bytes(300_000) for i in range(50)}))
    count = 0

    class Counting:
        def __init__(self, file):
            self.file = file

        def read_at(self, size, offset):
            nonlocal count
            data = self.file.read_at(size, offset)
            count += len(data)
            return data

    window = tar_index._Window
    monkeypatch.setattr(tar_index, "_Window", lambda file, *rest: window(Counting(file), *rest))
    assert len(indexed(path)) == 50
    assert count < 2_000_000  # of 15 million


@pytest.mark.parametrize("nested", [False, True])
def test_an_archive_cut_anywhere_is_an_error_that_names_it(write, nested):
    data = builders.tar_bytes({"a/1.jpg": bytes(700), "a/2.jpg": bytes(512)})[: 512 + 1024 + 512 + 512 + 1024]
    if nested:
        data = builders.tar_bytes({"n.tar": data})
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512 + 512 if nested else 512 + 1024 + 512 + 512
    for length in [*range(0, end, 100), end - 1, end]:
        path = write(data[:length])
        with pytest.raises(ValueError, match=r"a.tar is truncated: .* at offset \d+; fetch it again"):
            indexed(path)


def images_tar(count: int = 30, size: int = 900) -> bytes:
    return builders.tar_bytes({f"a/{i:02d}.jpg": bytes([i + 1]) * size for i in range(count)})


def nested_in(tar: bytes, nested: bool) -> bytes:
    return builders.tar_bytes({"n01440764.tar": tar, "n01443537.tar": images_tar()}) if nested else tar


@pytest.mark.parametrize("nested", [False, True])
def test_zeros_in_the_middle_are_no_end(write, nested):
    """From any member on: its header, the whole of it, or all that follows, as in a download that stopped."""
    whole = images_tar()
    for start in range(0, 25 * 1536, 1536):  # a block for the header, two for the content
        for length, message in ((512, "more behind"), (1536, "more behind"), (len(whole) - start, "only zeros from")):
            damaged = whole[:start] + bytes(length) + whole[start + length :]
            with pytest.raises(ValueError, match=message):
                indexed(write(nested_in(damaged, nested)))


@pytest.mark.parametrize("nested", [False, True])
def test_two_archives_in_one_file_are_refused(write, nested):
    with pytest.raises(ValueError, match=r"has an end mark at offset \d+, and more behind it, at \d+: two archives in"):
        indexed(write(nested_in(images_tar(3) + images_tar(4), nested)))


@pytest.mark.parametrize("behind", [b"x", b"\0" * 5000 + b"signature"])
def test_bytes_behind_the_end_are_refused(write, behind):
    with pytest.raises(ValueError, match="more behind it"):
        indexed(write(images_tar() + behind))


@pytest.mark.parametrize("padding", [1024, 1536, 10240])
def test_padding_of_any_record_is_an_end(write, padding):
    content = images_tar()[: 1536 * 30]
    assert len(indexed(write(content + bytes(padding)))) == 30


def test_half_an_end_mark_is_a_truncated_archive(write):
    with pytest.raises(ValueError, match="truncated in its end mark at offset 46080"):
        indexed(write(images_tar()[: 1536 * 30 + 512]))


def test_garbage_is_no_tar(write):
    path = write(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ValueError, match="no tar archive or is damaged: there is no header at offset 0"):
        indexed(path)
    damaged = bytearray(builders.tar_bytes({"a.jpg": bytes(600), "b.jpg": b"1"}))
    damaged[1536 + 5] ^= 1
    with pytest.raises(ValueError, match="there is no header at offset 1536"):
        indexed(write(bytes(damaged)))


def test_a_name_that_comes_twice_is_an_error_with_both_offsets(write):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for _ in range(2):
            info = tarfile.TarInfo("a/1.jpg")
            info.size = 10
            archive.addfile(info, io.BytesIO(bytes(10)))
    with pytest.raises(ValueError, match=r"holds 'a/1.jpg' 2 times, at offsets \[512, 1536\]"):
        indexed(write(file.getvalue()))


def test_an_index_is_kept_until_the_archive_changes(write, tmp_path, monkeypatch):
    path = write(builders.tar_bytes({"a/1.jpg": b"1"}))
    folder, cache = Folder.at(path.parent), Indexes(tmp_path / "cache")
    first = open_index(folder, "a.tar", cache)
    built = []
    monkeypatch.setattr(tar_index, "index_tar", lambda *where: built.append(where) or pa.table({"path": ["new"]}))
    assert open_index(folder, "a.tar", cache).equals(first)
    assert not built
    path.write_bytes(builders.tar_bytes({"a/1.jpg": b"1", "a/2.jpg": b"2"}) + bytes(512))
    assert open_index(folder, "a.tar", cache)["path"].to_pylist() == ["new"]


def test_an_archive_of_the_same_name_size_and_time_has_an_index_of_its_own(write, tmp_path):
    """In another folder, and in the place of the first one."""
    path, cache = write(builders.tar_bytes({"a/1.jpg": b"1"})), Indexes(tmp_path / "cache")
    other = tmp_path / "other" / path.name
    other.parent.mkdir()
    other.write_bytes(builders.tar_bytes({"b/1.jpg": b"1"}))
    shutil.copystat(path, other)
    assert open_index(Folder.at(path.parent), path.name, cache)["path"].to_pylist() == ["a/1.jpg"]
    assert open_index(Folder.at(other.parent), path.name, cache)["path"].to_pylist() == ["b/1.jpg"]
    shutil.copy2(other, path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (other.stat().st_size, other.stat().st_mtime_ns)
    assert open_index(Folder.at(path.parent), path.name, cache)["path"].to_pylist() == ["b/1.jpg"]


class Tasks:
    """Maps in an order of its own, and knows what it was asked for."""

    def __init__(self):
        self.items: list = []

    def __call__(self, function, items):
        asked = list(items)
        self.items += asked
        return map(function, reversed(asked))


def write_names(folder: Folder, *names: str, size: int = 0) -> list[FileEntry]:
    """Files, said to be of a size."""
    for name in names:
        folder.write(name, name)
    return [entry._replace(size=size or entry.size) for entry in folder.files() if entry.name in names]


def named(name: str) -> pa.Table:
    return pa.table({"path": [name]})


def test_only_archives_that_are_long_work_are_indexed_in_tasks_and_only_once(tmp_path):
    tasks, folder = Tasks(), Folder.at(tmp_path / "source")
    cache = Indexes(tmp_path / "cache", tasks)

    def names(files: list[FileEntry]) -> list[str]:
        return [table["path"][0].as_py() for table in cache.tables([files[0].size], folder, files, named)]

    assert names(write_names(folder, "a", "b", "c")) == ["a", "b", "c"]
    assert not tasks.items
    large = write_names(folder, "a", "b", "c", size=WORTH_TASKS_BYTES)
    assert names(large) == names(large) == ["a", "b", "c"]
    assert tasks.items == ["a", "b", "c"]
    write_names(folder, "b")
    assert names(large) == ["a", "b", "c"]
    assert tasks.items == ["a", "b", "c", "b"]


def test_an_index_of_nothing_is_kept_too(tmp_path):
    built, folder = [], Folder.at(tmp_path)
    files = write_names(folder, "a")
    for _ in range(2):
        Indexes(tmp_path / "cache").tables([], folder, files, lambda name: built.append(name) or named(name)[:0])
    assert built == ["a"]


@pytest.mark.parametrize("with_link", [False, True])
def test_tars_in_a_tar_are_indexed_one_by_one_in_any_order(write, with_link):
    inner = [{f"{name}_{i}.jpg": bytes(i) for i in range(5)} for name in "abc"]
    tars = {f"n{number}.tar": builders.tar_bytes(files) for number, files in enumerate(inner)}
    archive = builders.tar_bytes({"before.jpg": b"1", **tars, "after.jpg": b"2"})
    folder, tasks = Folder.at(write(linked(archive) if with_link else archive).parent), Tasks()
    index = index_tar(folder, "a.tar", tasks)
    assert [part.prefix for part in tasks.items] == [b"n0.tar/", b"n1.tar/", b"n2.tar/"]
    paths = [f"n{n}.tar/{path}" for n, files in enumerate(inner) for path in files]
    assert index["path"].to_pylist() == ["before.jpg", *paths, "after.jpg", *(["link.jpg"] if with_link else [])]
    for row in index.to_pylist():
        content = folder.read_range("a.tar", row["offset"], row["size"])
        assert content == {"before.jpg": b"1", "after.jpg": b"2", "link.jpg": b"1"}.get(row["path"], bytes(row["size"]))


def linked(archive: bytes) -> bytes:
    """With a hard link behind it."""
    file = io.BytesIO(archive)
    with tarfile.open(fileobj=file, mode="a") as added:
        info = tarfile.TarInfo("link.jpg")
        info.type, info.linkname = tarfile.LNKTYPE, "before.jpg"
        added.addfile(info)
    return file.getvalue()


def test_a_tar_that_comes_twice_in_a_tar_is_an_error(write):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for content in (builders.tar_bytes({"1.jpg": b"1"}), builders.tar_bytes({"1.jpg": b"2"})):
            info = tarfile.TarInfo("n.tar")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(ValueError, match=r"holds 'n.tar/1.jpg' 2 times"):
        indexed(write(file.getvalue()))


@pytest.mark.slow
def test_a_tar_in_an_object_store_is_indexed_the_same(tmp_path, s3_folder):
    data = builders.tar_bytes({f"a/{i}.jpg": bytes(i % 3000) for i in range(2000)})
    (tmp_path / "a.tar").write_bytes(data)
    Folder.at(s3_folder).publish("a.tar", lambda file: file.write(data))
    assert index_tar(Folder.at(s3_folder), "a.tar").equals(index_tar(Folder.at(tmp_path), "a.tar"))
