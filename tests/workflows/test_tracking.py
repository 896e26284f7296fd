"""MLflow tells the truth: two levels, every point once, and true statuses after any kill."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny
from conftest import run_alexnet

from workflows.config import TrackingSpec, UsageError
from workflows.tracking import Tracker, registered_files, tracking_uri

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("tracked")


@pytest.fixture
def tracker(root):
    made = Tracker(TrackingSpec(), root)
    yield made
    made.end_workflow("FINISHED")


def status(tracker, run_id):
    return tracker.client.get_run(run_id).info.status


def open_and_die(root, number):
    """A process that opens a workflow with a stage and is killed; returns the ids of its runs."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        mine = Tracker(TrackingSpec(), root)
        parent = mine.begin_workflow("doomed", {})
        with mine.stage("train", {}) as run:
            os.write(write, f"{parent.id} {run.id}".encode())
            time.sleep(60)
    ids = os.read(read, 200).decode().split()
    os.kill(child, number)
    os.waitpid(child, 0)
    return ids


def flush_until_it_fails(run):
    """Again where the heartbeat's thread has taken the points at this moment."""
    while True:
        run.metrics({"more": 1.0})
        run.flush()


def test_a_stage_s_run_is_a_child_of_the_workflow_s(tracker):
    parent = tracker.begin_workflow("workflow", {"alexnet.recipe": "demo"})
    with tracker.stage("ingest", {"alexnet.key": "k"}) as run:
        run.metrics({"loss": 2.0}, step=1)
        run.metrics({"loss": 1.0}, step=2)
        run.params({"train.epochs": 3})
        assert status(tracker, run.id) == "RUNNING"
    seen = tracker.client.get_run(run.id)
    assert seen.data.tags["mlflow.parentRunId"] == parent.id
    assert seen.data.params == {"train.epochs": "3"}
    assert [(m.step, m.value) for m in tracker.client.get_metric_history(run.id, "loss")] == [(1, 2.0), (2, 1.0)]
    tracker.end_workflow("FINISHED")
    assert (seen.info.status, status(tracker, parent.id)) == ("FINISHED", "FINISHED")


def test_points_arrive_while_the_stage_runs(tracker):
    tracker.begin_workflow("workflow", {})
    with tracker.stage("train", {}) as run:
        run.metrics({"loss": 2.0}, step=1)
        deadline = time.monotonic() + 30
        while not tracker.client.get_run(run.id).data.metrics.get("loss"):
            assert time.monotonic() < deadline, "no point arrived"
            time.sleep(0.5)


@pytest.mark.parametrize(("error", "expected"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_stage_that_fails_or_is_stopped_says_so(tracker, error, expected):
    tracker.begin_workflow("workflow", {})
    with pytest.raises(error), tracker.stage("train", {}) as run:
        raise error
    assert status(tracker, run.id) == expected


def test_points_that_could_not_be_sent_are_sent_later_once_and_in_order(tracker, root):
    tracker.begin_workflow("workflow", {})
    with tracker.stage("train", {}) as run:
        other = sqlite3.connect(root / "mlflow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        for step in range(2500):
            run.metrics({"loss": float(step)}, step)
        with pytest.raises(Exception, match="locked"):
            flush_until_it_fails(run)
        other.execute("ROLLBACK")
        other.close()
    seen = tracker.client.get_metric_history(run.id, "loss")
    assert sorted(point.step for point in seen) == list(range(2500))
    assert status(tracker, run.id) == "FINISHED"


@pytest.mark.parametrize("uri", ["ftp://somewhere/mlflow", "sqlite:////proc/no/such/place.db"])
def test_a_tracking_uri_that_cannot_be_is_refused_in_one_line_before_any_output(tmp_path, uri):
    tiny.write_source(tmp_path / "source")
    config = tiny.write_config(tmp_path / "config.toml", tmp_path / "source", tracking__uri=uri)
    refused = run_alexnet("ingest", "--root", tmp_path / "runs", "--config", config)
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.splitlines()[-1].startswith(f"alexnet: tracking.uri={uri} does not answer as MLflow does: ")
    assert "Traceback" not in refused.stderr
    assert not [path for path in tmp_path.glob("runs/ingest/*") if path.is_dir()]


def test_runs_of_a_killed_process_are_closed_at_the_next_start(tracker, root):
    tracker.begin_workflow("first", {})  # initialises the database
    ids = open_and_die(root, signal.SIGKILL)
    assert [status(tracker, i) for i in ids] == ["RUNNING", "RUNNING"]
    other = Tracker(TrackingSpec(), root)
    mine = other.begin_workflow("next", {})
    assert [status(tracker, i) for i in ids] == ["KILLED", "KILLED"]
    assert status(tracker, tracker.parent.id) == "RUNNING"  # its process lives
    assert status(tracker, mine.id) == "RUNNING"
    other.end_workflow("FINISHED")


def test_processes_that_start_at_once_on_a_fresh_root_all_live(tmp_path):
    code = (
        "import sys; from pathlib import Path; from workflows.config import TrackingSpec;"
        "from workflows.tracking import Tracker; t = Tracker(TrackingSpec(), Path(sys.argv[1]));"
        "t.begin_workflow('w', {}); t.end_workflow('FINISHED')"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]


def test_a_data_set_is_an_input_with_its_whole_digest(tracker):
    import pandas as pd

    tracker.begin_workflow("workflow", {})
    with tracker.stage("ingest", {}) as run:
        run.dataset(pd.DataFrame({"name": ["a"], "rows": [3]}), "demo", "/elsewhere", "f" * 64, "ingest")
    [entry] = tracker.client.get_run(run.id).inputs.dataset_inputs
    assert entry.dataset.name == "demo"
    assert {tag.key: tag.value for tag in entry.tags}["manifest_sha256"] == "f" * 64


def test_a_model_is_logged_with_its_signature_and_found_by_its_alias(tracker, root, tmp_path):
    import torch

    tracker.begin_workflow("workflow", {})
    card = tmp_path / "card.json"
    card.write_text("{}")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
    with tracker.stage("train", {}) as run:
        run.model(net, np.zeros((2, 3, 2, 2), np.float32), "tiny", "newest", [card], {})
        assert status(tracker, run.id) == "RUNNING"
    version = tracker.client.get_model_version_by_alias("tiny", "newest")
    assert version.run_id == run.id
    import mlflow

    loaded = mlflow.pyfunc.load_model("models:/tiny@newest")
    assert loaded.predict(np.zeros((5, 3, 2, 2), np.float32)).shape == (5, 3)
    assert (registered_files(TrackingSpec(), root, "models:/tiny@newest") / "card.json").read_text() == "{}"
    with pytest.raises(UsageError, match="no model models:/other@newest"):
        registered_files(TrackingSpec(), root, "models:/other@newest")


def test_the_database_is_under_the_root_wherever_the_process_stands(root):
    assert tracking_uri(TrackingSpec(), root) == f"sqlite:///{root}/mlflow.db"
    assert tracking_uri(TrackingSpec(uri="http://127.0.0.1:5000"), root) == "http://127.0.0.1:5000"
