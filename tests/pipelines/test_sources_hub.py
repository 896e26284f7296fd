"""hf:// sources, read by the real client from a server that speaks the Hub's protocol."""

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import builders
import pytest
from fake_hub import hub

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
READ = """
import sys
{before}
from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec
for name in sys.argv[1:]:
    try:
        source = open_source(IngestSpec(source=name, val_fraction=0))
        rows = source.splits["train"]
        print(source.kind, source.class_names, rows["label"].to_pylist())
        print([hash(data) for data in source.reader.read(rows)])
    except ValueError as error:
        print("refused:", error)
"""


def read(endpoint: str, home: Path, *sources, before: str = "") -> list[str]:
    """What is said of each source by a process that knows this server; the client looks for it when it loads."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", READ.format(before=before), *map(str, sources)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def endpoint(tmp_path):
    pytest.importorskip("huggingface_hub")
    (tmp_path / "repo").mkdir()
    server = hub(tmp_path / "repo")
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_data_set_on_the_hub_is_the_same_as_on_disk(tmp_path, endpoint):
    files = {"train-00000-of-00002.parquet": [0, 1, 1, 0], "train-00001-of-00002.parquet": [1, 0], "test.parquet": [1]}
    builders.huggingface(tmp_path / "repo" / "data", files)
    remote, local = "hf://datasets/owner/name", tmp_path / "repo"
    said = read(endpoint, tmp_path / "home", remote, f"{remote}/data", local)
    assert said[:2] == said[2:4] == said[4:]
    assert said[0].startswith("huggingface ('cat', 'dog') [0, 1, 1, 0, 1, 0]")


def test_what_the_hub_converted_is_read(tmp_path, endpoint):
    builders.huggingface(tmp_path / "repo" / "default" / "train", {"0000.parquet": [0, 1, 1]})
    said = read(endpoint, tmp_path / "home", "hf://datasets/owner/name@refs/convert/parquet", tmp_path / "repo")
    assert said[:2] == said[2:]
    assert said[0] == "huggingface ('cat', 'dog') [0, 1, 1]"


def test_archives_on_the_hub_are_read_in_place(tmp_path, endpoint):
    builders.webdataset(tmp_path / "repo", {"train-0.tar": {"a": {"cls": "1"}, "b": {"cls": "0"}}})
    said = read(endpoint, tmp_path / "home", "hf://datasets/owner/name", tmp_path / "repo")
    assert said[:2] == said[2:]
    assert said[0] == "webdataset ('0', '1') [1, 0]"


def test_what_is_not_on_the_hub_is_said(tmp_path, endpoint):
    (said,) = read(endpoint, tmp_path / "home", "hf://datasets/owner/none")
    assert said.startswith("refused: ingest.source: there is no file or folder hf://datasets/owner/none;")


def test_a_hub_out_of_reach_is_said_in_one_line(tmp_path):
    pytest.importorskip("huggingface_hub")
    (said,) = read("http://127.0.0.1:9", tmp_path, "hf://datasets/owner/name")
    assert said.startswith("refused: ingest.source: cannot read hf://datasets/owner/name: ConnectError")


def test_without_the_package_the_one_command_is_named(tmp_path):
    (said,) = read("", tmp_path, "hf://datasets/owner/name", before="sys.modules['huggingface_hub'] = None")
    assert said == "refused: hf:// needs a package that is not installed: pip install huggingface_hub"
