"""Training, killed with SIGKILL at 5 seeded random moments: the same command goes on to the same weights, bit by bit.

3 kills are of a driver that trains in its own process; under Ray, where the network's two columns are two workers, one
is of a worker (which Ray Train replaces) and one of the driver. What a driver had not yet written is not lost either.
"""

import random
import re
import shutil
import sqlite3
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import crash
import pytest
import tiny
import torch
from safetensors.torch import load_file
from tiny import TWO_COLUMNS, Training, in_process, on_ray

from workflows.config import dump

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


def test_a_chain_of_three_killed_once_in_each_ends_in_the_same_bits(data, tmp_path):
    """As the paper's pre-training: convolutions, then a network with a sixth and a bottleneck, then its fine-tuning."""
    wider = {"net__conv6_kernels": 8, "net__bottleneck": 8}
    links: list[dict] = [
        {"train__epochs": 2},
        {"train__epochs": 1.5, "train__init_from": "link0@newest", "train__init_layers": "conv*", **wider},
        {"train__epochs": 2, "train__init_from": "link1@newest", "train__schedule": "1:*=.001 2:conv1=0", **wider},
    ]
    undisturbed, killed, rng = tmp_path / "undisturbed", tmp_path / "killed", random.Random(5)
    for root in (undisturbed, killed):
        shutil.copytree(data / "runs", root)
    for number, link in enumerate(links):
        config = replace(tiny.config(data / "source", train__placement="one", tracking__uri="off", **link))
        file = tmp_path / f"link{number}.toml"
        file.write_text(dump(replace(config, recipe=f"link{number}")))
        for root in (undisturbed, killed):
            log = tmp_path / "log"
            driver = crash.start_in_process(root, file, "train", log=log)
            if root is killed:
                wanted = rng.randint(2, 20)
                crash.wait_until(partial(has_points, killed, number, wanted), f"point {wanted}", 120, driver)
                driver.kill()
                driver.wait()
                driver = crash.start_in_process(root, file, "train", log=log)
            crash.finish(driver, log)
        assert_same(newest_model(killed), newest_model(undisturbed))
    assert len(list(killed.glob("train/*"))) == 3


def has_points(root: Path, link: int, wanted: int) -> bool:
    """Whether the training that was begun last has so many, behind the finished ones before it."""
    histories = sorted(root.glob("train/*/history.jsonl"), key=lambda path: path.parent.stat().st_ctime)
    return len(histories) > link and len(histories[-1].read_text().splitlines()) >= wanted


def newest_model(root: Path) -> dict[str, torch.Tensor]:
    return load_file(max(root.glob("train/*/model/model.safetensors"), key=lambda path: path.stat().st_mtime))


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
