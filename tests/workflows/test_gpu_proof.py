"""What a machine with a GPU is to show: nothing is called shown that was not, and kills are survived on any device."""

import subprocess
import sys

import pytest
import torch

from workflows.bench.gpu_proof import Failed, counted, prove, resumed

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@without_gpu
def test_without_a_gpu_nothing_is_shown_and_the_reason_is_told(tmp_path, capsys):
    parts = prove(tmp_path)
    assert list(parts) == ["machine"]
    assert "finds no GPU" in parts["machine"]["why"]
    assert "| machine | wrong | torch" in (tmp_path / "gpu-proof.md").read_text()
    assert "machine: wrong: torch" in capsys.readouterr().out


TESTS = """
import pytest
def test_one(): pass
@pytest.mark.skip
def test_two(): pass
def test_three(): assert {three}
"""


def report_of(folder, **files: str):
    """The report of pytest over such files."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "--continue-on-collection-errors", "--junitxml=tests.xml", "."]
    subprocess.run(command, cwd=folder, check=False, capture_output=True)
    return folder / "tests.xml"


def test_tests_are_counted_as_pytest_reported_them(tmp_path):
    found = counted(report_of(tmp_path, test_good=TESTS.format(three=True), test_lacking="import not_installed"))
    assert (found["passed"], found["skipped"]) == (2, 1)
    assert len(found["files that could not be read"]) == 1


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"test_bad": TESTS.format(three=False)}, "1 of 3 tests failed: test_bad::test_three"),
        ({"test_lacking": "import not_installed"}, "no test ran; 1 files could not be read"),
    ],
)
def test_a_failure_is_one_and_so_is_that_nothing_ran(files, words, tmp_path):
    with pytest.raises(Failed, match=words):
        counted(report_of(tmp_path, **files))


@pytest.mark.slow
def test_a_demo_that_is_killed_twice_ends_with_the_same_weights(tmp_path):
    few = {"ingest.limit": "96", "train.epochs": "5", "tracking.uri": "off"}
    settings = ("--recipe", "demo", *(word for key, value in few.items() for word in ("--set", f"{key}={value}")))
    found = resumed(tmp_path, 280, settings)
    assert set(found["weights"]) == {"model/model.safetensors", "best/model.safetensors"}
