"""The loop of a training worker, whole: schedule, best model, warnings, checkpoints, and going on from them."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from shard_builder import pixels, write_shards

from model.schedules import Schedule
from model.specs import AlexNetSpec, TrainSpec
from pipelines.specs import LoaderSpec
from pipelines.storage import Folder
from tests.model.ranks import run_ranks
from workflows.compute.workers import Worker
from workflows.folders import CHECKPOINTS
from workflows.training import checkpoints
from workflows.training.loop import TrainJob, loop

NET = AlexNetSpec(
    input_px=28, num_classes=3, kernels=(8, 16, 16, 16, 8), fc=(32, 32), conv1_kernel=5, conv1_stride=1, conv1_pad=2,
    initial="scaled", middle_std=0.03, dropout=False,
)  # fmt: skip
TRAIN = TrainSpec(
    epochs=8, batch_size=8, lr=0.005, schedule="plateau", patience=1, keep_checkpoints=2, checkpoint_every_steps=2,
    stall_steps=1,
)  # fmt: skip


class Stopped(Exception):
    pass


def coloured(id: int) -> bytes:
    """Pixels whose colour says the class."""
    image = pixels(id, 32) // 2
    image[..., id % 3] += 100
    return image.tobytes()


def job(folder: Path, **changes) -> TrainJob:
    listed, images = {"train": [12, 8], "val": [12]}, {id: coloured(id) for id in range(20)}
    shards, _ = write_shards(folder / "shards", listed, encoding="raw", size_px=32, images=images)
    train = replace(TRAIN, **changes)
    mean, light = np.full((32, 32, 3), 120, np.float32), (np.array([900.0, 90.0, 9.0]), np.eye(3))
    return TrainJob(NET, train, LoaderSpec(threads=1), shards, Folder.at(folder / "train"), 2, mean, *light)


def run(job: TrainJob, report: Callable[[dict], None], device: str = "cpu") -> dict:
    """The loop's result, but for the number of its reports, which must be that of those that came."""
    came = []
    result = loop(job, Worker(0, 1, lambda new: (came.append(new), report(new)), num_cpus=1, device=device))
    assert result.pop("reports") == len(came)
    return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory, device):
    """A training without interruption: its folder, reports and result."""
    folder, reports = tmp_path_factory.mktemp("whole"), []
    return folder / "train", reports, run(job(folder), reports.append, device)


def epochs(reports: list[dict]) -> list[dict]:
    return [report for report in reports if report.get("kind") == "epoch"]


def test_the_rate_follows_the_validation_error(whole):
    _, reports, _ = whole
    schedule, expected, found = Schedule(TRAIN, 3, NET.num_classes), [], []
    for report in reports:
        if report.get("kind") == "step":
            found.append(report["lr"])
            expected.append(schedule.rate(report["step"] - 1, "fc8.weight"))
        elif report.get("kind") == "epoch":
            schedule.end_epoch(report["val_top1_error"])
    assert found == pytest.approx(expected)
    assert found[-1] < found[0]  # it has dropped on the way


def test_the_best_model_is_that_of_the_lowest_error_and_the_last_that_of_the_end(whole):
    folder, reports, result = whole
    errors = [report["val_top1_error"] for report in epochs(reports)]
    best = 1 + errors.index(min(errors))
    assert best < len(errors) == TRAIN.epochs
    assert (result["best_epoch"], result["best_top1_error"]) == (best, min(errors))
    for name, epoch in (("best", best), ("model", TRAIN.epochs)):
        facts = json.loads((folder / name / "model.json").read_text())["provenance"]
        assert (facts["epoch"], facts["val_top1_error"]) == (epoch, errors[epoch - 1])


def test_a_loss_that_stands_still_is_reported(whole, tmp_path, device):
    """Weights as weak as the full network's leave a small one blind."""
    still, blind = [], replace(job(tmp_path, epochs=1, lr=1e-6), net=replace(NET, initial="fixed", fc=(4, 4)))
    run(blind, still.append, device)
    assert all("that of guessing" in r["warning"] for r in still if r.get("kind") == "step")
    assert "warning" not in epochs(whole[1])[-1]
    assert "warning" not in whole[1][-2]


def test_as_many_checkpoints_stay_as_are_to_be_kept(whole):
    assert checkpoints.steps(Folder.at(whole[0] / CHECKPOINTS)) == [22, 24]


def stopping_after(epoch: int, reports: list[dict]) -> Callable[[dict], None]:
    def report(new: dict) -> None:
        reports.append(new)
        if new.get("kind") == "epoch" and new["epoch"] == epoch:
            raise Stopped

    return report


def test_a_resumed_training_keeps_schedule_best_model_and_reports(whole, tmp_path, device):
    expected, _, result = whole
    reports = []
    with pytest.raises(Stopped):
        run(job(tmp_path), stopping_after(result["best_epoch"] + 1, reports), device)
    assert run(job(tmp_path), reports.append, device) == result
    for name in ("best", "model"):
        found, twin = (load_file(folder / name / "model.safetensors") for folder in (tmp_path / "train", expected))
        assert all(torch.equal(found[key], tensor) for key, tensor in twin.items())
    starts = [report for report in reports if "resumed_epoch" in report]
    assert [start["resumed_epoch"] for start in starts] == [0, result["best_epoch"] + 1]
    assert [r["epoch"] for r in epochs(starts[1]["earlier"])] == list(range(1, result["best_epoch"] + 2))


@pytest.mark.parametrize("stop", [1, 2])
def test_a_run_may_end_within_an_epoch_and_go_on_to_there(stop, tmp_path):
    """2.4 epochs of 3 steps are 7 steps; the last report tells of the part of the epoch that was run."""
    changes = {"epochs": 2.4, "schedule": "1:*=.005 1.5:*=.002 2.34:conv1=0", "lr": TrainSpec.lr}
    whole, reports = [], []
    result = run(job(tmp_path / "a", **changes), whole.append)
    assert [report["epoch"] for report in epochs(whole)] == pytest.approx([1, 2, 7 / 3])
    rates = {report["step"]: report["lr"] for report in whole if report.get("kind") == "step"}
    assert [rates[step] for step in (1, 2, 3, 7)] == [0.005, 0.005, 0.002, 0.002]  # what each was made with
    with pytest.raises(Stopped):
        run(job(tmp_path / "b", **changes), stopping_after(stop, reports))
    assert run(job(tmp_path / "b", **changes), reports.append) == result
    found, twin = (load_file(tmp_path / name / "train" / "model" / "model.safetensors") for name in "ab")
    assert all(torch.equal(found[key], tensor) for key, tensor in twin.items())


def test_a_broken_checkpoint_is_passed_over_and_told(whole, tmp_path, device):
    first, again = [], []
    with pytest.raises(Stopped):
        run(job(tmp_path), stopping_after(2, first), device)
    (tmp_path / "train" / CHECKPOINTS / "step-00000006" / "state.safetensors").write_bytes(b"cut")
    assert run(job(tmp_path), again.append, device) == whole[2]
    assert again[0]["resumed_epoch"] == 4 / 3
    assert "step-00000006" in again[0]["warnings"][0]


def test_other_data_order_is_not_gone_on_with(tmp_path):
    with pytest.raises(Stopped):
        run(job(tmp_path), stopping_after(1, []))
    with pytest.raises(ValueError, match="batch_size"):
        run(job(tmp_path, batch_size=4), lambda report: None)


def two_with_folders_of_their_own(rank: int, world: int) -> str:
    """Rank 0 has checkpoints that rank 1 does not see."""
    there = Path(os.environ["FOLDER_OF_TEST"])
    with pytest.raises(ValueError, match="different checkpoints") as refused:
        loop(
            replace(job(there / str(rank)), columns_per_rank=1),
            Worker(rank, world, lambda report: None, num_cpus=1),
        )
    return str(refused.value)


@pytest.mark.slow
def test_workers_that_share_no_folder_are_refused(tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        run(job(tmp_path / "0"), stopping_after(1, []))
    monkeypatch.setenv("FOLDER_OF_TEST", str(tmp_path))
    assert all("--set store=" in text for text in run_ranks(two_with_folders_of_their_own, 2))


def _trained(folder: Path, columns_per_rank: int, worker: Worker) -> tuple[dict, dict]:
    """Result and weights of a training on images whose halves are odd; each rank must call it."""
    shards = Folder.at(folder / "shards")
    components = {"eigenvalues": np.array([900.0, 90.0, 9.0]), "eigenvectors": np.eye(3), "light": ((1, 0.0),)}
    train, mean = TrainSpec(epochs=2, batch_size=7, eval_batch_size=4), np.full((32, 32, 3), 120, np.float32)
    target = folder / f"train{worker.world}"
    loader = LoaderSpec(threads=1)
    result = loop(TrainJob(NET, train, loader, shards, Folder.at(target), columns_per_rank, mean, **components), worker)
    return result, load_file(target / "model" / "model.safetensors") if worker.rank == 0 else {}


def _column_of_two(rank: int, world: int, device: str) -> tuple[dict, dict]:
    worker = Worker(rank, world, lambda report: None, num_cpus=1, device=device)
    return _trained(Path(os.environ["FOLDER_OF_TEST"]), 1, worker)


def test_two_columns_that_decode_half_of_each_batch_train_and_validate_as_one_process_does(
    tmp_path, monkeypatch, device
):
    write_shards(tmp_path / "shards", {"train": [12, 10], "val": [9]}, encoding="jpeg", size_px=32)
    monkeypatch.setenv("FOLDER_OF_TEST", str(tmp_path))
    alone, weights = _trained(tmp_path, 2, Worker(0, 1, lambda report: None, num_cpus=1, device=device))
    (of_first, weights_of_two), (of_second, _) = run_ranks(_column_of_two, 2, device)
    assert of_first["val_top1_error"] == of_second["val_top1_error"] == alone["val_top1_error"]
    for name, weight in weights.items():
        torch.testing.assert_close(weights_of_two[name], weight, atol=1e-5, rtol=1e-4)
