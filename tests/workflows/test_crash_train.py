"""Training, killed with SIGKILL at 5 seeded random moments: the same command goes on to the same weights, bit by bit.

3 kills are of a driver that trains in its own process; under Ray, where the network's two columns are two workers, one
is of a worker (which Ray Train replaces) and one of the driver. What a driver had not yet written is not lost either.
"""

import random
import re
import sqlite3
import time

import crash
import pytest
import torch
from tiny import TWO_COLUMNS, Training, in_process, on_ray

pytestmark = pytest.mark.slow
POINTS = 14 + 1  # of an epoch: 111 images for training in batches of 8, and its end


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
    undisturbed = Training(data, tmp_path / "undisturbed", in_process, tracking__uri="off", **settings)
    crash.finish(undisturbed.start(), undisturbed.log)
    killed, rng = Training(data, tmp_path / "killed", in_process, **settings), random.Random(3)
    for _ in range(3):
        driver = killed.start()
        killed.wait_for_points(rng.randint(1, POINTS), driver)
        time.sleep(rng.uniform(0, 0.05))
        driver.kill()
        driver.wait()
        killed.forget(4)
    crash.finish(killed.start(), killed.log)
    assert_same(killed.model(), undisturbed.model())
    assert_whole(killed.points(), undisturbed.points(), epochs=4)
    assert_truth_in_mlflow(killed, attempts=4)


def assert_truth_in_mlflow(training: Training, attempts: int) -> None:
    """The killed are KILLED, and the last attempt has every point of the loss once."""
    with sqlite3.connect(training.root / "mlflow.db") as database:
        query = (
            "select run_uuid, status from runs join tags using (run_uuid) "
            "where key = 'alexnet.kind' and value = ? order by start_time"
        )
        for kind in ("workflow", "stage"):
            statuses = [status for _, status in database.execute(query, (kind,))]
            assert statuses == ["KILLED"] * (attempts - 1) + ["FINISHED"]
        last = database.execute(query, ("stage",)).fetchall()[-1][0]
        steps = database.execute("select step from metrics where run_uuid = ? and key = 'loss' order by step", (last,))
        assert [step for (step,) in steps] == [p["step"] for p in training.points() if p["kind"] == "step"]


def test_a_killed_worker_and_a_killed_driver_under_ray_change_nothing(data, two_columns, tmp_path):
    killed, rng = Training(data, tmp_path / "killed", on_ray, **TWO_COLUMNS), random.Random(4)
    driver = killed.start()
    killed.wait_for_points(rng.randint(1, POINTS // 2), driver)
    rng.choice(crash.workers(driver, "ray::RayTrainWorker")).kill()
    killed.wait_for_points(rng.randint(1, POINTS // 2), driver)
    assert crash.kill(driver) == []
    crash.finish(killed.start(), killed.log)
    assert_same(killed.model(), two_columns.model())
    assert_whole(killed.points(), two_columns.points(), epochs=2)
    assert_truth_in_mlflow(killed, attempts=2)
    assert_death_was_said(killed)


def assert_death_was_said(training: Training) -> None:
    """Once for the worker that was killed: on the terminal, and in the tags of its attempt's run."""
    said = re.findall(r"  (worker [01]) died; going on from step \d+\n", training.log.read_text())
    assert len(said) == 1
    with sqlite3.connect(training.root / "mlflow.db") as database:
        query = "select key, value from tags where key in ('alexnet.deaths', 'alexnet.restarts')"
        assert dict(database.execute(query)) == {"alexnet.deaths": said[0], "alexnet.restarts": "1"}
