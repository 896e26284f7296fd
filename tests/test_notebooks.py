"""The notebooks run on a finished demo, are stored with small whole outputs, and define nothing."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ("01_dataset", "02_augmentation", "03_columns", "04_training", "05_your_network", "06_claims")
MAX_BYTES = 500_000
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|var|mnt)/\S+")


def read(name: str) -> nbformat.NotebookNode:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def errors(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [str(output) for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


def num_pictures(notebook: nbformat.NotebookNode) -> int:
    return sum("image/jpeg" in output.get("data", {}) for cell in code_cells(notebook) for output in cell.outputs)


def test_there_are_no_other_notebooks():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_stored_with_small_whole_outputs(name):
    notebook = read(name)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < MAX_BYTES
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert not errors(notebook)
    assert num_pictures(notebook) >= 3
    assert not MACHINE_PATH.findall(json.dumps([[cell.source, cell.get("outputs", [])] for cell in notebook.cells]))


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_define_nothing(name):
    for cell in code_cells(read(name)):
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        nodes = list(ast.walk(ast.parse(source)))
        assert not [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_notebooks_run_on_a_finished_demo(name, demo_root, monkeypatch, tmp_path):
    from nbclient import NotebookClient
    from traitlets.config import Config

    monkeypatch.setenv("ALEXNET_ROOT", str(demo_root))
    notebook = read(name)
    stored = num_pictures(notebook)
    sockets = Config({"KernelManager": {"transport": "ipc", "ip": str(tmp_path / "kernel")}})  # files, no open ports
    NotebookClient(notebook, timeout=600, config=sockets, resources={"metadata": {"path": str(FOLDER)}}).execute()
    assert not errors(notebook)
    assert num_pictures(notebook) == stored
