"""`alexnet features`: those of a plain forward, made once, known to the other commands, mended where damaged."""

import io
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import run_alexnet
from PIL import Image

from model.export import load_exported
from model.network import Network
from pipelines.manifest import Manifest
from pipelines.shards import read_shard
from pipelines.storage import Folder
from workflows import recipes
from workflows.commands.leftovers import Wanted, leftovers
from workflows.commands.verifying import verified
from workflows.compute.workers import InProcess
from workflows.config import RunConfig, UsageError, with_values
from workflows.engine.outputs import Output, places
from workflows.engine.plan import Planned, plan
from workflows.engine.run import Row, run
from workflows.report.finished_run import open_run
from workflows.workflow import STAGES

pytestmark = pytest.mark.slow
UP_TO_FEATURES = ("ingest", "stats", "train", "features")
KINDS = {  # of shards; dropout and both columns are in the network
    "tfrecord": {"ingest.format": "tfrecord", "ingest.encoding": "jpeg"},
    "parquet": {"ingest.format": "parquet", "ingest.encoding": "raw", "features.dtype": "float32"},
}


@pytest.fixture(scope="module", params=KINDS)
def taken(request, tmp_path_factory) -> tuple[Path, RunConfig]:
    """A root in which features were taken, and its configuration."""
    folder = tmp_path_factory.mktemp(request.param)
    config = tiny.config(tiny.write_source(folder / "source"), train__placement="one", train__epochs=1)
    config = with_values(config, KINDS[request.param])
    made(folder / "runs", config)
    return folder / "runs", config


@pytest.fixture
def copied(taken, tmp_path) -> tuple[Path, RunConfig]:
    """The same, to be damaged."""
    shutil.copytree(taken[0], tmp_path / "runs")
    return tmp_path / "runs", taken[1]


def made(root: Path, config: RunConfig, only=UP_TO_FEATURES) -> list[Row]:
    return run(STAGES, config, root, only=only, compute=lambda *_: InProcess())


def planned(root: Path, config: RunConfig) -> dict[str, Planned]:
    return {step.stage.name: step for step in plan(STAGES, config, places(config, root))}


def output(root: Path, config: RunConfig) -> Output:
    return planned(root, config)["features"].output


def files(root: Path, config: RunConfig) -> dict[str, tuple[int, int]]:
    """Inode and time of each file of features."""
    stats = {path.name: path.stat() for path in (output(root, config).folder.local_path() / "data").iterdir()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def crops(manifest: Manifest, folder: Folder, split: str, crop_px: int) -> tuple[list[str], torch.Tensor]:
    """Keys and centre crops B,C,H,W of a split, by Pillow and NumPy."""
    keys, found = [], []
    first = (manifest.size_px - crop_px) // 2
    inner = slice(first, first + crop_px)
    for rows in (read_shard(folder, record) for record in manifest.splits[split]):
        keys += rows.keys
        for image in rows.images:
            pixels_HWC = image if image.ndim == 3 else np.asarray(Image.open(io.BytesIO(image.tobytes())))
            found.append(torch.tensor(pixels_HWC[inner, inner].astype(np.float32)).permute(2, 0, 1))
    return keys, torch.stack(found)


def read_by_last_layer(net: Network, images_BCHW: torch.Tensor) -> np.ndarray:
    found: list[torch.Tensor] = []
    net.get_submodule("fc8").register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    with torch.no_grad():
        net.eval()(images_BCHW)
    return found[0].numpy()


def test_features_are_what_the_last_layer_reads_in_a_plain_forward(taken):
    root, config = taken
    finished = open_run(root)
    model = finished.output("train").folder.local_path() / "model"
    for split in ("train", "val"):
        rows = list(finished.features(split))
        keys, images_BCHW = crops(finished.manifest, finished.shards, split, config.net.input_px)
        expected_NU = read_by_last_layer(load_exported(model).net, images_BCHW)
        assert [key for part in rows for key in part.keys] == keys
        found_NU = np.concatenate([part.features_NU for part in rows])
        assert found_NU.dtype == config.features.dtype
        assert expected_NU.max() > 0.1
        tolerance = 1e-3 if config.features.dtype == "float16" else 1e-5
        np.testing.assert_allclose(found_NU, expected_NU, rtol=tolerance, atol=tolerance)
    card = json.loads(output(root, config).folder.read("features.json"))
    assert card["splits"]["val"]["images"] == finished.manifest.num_rows("val")
    assert (card["num_features"], card["dtype"], card["weights"]) == (32, config.features.dtype, "last")
    assert card["weights_sha256"] == Folder.at(model).sha256("model.safetensors")


@pytest.mark.parametrize("taken", ["tfrecord"], indirect=True)
def test_a_second_call_does_nothing_and_status_knows_it(taken):
    root, config = taken
    before = files(root, config)
    again = run_alexnet("features", "--root", root)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout
    assert [line.split()[:2] for line in again.stdout.splitlines()[2:3]] == [["features", "cached"]]
    assert files(root, config) == before
    row = {row["stage"]: row for row in json.loads(run_alexnet("status", "--json", "--root", root).stdout)}["features"]
    assert row["state"] == "CACHED"
    with sqlite3.connect(root / "mlflow.db") as database:
        query = "select status from runs join tags using (run_uuid) where run_uuid = ? and key = ? and value = ?"
        assert database.execute(query, (row["mlflow_run_id"], "alexnet.stage", "features")).fetchall() == [
            ("FINISHED",)
        ]


@pytest.mark.parametrize("taken", ["tfrecord"], indirect=True)
def test_what_is_half_done_is_counted_finished_and_offered_for_removal(copied):
    root, config = copied
    before, of_key = files(root, config), output(root, config)
    of_key.reopen()
    of_key.folder.delete("parts/train-00002-of-00007.json")
    row = {row["stage"]: row for row in json.loads(run_alexnet("plan", "--json", "--root", root).stdout)}["features"]
    assert row["state"] == "PARTIAL"
    assert row["reasons"][0] == f"{len(before) - 1} of {len(before)} shards done, 1 to do"
    assert row["shards"] == 1
    other = with_values(config, {"features.splits": "val"})
    found = leftovers(list(planned(root, other).values()), other, places(other, root), Wanted(older_than_s=0))
    assert [one.why for one in found if one.folder.url == of_key.folder.url] == ["begun, never finished"]
    assert made(root, config)[-1].state == "ran"
    after = files(root, config)
    assert {name for name in after if after[name] != before[name]} == {"train-00002-of-00007.parquet"}


def test_a_plan_says_how_large_the_features_of_a_split_will_be(taken):
    root, config = taken
    settings = ["--set=features.splits=val", "--set=features.dtype=float32"]
    row = json.loads(run_alexnet("plan", "--json", "--root", root, *settings).stdout)[5]
    images = open_run(root).manifest.num_rows("val")
    assert (row["stage"], row["units"], row["shards"]) == ("features", images, 1)
    assert "optional: `alexnet features` makes it" in row["reasons"]
    if config.features.dtype == "float16":  # and so nothing like it is known
        assert row["bytes"] == images * 32 * 4


@pytest.mark.parametrize("taken", ["tfrecord"], indirect=True)
def test_a_damaged_and_a_missing_file_are_noticed_and_made_again(copied):
    root, config = copied
    folder, before = output(root, config).folder, files(root, config)
    assert not any(found.problems for found in verified(list(planned(root, config).values()), map))
    damaged, gone = "train-00001-of-00007.parquet", "val-00000-of-00001.parquet"
    good = folder.read(f"data/{damaged}")
    (folder.local_path() / f"data/{damaged}").write_bytes(good[:-9] + bytes(9))
    folder.delete(f"data/{gone}")
    said = run_alexnet("verify", "--root", root)
    assert said.returncode == 1
    assert said.stdout.count("every file is as it was written") == 3  # of ingest, stats and train
    assert f"{damaged} is not the file that was written" in said.stdout
    assert f"{gone} is gone" in said.stdout
    assert "2 damaged: `" in said.stdout
    assert made(root, config)[-1].state == "ran"
    after = files(root, config)
    assert {name for name in after if after[name] != before[name]} == {damaged, gone}
    assert folder.read(f"data/{damaged}") == good


@pytest.mark.parametrize("taken", ["tfrecord"], indirect=True)
def test_a_finished_run_has_the_features_of_its_own_training(copied):
    root, config = copied
    made(root, with_values(config, {"train.seed": 7}), only=("ingest", "stats", "train"))
    with pytest.raises(ValueError, match="features has not finished under .*; run `alexnet features` first"):
        open_run(root).features("val")
    made(root, with_values(config, {"train.seed": 7}))
    made(root, with_values(config, {"features.splits": "train"}))  # newer, and of the other training
    assert len(next(open_run(root).features("val")).ids_N)


def test_what_is_needed_is_made_before(tmp_path):
    """And what is not needed, statistics for training aside, is not."""
    config = tiny.write_config(tmp_path / "config.toml", tiny.write_source(tmp_path / "source"), train__epochs=1)
    ran = run_alexnet("features", "--root", tmp_path / "runs", "--config", config, "--set=tracking.uri=off")
    assert ran.returncode == 0, ran.stderr
    lines = [line.split()[:2] for line in ran.stdout.splitlines()[2:6]]
    assert lines == [[name, "ran"] for name in UP_TO_FEATURES]
    assert not (tmp_path / "runs" / "evaluate").exists()


def test_features_go_to_an_object_store(s3_folder, tmp_path):
    source = tiny.write_source(tmp_path / "source")
    settings = {"store": s3_folder, "train__placement": "one", "train__epochs": 1, "tracking__uri": "off"}
    config = tiny.config(source, **settings)
    folder = made(tmp_path / "runs", config)[-1].folder
    assert not folder.is_local
    finished = open_run(tmp_path / "runs")
    assert sum(len(rows.ids_N) for rows in finished.features("train")) == finished.manifest.num_rows("train")


def of_module(folder: Path, function: str) -> RunConfig:
    """A network of somebody else's on a small source."""
    settings = {name: value for name, value in tiny.SETTINGS.items() if not name.startswith("net.")}
    settings |= {"net.kind": f"module:tests.model.own_networks:{function}", "net.input_px": 28, "tracking.uri": "off"}
    settings |= {"train.epochs": 1, "ingest.source": str(tiny.write_source(folder / "source"))}
    return with_values(recipes.demo(), settings)


def test_networks_of_others_have_features_where_their_last_layer_is_linear(tmp_path):
    made(tmp_path / "runs", of_module(tmp_path / "a", "residual"))
    rows = next(open_run(tmp_path / "runs").features("val"))
    assert rows.features_NU.shape[1] == 8
    with pytest.raises(UsageError, match=r"net.kind=.*headless: its last layer is no torch.nn.Linear"):
        made(tmp_path / "other", of_module(tmp_path / "b", "headless"))


@pytest.mark.parametrize("taken", ["tfrecord"], indirect=True)
def test_a_split_without_images_is_refused(taken):
    root, config = taken
    with pytest.raises(UsageError, match=r"features.splits=val,test: there are no images of test; .* of train,val"):
        made(root, with_values(config, {"features.splits": "val,test"}))
