"""`alexnet plan` and `status` count what an interrupted stage has left, and predict from the like of it alone."""

import json
import shutil

import pytest
import tiny
import torch
from conftest import run_alexnet

from model import checkpoint
from pipelines.plan import plan_shards
from pipelines.shards import write_shard
from pipelines.sources.catalog import open_source
from workflows.engine.outputs import places
from workflows.engine.plan import plan
from workflows.workflow import STAGES


@pytest.fixture
def done(data, tmp_path):
    """A root in which ingest and stats are done, and its configuration: 108 images for training, 12 for validation."""
    root = tmp_path / "runs"
    shutil.copytree(data / "runs", root)
    return root, tiny.config(data / "source", tracking__uri="off")


def rows(verb, root, *settings):
    ran = run_alexnet(verb, "--json", "--root", root, *(f"--set={setting}" for setting in settings))
    assert ran.returncode == 0, ran.stderr
    return {row["stage"]: row for row in json.loads(ran.stdout)}


def counts(root, config):
    metrics = plan(STAGES, config, places(config, root))[0].output.record["metrics"]
    return metrics["images_train"], metrics["images_val"]


def test_an_interrupted_ingest_says_how_many_shards_are_left(data, tmp_path):
    root, config = tmp_path / "runs", tiny.config(data / "source", tracking__uri="off")
    root.mkdir()
    (root / "config.toml").write_text((data / "config.toml").read_text())
    untouched = rows("plan", root)["ingest"]
    store = plan(STAGES, config, places(config, root))[0].output.folder
    tasks = plan_shards(open_source(config.ingest), config.ingest, store)
    for i in (0, 2, len(tasks) - 1):
        write_shard(tasks[i])
    kept = sum(len(tasks[i].rows) for i in (0, 2, len(tasks) - 1))
    row = rows("plan", root)["ingest"]
    assert (untouched["state"], row["state"]) == ("MISSING", "PARTIAL")
    assert row["left"] == {"done": 3, "total": len(tasks), "unit": "shards", "images_done": kept}
    assert (untouched["shards"], row["shards"]) == (len(tasks), len(tasks) - 3)
    assert (untouched["units"], row["units"]) == (120, 120 - kept)
    assert row["bytes"] == pytest.approx(untouched["bytes"] * (120 - kept) / 120, rel=0.01)
    assert row["reasons"] == [f"3 of {len(tasks)} shards done, {len(tasks) - 3} to do"]
    assert row["reasons"][0] in run_alexnet("status", "--root", root).stdout


def test_an_interrupted_training_says_how_many_steps_are_left(done):
    root, config = done
    train = plan(STAGES, config, places(config, root))[2].output
    for step in (20, 25):
        checkpoint.save(train.folder.local_path() / "checkpoints", step, {"x": torch.zeros(1)}, {})
    images, _ = counts(root, config)
    total = 4 * -(-images // 8)
    row = rows("plan", root)["train"]
    assert row["state"] == "PARTIAL"
    assert row["reasons"] == [f"25 of {total} steps done, {total - 25} to do"]
    epochs, steps = divmod(25, -(-images // 8))
    assert row["units"] == 4 * images - (epochs * images + steps * 8)
    assert rows("status", root)["train"]["left"]["done"] == 25


def test_bytes_are_predicted_from_all_images_that_were_stored(done):
    root, config = done
    record = plan(STAGES, config, places(config, root))[0].output.record
    ingest = rows("plan", root, "ingest.seed=1")["ingest"]
    assert ingest["state"] == "STALE"
    assert ingest["bytes"] == pytest.approx(record["metrics"]["bytes"], rel=0.01)
    assert ingest["seconds"] == pytest.approx(record["seconds"], rel=0.01)


@pytest.mark.parametrize(
    ("setting", "known"),
    [("train.epochs=8", True), ("train.seed=5", True), ("train.batch_size=16", False), ("net.fc=64,64", False)],
)
def test_the_time_of_a_training_is_known_from_the_same_network_and_batch_alone(done, setting, known):
    root, config = done
    steps = plan(STAGES, config, places(config, root))
    record = {
        "stage": "train",
        "key": steps[2].output.key,
        "ingredients": steps[2].ingredients,
        "inputs": {step.stage.name: step.output.key for step in steps[:2]},
        "seconds": 10.0,
        "units": 4 * counts(root, config)[0],
        "finished": "2026-01-01",
        "result": "",
        "metrics": {},
        "mlflow_run_id": "",
    }
    steps[2].output.finish(record)
    train = rows("plan", root, setting)["train"]
    assert train["seconds"] == (pytest.approx(10.0 * (2 if "epochs" in setting else 1)) if known else None)
