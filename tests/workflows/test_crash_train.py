"""Training, killed with SIGKILL at 5 seeded random moments: the same command goes on to the same weights, bit by bit.

3 kills are of a driver that trains in its own process; under Ray, where the network's two columns are two workers, one
is of a worker (which Ray Train replaces) and one of the driver.
"""

import json
import random
import shutil
import sqlite3
import time
from pathlib import Path

import crash
import pytest
import tiny
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
POINTS = 14 + 1  # of an epoch: 111 images for training in batches of 8, and its end


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A root in which ingest and stats are done."""
    folder = tmp_path_factory.mktemp("tiny")
    config = tiny.write_config(folder / "config.toml", tiny.write_source(folder / "source"), tracking__uri="off")
    crash.finish(crash.start_in_process(folder / "runs", config, "ingest", "stats", log=folder / "log"), folder / "log")
    return folder


class Trainings:
    """A root to train in, on the same shards; `start` is always the same command."""

    def __init__(self, data: Path, folder: Path, start, **settings):
        self.root, self.log, self._start = folder / "runs", folder / "log", start
        shutil.copytree(data / "runs", self.root)
        self.config = tiny.write_config(folder / "config.toml", data / "source", **settings)

    def start(self):
        return self._start(self)

    def points(self) -> list[dict]:
        """The whole lines of the history, as far as it is written."""
        texts = [path.read_text() for path in self.root.glob("train/*/history.jsonl")]
        return [json.loads(line) for text in texts for line in text.splitlines(True) if line.endswith("}\n")]

    def wait_for_points(self, count: int, driver) -> None:
        """Until this many more points are there: a moment of the training, on any machine."""
        wanted = len(self.points()) + count
        crash.wait_until(lambda: len(self.points()) >= wanted, f"point {wanted}", 120, driver)

    def model(self) -> dict[str, torch.Tensor]:
        (path,) = self.root.glob("train/*/model/model.safetensors")
        return load_file(path)


def in_process(trainings: Trainings):
    return crash.start_in_process(trainings.root, trainings.config, "train", log=trainings.log)


def on_ray(trainings: Trainings):
    return crash.start("train", "--root", trainings.root, "--config", trainings.config, log=trainings.log)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def assert_whole(points: list[dict], expected: list[dict], epochs: int) -> None:
    """Each point once, in order, and the same errors at the end of each epoch."""
    assert [(p["kind"], p["step"]) for p in points] == [(p["kind"], p["step"]) for p in expected]
    val = [[p["val_top1_error"] for p in many if p["kind"] == "epoch"] for many in (points, expected)]
    assert val[0] == val[1]
    assert len(points) == epochs * POINTS


def test_killed_drivers_change_neither_weights_nor_curves(data, tmp_path):
    settings = {"train__placement": "one"}
    undisturbed = Trainings(data, make(tmp_path / "undisturbed"), in_process, tracking__uri="off", **settings)
    crash.finish(undisturbed.start(), undisturbed.log)
    killed, rng = Trainings(data, make(tmp_path / "killed"), in_process, **settings), random.Random(3)
    for _ in range(3):
        driver = killed.start()
        killed.wait_for_points(rng.randint(1, POINTS), driver)
        time.sleep(rng.uniform(0, 0.05))
        driver.kill()
        driver.wait()
    crash.finish(killed.start(), killed.log)
    assert_same(killed.model(), undisturbed.model())
    assert_whole(killed.points(), undisturbed.points(), epochs=4)
    assert_truth_in_mlflow(killed, attempts=4)


def assert_truth_in_mlflow(trainings: Trainings, attempts: int) -> None:
    """The killed are KILLED, and the last attempt has every point of the loss once."""
    with sqlite3.connect(trainings.root / "mlflow.db") as database:
        query = (
            "select run_uuid, status from runs join tags using (run_uuid) "
            "where key = 'alexnet.kind' and value = ? order by start_time"
        )
        for kind in ("workflow", "stage"):
            statuses = [status for _, status in database.execute(query, (kind,))]
            assert statuses == ["KILLED"] * (attempts - 1) + ["FINISHED"]
        last = database.execute(query, ("stage",)).fetchall()[-1][0]
        steps = database.execute("select step from metrics where run_uuid = ? and key = 'loss' order by step", (last,))
        assert [step for (step,) in steps] == [p["step"] for p in trainings.points() if p["kind"] == "step"]


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_killed_worker_and_a_killed_driver_under_ray_change_nothing(data, tmp_path):
    settings = {"train__placement": "columns", "train__epochs": 2}
    undisturbed = Trainings(data, make(tmp_path / "undisturbed"), on_ray, tracking__uri="off", **settings)
    crash.finish(undisturbed.start(), undisturbed.log)
    killed, rng = Trainings(data, make(tmp_path / "killed"), on_ray, **settings), random.Random(4)
    driver = killed.start()
    killed.wait_for_points(rng.randint(1, POINTS // 2), driver)
    rng.choice(crash.workers(driver, "ray::RayTrainWorker")).kill()
    killed.wait_for_points(rng.randint(1, POINTS // 2), driver)
    assert crash.kill(driver) == []
    crash.finish(killed.start(), killed.log)
    assert_same(killed.model(), undisturbed.model())
    assert_whole(killed.points(), undisturbed.points(), epochs=2)
    assert_truth_in_mlflow(killed, attempts=2)
