"""`alexnet doctor` looks at this machine and at the root, and changes nothing."""

import json

import pytest
from conftest import run_alexnet
from packaging.requirements import Requirement

from pipelines.storage import Folder
from workflows.commands import doctor
from workflows.compute import devices
from workflows.config import RunConfig, with_values
from workflows.engine.outputs import Output
from workflows.processes import this_process


def findings(root) -> dict[str, dict]:
    done = run_alexnet("doctor", "--root", root, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    return {finding["what"]: finding for finding in json.loads(done.stdout)}


@pytest.mark.slow
def test_a_machine_that_runs_the_tests_is_well(tmp_path):
    found = findings(tmp_path / "runs")
    assert not [finding for finding in found.values() if finding["verdict"] == "wrong"]
    assert {"Python", "torch", "DALI", "ray", "mlflow", "cores", "memory", "disk", "write access"} <= found.keys()
    for decoder in ("libjpeg-turbo", "DALI"):
        assert found[f"JPEG by {decoder}"]["verdict"] == "ok"
    assert "last training" not in found
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_what_needs_attention_is_said(tmp_path):
    output = Output("train", "0123", Folder.at(tmp_path / "train" / "0123"))
    output.begin({"stage": "train", "key": "0123", "ingredients": {}, "inputs": {}}, {"started": "2026"})
    stage = output.folder.local_path()
    dead = {**this_process(), "pid": 2**22}  # more than there are
    (tmp_path / "train" / "0123.lock").write_text(json.dumps(dead))
    point = {"kind": "epoch", "step": 9, "epoch": 1, "verdict": "input-bound: raise loader.threads"}
    (stage / "history.jsonl").write_text(json.dumps(point) + "\n")
    found = findings(tmp_path)
    assert found["leftovers"]["verdict"] == "note"
    assert "1 dead locks" in found["leftovers"]["text"]
    assert found["last training"] == {"what": "last training", "verdict": "note", "text": point["verdict"]}


@pytest.mark.parametrize(
    ("requirement", "verdict", "words"),
    [
        ("numpy>=1", "ok", ""),
        ("numpy>=999", "wrong", "and >=999 is needed: `pip install 'numpy>=999'`"),
        ("numpy<1", "wrong", "<1 is needed"),
        ("no-such-package>=1", "wrong", "not installed: `pip install 'no-such-package>=1'`"),
    ],
)
def test_a_version_outside_the_range_that_is_needed_is_wrong(requirement, verdict, words):
    finding = doctor.version_found(Requirement(requirement))
    assert finding.verdict == verdict
    assert words in finding.text


@pytest.mark.parametrize(
    ("driver", "built", "words"),
    [
        (
            "580.65.06",
            None,
            ["driver 580.65.06", "a build for the CPU", "a cu13 build of torch", "nvidia-dali-cuda130"],
        ),
        ("550.54.15", None, ["serves CUDA 12", "a build for the CPU", "a cu12 build of torch", "nvidia-dali-cuda120"]),
        ("550.54.15", "13.0", ["built for CUDA 13.0", "a cu12 build of torch", "nvidia-dali-cuda120"]),
        ("580.65.06", "13.0", ["the builds fit", "CUDA_VISIBLE_DEVICES"]),
    ],
)
def test_a_gpu_that_torch_does_not_use_gets_the_build_that_fits_its_driver(driver, built, words):
    said = devices.unused_gpu(driver, built)
    assert all(word in said for word in words), said


def test_a_cluster_that_does_not_answer_is_wrong():
    (gone,) = doctor.answers("127.0.0.1:1")
    assert gone.verdict == "wrong"
    assert "no Ray answers" in gone.text
    assert list(doctor.answers("")) == []


def test_the_disk_is_compared_with_what_the_plan_predicts(tmp_path):
    root = tmp_path / "runs"
    fits = doctor.room(RunConfig(), root)
    assert (fits.verdict, "take about" in fits.text) == ("ok", True)
    huge = with_values(RunConfig(), {"ingest.size": 10**6, "ingest.encoding": "raw"})
    assert doctor.room(huge, root).verdict == "wrong"
    unknown = doctor.room(with_values(RunConfig(), {"ingest.source": "/no/such/place"}), root)
    assert (unknown.verdict, "unknown" in unknown.text) == ("note", True)
    assert not root.exists()
