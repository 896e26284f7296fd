"""Source, shards and checkpoints in an object store, the runs on a tracking server: all but the root is elsewhere."""

import json
import shutil
from pathlib import Path

import crash
import pytest
import tiny
from conftest import run_alexnet
from mlflow_server import MlflowServer

from pipelines.storage import Folder

pytestmark = pytest.mark.slow


@pytest.fixture
def mlflow_server(tmp_path):
    """The address of a live `mlflow server` on loopback."""
    server = MlflowServer(tmp_path)
    yield server.address
    server.kill()


def upload(folder: Path, to: Folder) -> None:
    for path in folder.rglob("*.jpg"):
        data = path.read_bytes()
        to.publish(str(path.relative_to(folder)), lambda file, data=data: file.write(data))


def test_a_run_whose_data_are_in_an_object_store_is_resumed_verified_and_cached(s3_folder, mlflow_server, tmp_path):
    source, store = Folder.at(s3_folder).child("source"), Folder.at(s3_folder).child("store")
    upload(tiny.write_source(tmp_path / "source"), source)
    settings = {"store": store.url, "train__placement": "one", "tracking__uri": mlflow_server}
    config = tiny.write_config(tmp_path / "config.toml", source.url, **settings)
    root, log = tmp_path / "runs", tmp_path / "log"
    command = ["run", "--until", "evaluate", "--root", root, "--config", config]

    driver = crash.start(*command, log=log)
    crash.wait_until(lambda: len(lines(store)) >= 20, "some points", 180, driver)
    crash.kill(driver)
    known, saved = lines(store), checkpoints_of(store)
    assert saved
    crash.finish(crash.start(*command, log=log), log)

    assert lines(store)[: len(known)] == known
    assert len({(p["kind"], p["step"]) for p in lines(store)}) == len(lines(store)) == 4 * 15
    verified = run_alexnet("verify", "--root", root)
    assert verified.returncode == 0, verified.stdout
    again = run_alexnet(*command)
    assert again.stdout.count("cached") == 4
    assert_tracked(mlflow_server, root, store)
    errors = only(store, "evaluate.json")
    shutil.rmtree(root)  # a lost head node
    elsewhere = [*command[:-4], "--root", tmp_path / "another", "--config", config]
    again = run_alexnet(*elsewhere, "--redo", "evaluate")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("cached") == 3
    assert only(store, "evaluate.json") == errors
    assert not [entry for entry in store.files(recursive=True) if ".redo/" in entry.name]


def only(store: Folder, name: str) -> bytes:
    (entry,) = (entry for entry in store.files(recursive=True) if entry.name.endswith(f"/{name}"))
    return store.read(entry.name)


def lines(store: Folder) -> list[dict]:
    names = [entry.name for entry in store.files(recursive=True) if entry.name.endswith("/history.jsonl")]
    return [json.loads(line) for name in names for line in store.read(name).decode().splitlines()]


def checkpoints_of(store: Folder) -> list[str]:
    return [entry.name for entry in store.files(recursive=True) if entry.name.endswith("checkpoint.json")]


def assert_tracked(server: str, root: Path, store: Folder) -> None:
    """The server has the killed attempt, the finished one with every point once, its artifacts and its models."""
    from mlflow import MlflowClient

    client = MlflowClient(server, server)
    experiment = client.get_experiment_by_name("alexnet").experiment_id
    runs = client.search_runs([experiment], "tags.`alexnet.stage` = 'train'", order_by=["start_time"])
    assert [run.info.status for run in runs] == ["KILLED", "FINISHED"]
    steps = [metric.step for metric in client.get_metric_history(runs[-1].info.run_id, "loss")]
    assert sorted(steps) == [p["step"] for p in lines(store) if p["kind"] == "step"]
    assert "history.jsonl" in [file.path for file in client.list_artifacts(runs[-1].info.run_id)]
    assert client.get_model_version_by_alias("alexnet-demo", "newest").run_id == runs[-1].info.run_id
    assert not (root / "mlflow.db").exists()
