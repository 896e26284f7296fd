"""A folder behaves the same on disk and in an object store, and never shows a file that is not complete."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.storage import FileEntry, Folder


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def folder(request, tmp_path) -> Folder:
    return Folder.at(tmp_path / "store" if request.param == "local" else request.getfixturevalue("s3_folder"))


def write(content: bytes):
    return lambda file: file.write(content)


def test_published_files_are_read_back(folder):
    assert folder.publish("parts/a.bin", write(b"0123456789")) == 10
    folder.publish("empty", lambda file: None)
    folder.publish("a.gz", write(b"any bytes"))
    assert folder.read("a.gz") == b"any bytes"  # pyarrow would compress by the name
    assert folder.read("parts/a.bin") == b"0123456789"
    assert folder.read("empty") == b""
    assert folder.read_range("parts/a.bin", 3, 4) == b"3456"
    assert folder.child("parts").read("a.bin") == b"0123456789"
    assert (folder.size("parts/a.bin"), folder.size("parts"), folder.size("none")) == (10, None, None)
    with folder.open("parts/a.bin") as file:
        assert file.read_at(2, 8) == b"89"


def test_files_are_sorted_and_relative(folder):
    for name in ("b", "sub/a", "a", "sub/deep/z"):
        folder.publish(name, write(name.encode()))
    assert [entry[:2] for entry in folder.files()] == [("a", 1), ("b", 1)]
    assert [entry.name for entry in folder.files(recursive=True)] == ["a", "b", "sub/a", "sub/deep/z"]
    assert all(isinstance(entry, FileEntry) and entry.mtime_ns > 0 for entry in folder.files())
    assert folder.folders() == ["sub"]
    assert folder.child("none").files() == folder.child("none").folders() == []


def test_a_replaced_file_has_the_new_content(folder):
    folder.publish("a", write(b"old"))
    folder.publish("a", write(b"new content"))
    assert folder.read("a") == b"new content"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(folder, error):
    def fail(file):
        file.write(b"x" * 3_000_000)
        raise error("stop")

    folder.publish("kept", write(b"old"))
    for name in ("new", "kept"):
        with pytest.raises(error):
            folder.publish(name, fail)
    assert [entry.name for entry in folder.files()] == ["kept"]
    assert folder.read("kept") == b"old"
    if folder.is_local:
        assert os.listdir(folder.url) == ["kept"]


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa, torch
from pipelines.formats import parquet
from pipelines.formats.rows import Row, Shared
from pipelines.quarantine import write_quarantine
from pipelines.shard_record import Quarantined, ShardRecord
from pipelines.sources.cache import Indexes
from pipelines.storage import Folder
from workflows.report.album import Album
from workflows.training.checkpoints import save
from workflows.report.figures import canvas
from workflows.training.history import History

folder, long = Path(sys.argv[2]), "x" * 99_999
history = History(Folder.at(folder))
album = Album(None, Folder.at(folder))
figure = canvas(3, 3)[0]
rows = [Row(0, "a", 0, bytes(99_999), 1, 1, "jpeg")]
bad = [Quarantined(i, f"{i} {hash(str(i))}" * 9, 0, "", 0, "") for i in range(999)]
record = ShardRecord("", "train", 0, 999, 0, 0, "", tuple(bad))
shared = Shared("train", "jpeg", 9, ("a",))
table = pa.table({"a": np.random.default_rng(0).random(9999)})
writers = {
    "text": lambda: Folder.at(folder).publish("text", lambda file: file.write(long.encode())),
    "a.parquet": lambda: Folder.at(folder).publish("a.parquet", lambda file: parquet.write(file, rows, shared)),
    "quarantine.parquet": lambda: write_quarantine(Folder.at(folder), [record]),
    "index-": lambda: Indexes(Path(folder)).table([1], Folder.at(folder), [], lambda: table),
    "history.jsonl": lambda: history.add({"kind": "step", "step": 1, "long": long}),
    "a.png": lambda: album.add("a", figure, "", ""),
    "state.safetensors": lambda: save(Folder.at(folder), 1, {"a": torch.zeros(99_999)}, {}, 2),
    "checkpoint.json": lambda: save(Folder.at(folder), 2, {}, {"a": long}, 2),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    writers[sys.argv[1]]()
except OSError as error:
    print(error, *getattr(error, "__notes__", ()))
"""
WRITERS = ("text", "a.parquet", "quarantine.parquet", "index-", "history.jsonl", "a.png", "state.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WRITERS, "checkpoint.json"])
def test_a_writer_that_the_file_system_refuses_names_the_file(tmp_path, name):
    """Every kind of file that a run writes, where no file may be larger than 2,000 bytes."""
    command = [sys.executable, "-c", LIMITED, name, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert "File too large" in done.stdout
    assert str(tmp_path) in done.stdout
    assert name in done.stdout
    assert "ulimit -f" in done.stdout
    assert not list(tmp_path.rglob(".*"))  # nothing half written is left


def test_missing_files_and_short_reads_are_named(folder):
    folder.publish("a", write(b"0123"))
    for read in (lambda: folder.read("gone"), lambda: folder.open("gone"), lambda: folder.read_range("gone", 0, 1)):
        with pytest.raises(FileNotFoundError, match="gone"):
            read()
    with pytest.raises(ValueError, match=r"/a ends 2 bytes short of offset 2 \+ 4"):
        folder.read_range("a", 2, 4)


def test_delete(folder):
    folder.publish("a", write(b"1"))
    folder.publish("sub/b", write(b"2"))
    folder.delete("a")
    folder.delete("a")
    assert [entry.name for entry in folder.files(recursive=True)] == ["sub/b"]
    folder.delete_all()
    folder.delete_all()
    assert folder.files(recursive=True) == []


def test_a_used_folder_pickles(folder):
    folder.publish("a", write(b"1"))
    assert pickle.loads(pickle.dumps(folder)).read("a") == b"1"


def test_a_large_upload_is_complete(folder):
    content = os.urandom(1 << 20) * 23  # more than two parts of a multipart upload
    folder.publish(
        "large", lambda file: [file.write(content[i : i + 999_983]) for i in range(0, len(content), 999_983)]
    )
    assert folder.read("large") == content


def test_a_killed_writer_leaves_only_a_stale_temporary(tmp_path):
    program = (
        "import sys, time; from pipelines.storage import Folder\n"
        "def write(file): file.write(b'x' * 9999999); print('writing', flush=True); time.sleep(60)\n"
        "Folder.at(sys.argv[1]).publish('parts/a', write)"
    )
    folder = Folder.at(tmp_path)
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"writing\n"
        assert folder.stale_temporaries() == []  # it is being written
        assert len(os.listdir(tmp_path / "parts")) == 1
        writer.send_signal(signal.SIGKILL)
    assert folder.files(recursive=True) == []
    assert len(folder.stale_temporaries()) == 1
    assert folder.remove_stale_temporaries()
    assert os.listdir(tmp_path / "parts") == []


def test_child_keeps_the_options_of_a_url():
    folder = Folder.at("s3://key:secret@bucket/prefix/?endpoint_override=localhost:1&scheme=http")
    assert folder.child("a/b").url == "s3://key:secret@bucket/prefix/a/b?endpoint_override=localhost:1&scheme=http"
    assert folder.where("x") == "s3://bucket/prefix/x"


def test_a_folder_splits_into_parent_and_name():
    assert Folder.at("/a/b/c.tar").split() == (Folder("/a/b"), "c.tar")
    assert Folder.at("/a").split() == (Folder("/"), "a")
    assert Folder.at("s3://bucket/p/c.tar?x=1").split() == (Folder("s3://bucket/p?x=1"), "c.tar")
    assert Folder.at("s3://bucket/c.tar").split() == (Folder("s3://bucket"), "c.tar")
    assert Folder.at("s3://bucket?x=1").split() == (Folder("s3://bucket?x=1"), "")


def test_local_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Folder.at("some/where").url == str(tmp_path / "some/where") == Folder.at(f"file://{tmp_path}/some/where").url
    assert Folder.at(tmp_path / "a").child("b").local_path() == tmp_path / "a" / "b"
    assert Folder.at("not/yet/there").free_bytes() > 0
    assert Folder.at("s3://bucket").free_bytes() is None


def test_local_folders_load_no_pyarrow(tmp_path):
    program = (
        "import sys; from pipelines.storage import Folder; f = Folder.at(sys.argv[1])\n"
        "f.publish('a', lambda file: file.write(b'1')); f.read('a'); f.files(); f.free_bytes()\n"
        "assert 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
