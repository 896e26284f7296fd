"""Tables are read on the calling thread: a thread of pyarrow's that outlives the interpreter aborts the process."""

import ast
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from memory_source import ingest, jpegs, memory_source

from pipelines.quarantine import QUARANTINE
from pipelines.storage import Folder
from pipelines.tables import read_table

ROOT = Path(__file__).parents[2]
# Of pyarrow and pandas, on many threads.
THREADED = re.compile(r"(pq|pd|pa|ds|pandas|pyarrow|parquet)\b.*\.(read_table|read_parquet|ParquetDataset|dataset)")
VERIFY = """
import sys
from pipelines.verify import verify
from pipelines.storage import Folder
assert verify(Folder.at(sys.argv[1])) == []
assert "pyarrow.dataset" not in sys.modules
"""


def shards(folder: Path) -> Folder:
    return ingest(folder, memory_source({"train": [b"no image", *jpegs(9)]}), format="parquet", max_bad=0.5)[0]


def test_some_columns_of_a_table(tmp_path):
    folder = shards(tmp_path)
    assert read_table(folder, QUARANTINE, ["split", "label"]).to_pylist() == [{"split": "train", "label": 0}]
    assert read_table(folder, QUARANTINE).num_columns == 7
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        read_table(folder, "none.parquet")


def run_verify(folder: Folder) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", VERIFY, folder.url]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_fifty_processes_that_verify_end_well(tmp_path):
    """Of those that read on other threads one in 3 to 50 ended with 134, after it had said that all was well."""
    folder = shards(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda _: run_verify(folder), range(50)))
    assert {(process.returncode, process.stderr) for process in ended} == {(0, "")}


def programs() -> dict[str, str]:
    """All code that runs or verifies a workflow: the packages but for the peers, and the notebooks' cells."""
    paths = [path for package in ("pipelines", "model", "workflows") for path in (ROOT / package).rglob("*.py")]
    found = {str(path): path.read_text() for path in paths if "peers" not in path.parts}
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        found[str(path)] = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return found


def threaded_reads(code: str) -> list[str]:
    code = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))
    called = (node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    names = (ast.unparse(function) for function in called if isinstance(function, ast.Attribute))
    return [name for name in names if THREADED.fullmatch(name)]


def test_nobody_reads_a_table_on_other_threads():
    assert threaded_reads("pq.read_table(file); pd.read_parquet(path)") == ["pq.read_table", "pd.read_parquet"]
    found = {name: reads for name, code in programs().items() if (reads := threaded_reads(code))}
    assert found == {}
