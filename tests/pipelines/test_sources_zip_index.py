"""Zip archives are read in place, as Python's own reader does; what is damaged, cut or encrypted is refused."""

import contextlib
import io
import struct
import zipfile
import zlib

import builders
import numpy as np
import pytest

from pipelines.plan import plan_shards
from pipelines.shards import write_shard
from pipelines.sources.catalog import open_source
from pipelines.sources.zip_index import ZipReader, index_zip
from pipelines.specs import IngestSpec
from pipelines.storage import Folder

FILES = builders.class_folders(images=4) | {"dog/ärger_日本.jpg": b"umlaut", "cat/empty.jpg": b""}


def indexed(folder, data: bytes):
    builders.write_files(folder, {"a.zip": data})
    return index_zip(Folder.at(folder), "a.zip")


def contents(folder, data: bytes) -> dict[str, bytes]:
    """Path -> content through our index and reader, read in a shuffled order."""
    index = indexed(folder, data)
    order = np.random.default_rng(0).permutation(len(index))
    reader = ZipReader(Folder.at(folder))
    ranges = [(index["offset"][i].as_py(), index["size"][i].as_py()) for i in order]
    with Folder.at(folder).open("a.zip") as file:
        return {
            index["path"][i].as_py(): reader.content(file.read_at, "a.zip", *where)
            for i, where in zip(order, ranges, strict=True)
        }


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("folders", [False, True])
@pytest.mark.parametrize("comment", [b"", b"made by hand " * 400])
def test_members_are_those_of_zipfile(tmp_path, method, folders, comment):
    data = builders.zip_bytes(FILES, method, folders, comment)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        expected = {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
    assert contents(tmp_path, data) == expected == FILES


def test_members_written_without_seeking_are_read(tmp_path):
    """Their headers hold no sizes, which follow the content."""

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def tell(self):
            raise OSError

        def seek(self, *_):
            raise OSError

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    assert contents(tmp_path, pipe.getvalue()) == FILES


def test_headers_longer_than_what_is_read_at_once_are_read(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("a/" + "n" * 900 + ".jpg")
        info.extra = struct.pack("<2H", 0x9999, 2000) + bytes(2000)
        archive.writestr(info, b"content")
    assert list(contents(tmp_path, file.getvalue()).values()) == [b"content"]


def as_zip64(data: bytes) -> bytes:
    """The same archive with all sizes and places in 64 bits, as those above 4 GiB have them."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos, start = archive.infolist(), archive.start_dir
    directory = b""
    for info in infos:
        name = info.filename.encode()
        numbers = struct.pack("<2H3Q", 1, 24, info.file_size, info.compress_size, info.header_offset)
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 45, 45, 1 << 11, info.compress_type, 0, 0, info.CRC,
                                 0xFFFFFFFF, 0xFFFFFFFF, len(name), len(numbers), 0, 0, 0, 0, 0xFFFFFFFF)  # fmt: skip
        directory += name + numbers
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, len(infos), len(infos), len(directory), start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + len(directory), 1)
    short = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:start] + directory + end + locator + short


def test_numbers_of_64_bits_are_read(tmp_path):
    data = as_zip64(builders.zip_bytes(FILES))
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None
    assert contents(tmp_path, data) == FILES


def test_truncation_at_any_byte_is_refused_in_one_line(tmp_path):
    for data in (builders.zip_bytes({"a/1.jpg": b"1", "b/2.jpg": b"22"}), as_zip64(builders.zip_bytes({"a/1": b"1"}))):
        for length in range(len(data)):
            with pytest.raises(ValueError, match=r"a.zip .*fetch it again$") as error:
                indexed(tmp_path, data[:length])
            assert "\n" not in str(error.value)


def test_damage_anywhere_is_refused_or_without_effect_on_the_index(tmp_path):
    random = np.random.default_rng(1)
    for data in (builders.zip_bytes({"a/1.jpg": b"1", "b/2.jpg": b"22"}), as_zip64(builders.zip_bytes({"a/1": b"1"}))):
        for _ in range(300):
            damaged = bytearray(data)
            damaged[random.integers(len(data))] = random.integers(256)
            with contextlib.suppress(ValueError):
                index = indexed(tmp_path, bytes(damaged))
                assert max(index["offset"].to_pylist()) + max(index["size"].to_pylist()) < len(data)


def encrypted(data: bytes) -> bytes:
    at = data.index(b"PK\1\2") + 8
    return data[:at] + b"\1" + data[at + 1 :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no zip archive or is truncated"),
        (builders.zip_bytes(FILES) + b"more", "and .* by its end mark: truncated, or with more behind it"),
        (b"more" + builders.zip_bytes(FILES), "or one with other bytes before it"),
        (builders.zip_bytes(FILES) * 2, "or one with other bytes before it"),
        (builders.zip_bytes(FILES).replace(b"PK\1\2", b"XX\1\2", 1), r"is damaged at offset \d+; fetch it again"),
        (
            encrypted(builders.zip_bytes(FILES)),
            r"'cat/cat_0.jpg' is encrypted, .*run `unzip -q \S+ -d \S+`, and name \S+a-unpacked$",
        ),
        (builders.zip_bytes(FILES, zipfile.ZIP_LZMA), "'cat/cat_0.jpg' is packed by method 14"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        indexed(tmp_path, data)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("öl/übung.jpg".encode(), "öl/übung.jpg"),
        ("日本/a.jpg".encode(), "日本/a.jpg"),
        ("öl/a.jpg".encode("cp437"), "öl/a.jpg"),
        (b"cat/a.jpg", "cat/a.jpg"),
    ],
)
def test_names_in_utf8_are_read_whether_or_not_the_archive_says_so(name, path, tmp_path):
    """Info-ZIP and others do not say it; what is no UTF-8 is of code page 437."""
    letters = "x" * len(name)
    data = builders.zip_bytes({letters: b"image"}).replace(letters.encode(), name)
    assert indexed(tmp_path, data)["path"].to_pylist() == [path]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_that_is_not_as_it_was_packed_is_set_aside(method, tmp_path):
    """Its CRC tells; as a picture it may look whole."""
    images = {f"{name}/{i}.jpg": builders.jpeg(ord(name) + i) for name in "am" for i in range(3)}
    data = builders.zip_bytes(images, method)
    victim, content = "m/1.jpg", images["m/1.jpg"]
    crc = struct.pack("<L", zlib.crc32(content))
    assert data.count(crc) == 2
    read = contents(tmp_path, data.replace(crc, b"\1\2\3\4"))
    assert read.pop(victim) == b""
    assert read == {path: content for path, content in images.items() if path != victim}
    folder = Folder.at(tmp_path / "out")
    source = open_source(IngestSpec(source=str(tmp_path / "a.zip"), val_fraction=0))
    spec = IngestSpec(size=16, encoding="raw")
    (task,) = plan_shards(source, spec, folder)
    (bad,) = write_shard(task).quarantined
    assert (bad.key, bad.reason) == (victim, "the zip archive is damaged there: its checksum is another")


def test_a_path_that_is_there_twice_is_refused(tmp_path):
    data = builders.zip_bytes({"a/1.jpg": b"1", "a/2.jpg": b"2"}).replace(b"a/2.jpg", b"a/1.jpg")
    with pytest.raises(ValueError, match=r"holds 'a/1.jpg' 2 times"):
        indexed(tmp_path, data)


def test_a_reader_names_the_archive_that_was_replaced(tmp_path):
    builders.write_files(tmp_path, {"a.zip": builders.zip_bytes(builders.class_folders())})
    source = open_source(IngestSpec(source=str(tmp_path / "a.zip"), val_fraction=0))
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data[:10] + b"x" + data[10:])
    with pytest.raises(ValueError, match=r"a.zip: no member begins at offset \d+; fetch it again"):
        list(source.reader.read(source.splits["train"]))
