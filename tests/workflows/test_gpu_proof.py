"""What a machine with a GPU is to show: nothing is called shown that was not, and kills are survived on any device."""

import subprocess
import sys
import time

import pytest
import torch

from workflows.bench import gpu_proof
from workflows.bench.gpu_proof import Failed, Part, counted, prove, resumed

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
@pytest.fixture
def needed(): assert {needed}
def test_one(needed): pass
@pytest.mark.skip
def test_two(): pass
def test_three(): assert {three}
"""
GOOD = {"needed": True, "three": True}


def report_of(folder, **files: str):
    """The report of pytest over such files."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "--continue-on-collection-errors", "--junitxml=tests.xml", "."]
    subprocess.run(command, cwd=folder, check=False, capture_output=True)
    return folder / "tests.xml"


def test_tests_are_counted_as_pytest_reported_them(tmp_path):
    found = counted(report_of(tmp_path, test_good=TESTS.format(**GOOD), test_lacking="import not_installed"))
    assert (found["passed"], found["skipped"]) == (2, 1)
    assert len(found["files that could not be read"]) == 1


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"test_bad": TESTS.format(**GOOD | {"three": False})}, "1 of 3 tests failed: test_bad::test_three"),
        ({"test_bad": TESTS.format(**GOOD | {"needed": False})}, "1 of 3 tests failed: test_bad::test_one"),
        ({"test_lacking": "import not_installed"}, "no test ran; 1 files could not be read"),
    ],
)
def test_a_failure_is_one_and_so_is_that_nothing_ran(files, words, tmp_path):
    with pytest.raises(Failed, match=words):
        counted(report_of(tmp_path, **files))


def test_a_part_begins_anew_and_nothing_of_one_that_took_too_long_goes_on(tmp_path, monkeypatch):
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "ours").write_text("what a folder given as --out holds of this name")
    (tmp_path / "parts" / "slow").mkdir(parents=True)
    (tmp_path / "parts" / "slow" / "old").write_text("of other code")
    child = f"import pathlib, time; time.sleep(4); pathlib.Path({str(tmp_path / 'late')!r}).touch()"
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"]
    part = Part("slow", (), 1, lambda folder, limit_s: gpu_proof._run(command, folder, limit_s))
    monkeypatch.setattr(gpu_proof, "PARTS", (part,))
    assert prove(tmp_path)["slow"] == {"state": "passed over", "why": "not done in 1 s"}
    assert [path.name for path in (tmp_path / "parts" / "slow").iterdir()] == ["log"]
    assert (tmp_path / "slow" / "ours").exists()
    time.sleep(4)
    assert not (tmp_path / "late").exists()


def test_the_trainer_s_bench_needs_torch_alone(tmp_path):
    blocked = "import sys; sys.modules.update(dict.fromkeys(['nvidia', 'ray', 'mlflow', 'pyarrow']))"
    code = f"{blocked}; import workflows.bench.gpu_proof, workflows.bench.trainer, workflows.bench.trainer_turn"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_demo_that_is_killed_twice_ends_with_the_same_weights(tmp_path):
    few = {"ingest.limit": "96", "train.epochs": "5", "tracking.uri": "off"}
    settings = ("--recipe", "demo", *(word for key, value in few.items() for word in ("--set", f"{key}={value}")))
    found = resumed(tmp_path, 280, settings)
    assert set(found["weights"]) == {"model/model.safetensors", "best/model.safetensors"}
