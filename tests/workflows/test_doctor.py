"""`alexnet doctor` looks at this machine and at the root, and changes nothing."""

import json
import socket

import pytest
from conftest import run_alexnet


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
    stage = tmp_path / "train" / "0123"
    stage.mkdir(parents=True)
    (tmp_path / "train" / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": 1}))
    point = {"kind": "epoch", "step": 9, "epoch": 1, "verdict": "input-bound: raise loader.threads"}
    (stage / "history.jsonl").write_text(json.dumps(point) + "\n")
    found = findings(tmp_path)
    assert found["leftovers"]["verdict"] == "note"
    assert "1 dead locks" in found["leftovers"]["text"]
    assert found["last training"] == {"what": "last training", "verdict": "note", "text": point["verdict"]}
