"""MLflow tells the truth: two levels, every point once, and true statuses after any kill."""

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import crash
import numpy as np
import pytest
import tiny
from conftest import run_alexnet
from mlflow_server import MlflowServer, free_port

from model.alexnet import AlexNet
from model.export import save_exported
from model.specs import AlexNetSpec, TrainSpec
from workflows.config import RunConfig, TrackingSpec, UsageError
from workflows.tracking.headline import main_params
from workflows.tracking.outbox import UNSENT
from workflows.tracking.server import registered_files, tracking_uri
from workflows.tracking.tracker import Tracker

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
    return tracker.server.client.get_run(run_id).info.status


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


def test_a_stage_s_run_is_a_child_of_the_workflow_s(tracker):
    parent = tracker.begin_workflow("workflow", {"alexnet.recipe": "demo"})
    with tracker.stage("ingest", {"alexnet.key": "k"}) as run:
        run.metrics({"loss": 2.0}, step=1)
        run.metrics({"loss": 1.0}, step=2)
        run.params({"train.epochs": 3})
        assert status(tracker, run.id) == "RUNNING"
    seen = tracker.server.client.get_run(run.id)
    assert seen.data.tags["mlflow.parentRunId"] == parent.id
    assert seen.data.params == {"train.epochs": "3"}
    assert [(m.step, m.value) for m in tracker.server.client.get_metric_history(run.id, "loss")] == [(1, 2.0), (2, 1.0)]
    tracker.end_workflow("FINISHED")
    assert (seen.info.status, status(tracker, parent.id)) == ("FINISHED", "FINISHED")


def test_points_arrive_while_the_stage_runs(tracker):
    tracker.begin_workflow("workflow", {})
    with tracker.stage("train", {}) as run:
        run.metrics({"loss": 2.0}, step=1)
        deadline = time.monotonic() + 30
        while not tracker.server.client.get_run(run.id).data.metrics.get("loss"):
            assert time.monotonic() < deadline, "no point arrived"
            time.sleep(0.5)


@pytest.mark.parametrize(("error", "expected"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_stage_that_fails_or_is_stopped_says_so(tracker, error, expected):
    tracker.begin_workflow("workflow", {})
    with pytest.raises(error), tracker.stage("train", {}) as run:
        raise error
    assert status(tracker, run.id) == expected


def points(tracker, run_id, name="loss"):
    return sorted(point.step for point in tracker.server.client.get_metric_history(run_id, name))


def test_while_the_database_is_locked_points_wait_in_a_file_and_arrive_once(tracker, root):
    tracker.begin_workflow("workflow", {})
    with tracker.stage("train", {}) as run:
        other = sqlite3.connect(root / "mlflow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        for step in range(2500):
            run.metrics({"loss": float(step)}, step)
        run.flush()  # MLflow waits 20 s for the lock
        (kept,) = (root / UNSENT).glob(f"{run.id}*")
        assert sum(len(json.loads(line).get("points", ())) for line in kept.read_text().splitlines()) >= 2500
        other.execute("ROLLBACK")
        other.close()
        crash.wait_until(lambda: not kept.exists(), "the database again", 60)
    assert points(tracker, run.id) == list(range(2500))
    assert status(tracker, run.id) == "FINISHED"


@pytest.fixture
def server(tmp_path):
    (tmp_path / "server").mkdir()
    made = MlflowServer(tmp_path / "server")
    yield made
    made.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_goes_away_ends_no_work_and_is_told_all_of_it_at_the_next_start(number, server, tmp_path):
    root, said = tmp_path / "runs", []
    tracker = Tracker(TrackingSpec(uri=server.address), root, said.append)
    tracker.begin_workflow("workflow", {})
    (root / "made.txt").write_text("made meanwhile")
    with tracker.stage("train", {}) as run:
        run.metrics({"loss": 1.0}, 1)
        run.flush()
        server.signal(number)
        run.metrics({"loss": 2.0}, 2)
        run.tags({"while": "away"})
        run.artifact(root / "made.txt")
        run.dataset([{"name": "a", "rows": 3}], "demo", "/elsewhere", "f" * 64, "training")
        run.metrics({"loss": 3.0}, 3)
        run.flush()
        ended = time.time()
    parent = tracker.parent.id
    tracker.end_workflow("FINISHED")
    assert len([line for line in said if "MLflow is away" in line]) == 1
    server.signal(signal.SIGKILL)
    server.start()

    again = Tracker(TrackingSpec(uri=server.address), root, said.append)
    again.begin_workflow("next", {})
    seen = again.server.client.get_run(run.id)
    assert points(again, run.id) == [1, 2, 3]
    assert seen.data.tags["while"] == "away"
    assert [file.path for file in again.server.client.list_artifacts(run.id)] == ["made.txt"]
    assert seen.inputs.dataset_inputs[0].dataset.name == "demo"
    assert (seen.info.status, status(again, parent)) == ("FINISHED", "FINISHED")
    assert abs(seen.info.end_time / 1000 - ended) < 5
    assert not (root / UNSENT).exists()
    again.end_workflow("FINISHED")


def test_a_whole_training_finishes_without_the_server_that_it_began_with(server, data, tmp_path):
    training = tiny.Training(data, tmp_path, tiny.in_process, tracking__uri=server.address)
    driver = training.start()
    training.wait_for_points(8, driver)
    server.kill()
    crash.finish(driver, training.log)
    assert training.log.read_text().count("MLflow is away") == 1
    (record,) = map(json.loads, (path.read_text() for path in training.root.glob("train/*/stage.json")))
    server.start()
    next_start = Tracker(TrackingSpec(uri=server.address), training.root)
    next_start.begin_workflow("next", {})
    run_id = record["mlflow_run_id"]
    assert status(next_start, run_id) == "FINISHED"
    assert points(next_start, run_id) == [point["step"] for point in training.points() if point["kind"] == "step"]
    assert next_start.server.client.get_model_version_by_alias("alexnet-demo", "newest").run_id == run_id
    next_start.end_workflow("FINISHED")


def test_of_a_driver_killed_while_the_server_was_away_all_is_told_too(server, data, tmp_path):
    training = tiny.Training(data, tmp_path, tiny.in_process, tracking__uri=server.address, train__epochs=5000)
    driver = training.start()
    training.wait_for_points(8, driver)
    server.kill()
    crash.wait_until(lambda: "MLflow is away" in training.log.read_text(), "a word of it", 60, driver)
    (kept, _) = crash.wait_until(lambda: two_files(training.root), "what waits", 60, driver)
    before = time.time()
    driver.kill()
    driver.wait()
    server.start()
    next_start = Tracker(TrackingSpec(uri=server.address), training.root)
    next_start.begin_workflow("next", {})
    (run,) = next_start.server.client.search_runs([next_start.experiment_id], "tags.`alexnet.stage` = 'train'")
    assert run.info.status == "KILLED"
    assert run.info.end_time / 1000 <= before
    assert not (training.root / UNSENT).exists()
    assert len(points(next_start, run.info.run_id)) >= 8
    next_start.end_workflow("FINISHED")


def two_files(root):
    found = sorted((root / UNSENT).glob("*.jsonl"))
    return found if len(found) == 2 else None


def test_an_error_of_the_stage_s_own_is_the_one_that_is_raised(server, tmp_path):
    tracker = Tracker(TrackingSpec(uri=server.address), tmp_path / "runs")
    tracker.begin_workflow("workflow", {})

    def fail() -> None:
        server.kill()
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"), tracker.stage("train", {}):
        fail()
    with pytest.raises(UsageError, match=r"tracking.uri=.* does not answer"), tracker.stage("evaluate", {}):
        pass
    tracker.end_workflow("FAILED")
    assert len(list((tmp_path / "runs" / UNSENT).iterdir())) == 2


def test_what_mlflow_will_never_take_is_said_once_and_stops_nothing(root):
    said = []
    tracker = Tracker(TrackingSpec(), root, said.append)
    tracker.begin_workflow("workflow", {})
    with tracker.stage("train", {}) as run:
        tracker.server.client.delete_run(run.id)
        run.metrics({"loss": 1.0})
        run.flush()
        run.artifact(root / "nosuch.txt")
    tracker.end_workflow("FINISHED")
    assert len(said) == 1
    assert run.id[:8] in said[0]
    assert not (root / UNSENT).exists()


def accepted(listening: socket.socket) -> socket.socket | None:
    with contextlib.suppress(TimeoutError):
        return listening.accept()[0]
    return None


@pytest.mark.parametrize("kind", ["refused", "blackhole", "mute"])
def test_a_server_that_does_not_answer_is_named_within_seconds(kind, tmp_path):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        port = free_port() if kind == "refused" else mute.getsockname()[1]
        address = f"http://{'10.255.255.1' if kind == 'blackhole' else '127.0.0.1'}:{port}"
        import mlflow  # noqa: F401  takes seconds by itself

        with pytest.raises(UsageError, match=f"tracking.uri={address} does not answer"):
            Tracker(TrackingSpec(uri=address), tmp_path).begin_workflow("workflow", {})
        mute.settimeout(0.1)
        asked = list(iter(lambda: accepted(mute), None))
        assert len(asked) == (kind == "mute")  # once, where MLflow itself asks for minutes


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
    time.sleep(2)  # what is closed ends then, not now
    other = Tracker(TrackingSpec(), root)
    mine = other.begin_workflow("next", {})
    assert [status(tracker, i) for i in ids] == ["KILLED", "KILLED"]
    for run in map(tracker.server.client.get_run, ids):
        heartbeat_s = float(run.data.tags["lease.heartbeat"])
        assert run.info.end_time == max(int(heartbeat_s * 1000), run.info.start_time)
    assert status(tracker, tracker.parent.id) == "RUNNING"  # its process lives
    assert status(tracker, mine.id) == "RUNNING"
    other.end_workflow("FINISHED")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"boot": "another"}, "RUNNING"),  # a machine that shares our name, its heartbeat fresh
        ({"namespace": "1"}, "RUNNING"),  # a container
        ({"host": "elsewhere"}, "RUNNING"),
        ({"boot": "another", "heartbeat": "1000000000"}, "KILLED"),
        ({"pid": "999999999"}, "KILLED"),  # here, and gone
    ],
)
def test_a_lease_holds_while_its_process_lives_wherever_that_is(changed, expected, tracker, root):
    tracker.begin_workflow("workflow", {})
    made = tracker.server.create("other", {"alexnet.kind": "workflow"})
    for name, value in changed.items():
        tracker.server.client.set_tag(made, f"lease.{name}", value)
    tracker.server.settle()
    assert status(tracker, made) == expected
    tracker.server.client.set_terminated(made)


def test_processes_that_start_at_once_on_a_fresh_root_all_live(tmp_path):
    code = (
        "import sys; from pathlib import Path; from workflows.config import TrackingSpec;"
        "from workflows.tracking.tracker import Tracker; t = Tracker(TrackingSpec(), Path(sys.argv[1]));"
        "t.begin_workflow('w', {}); t.end_workflow('FINISHED')"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]


def test_a_data_set_is_an_input_with_its_whole_digest(tracker):
    tracker.begin_workflow("workflow", {})
    with tracker.stage("ingest", {}) as run:
        run.dataset([{"name": "a", "rows": 3}], "demo", "/elsewhere", "f" * 64, "ingest")
    [entry] = tracker.server.client.get_run(run.id).inputs.dataset_inputs
    assert entry.dataset.name == "demo"
    assert {tag.key: tag.value for tag in entry.tags}["manifest_sha256"] == "f" * 64


SPEC = AlexNetSpec(
    input_px=24, conv1_kernel=5, conv1_stride=1, kernels=(4, 8, 8, 8, 4), fc=(12, 10), num_classes=3, middle_std=0.05
)


def export(folder, error=None):
    net = AlexNet(SPEC)
    weights = {name: value.contiguous() for name, value in net.state_dict().items() if name != "mean"}
    facts = {} if error is None else {"val_top1_error": error}
    return save_exported(folder, SPEC, weights, net.mean, class_names=("a", "b", "c"), provenance=facts)


@pytest.mark.parametrize("name", ["plain", "a?b", "a%25b", "a#b c", "ä", "a:b&c;d+e=f"])
def test_a_root_of_any_name_has_its_database_inside_and_its_models_are_found_where_it_was_moved(name, tmp_path):
    first, later = tmp_path / name, tmp_path / f"{name} later"
    tracker = Tracker(TrackingSpec(), first)
    tracker.begin_workflow("workflow", {})
    with tracker.stage("train", {}) as run:
        run.model(export(first / "model"), "tiny", "newest", {})
        run.artifact(first / "model" / "model.json")
    tracker.end_workflow("FINISHED")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    found = registered_files(TrackingSpec(), first, "models:/tiny@newest")
    assert found.is_relative_to(first)
    first.rename(later)
    moved = registered_files(TrackingSpec(), later, "models:/tiny@newest")
    assert moved.relative_to(later) == found.relative_to(first)
    assert (moved / "model.safetensors").exists()
    again = Tracker(TrackingSpec(), later)
    again.begin_workflow("workflow", {})
    assert [file.path for file in again.server.client.list_artifacts(run.id)] == ["model.json"]
    with again.stage("train", {}) as second:
        second.artifact(later / "model" / "model.json")
    again.end_workflow("FINISHED")
    assert [path.name for path in tmp_path.iterdir()] == [later.name]
    assert (later / "mlartifacts" / second.id / "artifacts" / "model.json").exists()
    if "%" not in name:  # MLflow's own loader takes a path that it downloaded for an address, and decodes it
        import mlflow

        loaded = mlflow.pyfunc.load_model("models:/tiny@newest")
        assert loaded.predict(np.zeros((5, 3, 24, 24), np.float32)).shape == (5, 3)


def test_a_root_that_cannot_be_written_serves_its_models(tmp_path):
    root = tmp_path / "first"
    tracker = Tracker(TrackingSpec(), root)
    tracker.begin_workflow("workflow", {})
    with tracker.stage("train", {}) as run:
        run.model(export(root / "model"), "tiny", "newest", {})
    tracker.end_workflow("FINISHED")
    root = root.rename(tmp_path / "moved")
    before = (root / "mlflow.db").read_bytes()
    with read_only(root):
        found = as_nobody(root, "models:/tiny@newest")
    assert found.startswith(str(root))
    assert (root / "mlflow.db").read_bytes() == before


@contextlib.contextmanager
def read_only(root):
    """For a user who owns nothing here; pytest's folders are closed to them otherwise."""
    (root / ".mlflow.lock").unlink()
    opened = [path for path in root.parents if path.stat().st_uid == os.getuid() and path != Path("/")]
    modes = {path: path.stat().st_mode for path in opened}
    try:
        for path in opened:
            path.chmod(modes[path] | 0o055)
        for path in (root, *root.rglob("*")):
            path.chmod(0o555)
        yield
    finally:
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)
        for path, mode in modes.items():
            path.chmod(mode)


def as_nobody(root, uri) -> str:
    code = (
        "import os, sys; from pathlib import Path\n"
        "import mlflow, mlflow.pytorch, workflows.tracking.server as edge; from workflows.config import TrackingSpec\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "os.chdir('/')\n"
        "print(edge.registered_files(TrackingSpec(), Path(sys.argv[1]), sys.argv[2]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root), uri], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_model_has_a_signature_pinned_requirements_its_files_and_no_pictures_as_text(tracker, root):
    tracker.begin_workflow("workflow", {})
    with tracker.stage("train", {}) as run:
        run.model(export(root / "model"), "tiny", "newest", {"manifest": "m"})
        assert status(tracker, run.id) == "RUNNING"
    version = tracker.server.client.get_model_version_by_alias("tiny", "newest")
    assert version.run_id == run.id
    assert version.tags["manifest"] == "m"
    import mlflow

    loaded = mlflow.pyfunc.load_model("models:/tiny@newest")
    assert loaded.predict(np.zeros((5, 3, 24, 24), np.float32)).shape == (5, 3)
    assert str(loaded.metadata.signature.inputs.inputs[0].shape) == "(-1, 3, 24, 24)"
    files = registered_files(TrackingSpec(), root, "models:/tiny@newest")
    assert json.loads((files / "model.json").read_text())["class_names"] == ["a", "b", "c"]
    wanted = (files.parent / "requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[a-z]+==[\d.]+", line) for line in wanted)
    assert {line.partition("==")[0] for line in wanted} >= {"torch", "numpy"}
    assert not [path.name for path in files.parent.rglob("*example*")]
    with pytest.raises(UsageError, match="no model models:/other@newest"):
        registered_files(TrackingSpec(), root, "models:/other@newest")


def test_best_moves_only_to_a_lower_error_on_the_same_images(tracker, tmp_path):
    tracker.begin_workflow("workflow", {})
    client, said = tracker.server.client, []
    tracker.server._say = said.append
    with tracker.stage("train", {}) as run:
        best = []
        for number, (error, manifest) in enumerate([(0.3, "m"), (0.4, "m"), (0.3, "m"), (0.2, "m"), (0.1, "n")]):
            run.model(export(tmp_path / str(number), error), "contest", "best", {"manifest": manifest * 64})
            best.append(client.get_model_version_by_alias("contest", "best").version)
    assert best == [1, 1, 1, 4, 4]
    assert client.get_model_version_by_alias("contest", "best-nnnnnnnn").version == 5
    assert client.get_model_version_by_alias("contest", "best-mmmmmmmm").version == 4
    assert [line for line in said if "best-nnnnnnnn" in line]


def test_without_validation_images_the_newest_is_the_best(tracker, tmp_path):
    tracker.begin_workflow("workflow", {})
    with tracker.stage("train", {}) as run:
        for number in range(2):
            run.model(export(tmp_path / str(number)), "unjudged", "best", {"manifest": "m"})
    assert tracker.server.client.get_model_version_by_alias("unjudged", "best").version == 2


def test_errors_are_linked_to_the_model_that_was_judged(tracker, tmp_path):
    tracker.begin_workflow("workflow", {})
    with tracker.stage("train", {}) as train:
        for alias in ("newest", "best"):
            train.model(export(tmp_path / alias), "judged", alias, {"manifest": "m"})
    with tracker.stage("evaluate", {}) as run:
        run.judged({"top1_error": 0.25}, train.id, "best", "demo", "f" * 64)
    client = tracker.server.client
    made = {m.name: m for m in client.search_logged_models([tracker.experiment_id], f"source_run_id = '{train.id}'")}
    seen = client.get_run(run.id)
    assert [one.model_id for one in seen.inputs.model_inputs] == [made["best"].model_id]
    assert seen.data.metrics == {"top1_error": 0.25}
    linked = client.get_logged_model(made["best"].model_id).metrics
    assert [(m.key, m.value, m.dataset_name) for m in linked] == [("top1_error", 0.25, "demo")]
    assert not client.get_logged_model(made["newest"].model_id).metrics


def test_errors_of_a_model_that_is_not_known_here_are_kept_all_the_same(tracker):
    tracker.begin_workflow("workflow", {})
    with tracker.stage("evaluate", {}) as run:
        run.judged({"top1_error": 0.25}, "", "best", "demo", "f" * 64)
    assert tracker.server.client.get_run(run.id).data.metrics == {"top1_error": 0.25}


def test_values_longer_than_mlflow_takes_are_cut_and_say_so(tracker):
    tracker.begin_workflow("workflow", {}, main_params(RunConfig()))
    long = {"a": "x" * 6001, "b": "x" * 6000 + "y"}
    with tracker.stage("train", {}) as run:
        run.params({f"p{i}": i for i in range(250)})
        for _ in range(2):  # as when it is sent again
            run.params(long)
            run.tags({f"tag.{name}": value for name, value in long.items()})
    seen = tracker.server.client.get_run(run.id).data
    assert len(seen.params) == 252
    assert "(6001 characters" in seen.params["a"]
    assert seen.params["a"] != seen.params["b"]
    assert seen.tags["tag.a"] == seen.params["a"]
    assert tracker.server.client.get_run(tracker.parent.id).data.params["train.epochs"] == str(TrainSpec().epochs)


def test_the_database_is_under_the_root_wherever_the_process_stands(root):
    assert tracking_uri(TrackingSpec(), root) == f"sqlite:///{root}/mlflow.db"
    assert tracking_uri(TrackingSpec(uri="http://127.0.0.1:5000"), root) == "http://127.0.0.1:5000"
