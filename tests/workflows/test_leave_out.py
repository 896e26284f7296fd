"""`evaluate.leave_out`: the error without the images that a file lists, beside that of all."""

import json
from pathlib import Path

import pandas as pd
import pytest
import tiny

from workflows.compute.workers import InProcess
from workflows.config import RunConfig, UsageError, with_values
from workflows.engine.run import Row, run
from workflows.workflow import STAGES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, RunConfig, Row]:
    """A root with an evaluated training, its configuration, and the evaluation of all images."""
    folder = tmp_path_factory.mktemp("trained")
    settings = {"tracking__uri": "off", "train__placement": "one", "train__epochs": 1}
    config = tiny.config(tiny.write_source(folder / "source"), **settings)
    return folder / "runs", config, evaluated(folder / "runs", config)


def evaluated(root: Path, config: RunConfig) -> Row:
    return run(STAGES, config, root, only=("ingest", "stats", "train", "evaluate"), compute=lambda *_: InProcess())[-1]


def errors(row: Row) -> dict:
    return json.loads(row.folder.read("evaluate.json"))


def test_what_is_in_train_too_is_left_out_and_the_headline_stays(trained, tmp_path):
    root, config, of_all = trained
    seen = pd.read_parquet(of_all.folder.local_path() / "predictions.parquet")
    first = seen["classes"].str[0]
    listed = seen[first != seen["label"]].iloc[:3]
    also = seen[first == seen["label"]].iloc[:1]
    rows = [("val", id, key, "train") for id, key in zip(listed["id"], listed["key"], strict=True)]
    rows += [("val", id, "x", "val") for id in also["id"]] + [("train", id, "x", "train") for id in range(9)]
    row = evaluated(root, with_values(config, {"evaluate.leave_out": table(rows, tmp_path)}))
    found = errors(row)
    kept = ~seen["id"].isin(listed["id"])
    wrong = (first != seen["label"]).mean()
    without = (first != seen["label"])[kept].mean()
    assert found["left_out"]["images"] == 3
    assert found["left_out"]["top1_error"] == pytest.approx(without)
    assert found["left_out"]["top1_error_of_all"] == pytest.approx(wrong)
    assert {**found, "left_out": 0} == {**errors(of_all), "left_out": 0}
    assert row.key != of_all.key
    assert f"without 3 images left out {without:.2%} instead of {wrong:.2%}" in row.result


def table(rows: list[tuple], folder: Path) -> str:
    """A file of duplicates, by its path."""
    path = folder / "duplicates.parquet"
    pd.DataFrame(rows, columns=["split", "id", "key", "first_split"]).to_parquet(path)
    return str(path)


@pytest.mark.parametrize(("id", "why"), [(0, "its id 0 is 'x', which here is '.*'"), (999, "its id 999, 'x', is not")])
def test_a_list_of_other_shards_is_refused(trained, tmp_path, id, why):
    root, config, _ = trained
    path = table([("val", id, "x", "train")], tmp_path)
    with pytest.raises(UsageError, match=rf"evaluate.leave_out={path} lists images of other shards .* val: {why}"):
        evaluated(root, with_values(config, {"evaluate.leave_out": path}))


def test_a_list_without_ids_and_one_that_is_not_there_are_refused(trained, tmp_path):
    root, config, of_all = trained
    path = tmp_path / "keys.parquet"
    pd.DataFrame({"key": ["a"]}).to_parquet(path)
    with pytest.raises(UsageError, match=rf"evaluate.leave_out={path}: no Parquet table with columns split, id and"):
        evaluated(root, with_values(config, {"evaluate.leave_out": str(path)}))
    path.write_bytes(b"no table")
    with pytest.raises(UsageError, match=rf"evaluate.leave_out={path}: no Parquet table"):
        evaluated(root, with_values(config, {"evaluate.leave_out": str(path)}))
    with pytest.raises(UsageError, match=r"evaluate.leave_out=.*gone.parquet: no such file; name a Parquet file"):
        evaluated(root, with_values(config, {"evaluate.leave_out": str(tmp_path / "gone.parquet")}))
    assert evaluated(root, config).state == "cached"
