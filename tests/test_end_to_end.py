"""The whole workflow by its command line: every stage real, everything tracked, and nothing done twice."""

import json
import sqlite3

import pytest
from conftest import run_alexnet

pytestmark = pytest.mark.slow
STAGES = ["ingest", "stats", "train", "evaluate", "report"]


@pytest.fixture(scope="module")
def rows(demo_root):
    return {row["stage"]: row for row in json.loads(run_alexnet("status", "--json", "--root", demo_root).stdout)}


def folder(demo_root, rows, stage):
    return demo_root / stage / rows[stage]["key"]


def test_every_stage_is_done_and_has_its_run(rows):
    assert list(rows) == STAGES
    for row in rows.values():
        assert row["state"] == "CACHED"
        assert len(row["mlflow_run_id"]) == 32
        assert row["seconds"] > 0


def test_the_demo_is_learned(demo_root, rows):
    errors = json.loads((folder(demo_root, rows, "evaluate") / "evaluate.json").read_text())
    assert errors["top1_error"] <= 0.10
    assert errors["top1_error_ten_crop"] <= 0.10
    assert errors["top5_error_ten_crop"] <= errors["top1_error_ten_crop"]


def test_every_stored_validation_image_is_evaluated_once(demo_root, rows):
    import pandas as pd

    manifest = json.loads((folder(demo_root, rows, "ingest") / "_manifest.json").read_text())
    predictions = pd.read_parquet(folder(demo_root, rows, "evaluate") / "predictions.parquet")
    assert len(predictions) == manifest["splits"]["val"]["stored"]
    assert predictions["id"].is_unique
    assert predictions["key"].is_unique
    assert (predictions["classes"].map(len) == 5).all()


def test_nothing_is_lost_between_listing_and_shards(demo_root, rows):
    import pandas as pd

    manifest = json.loads((folder(demo_root, rows, "ingest") / "_manifest.json").read_text())
    set_aside = pd.read_parquet(folder(demo_root, rows, "ingest") / "_quarantine.parquet")
    for name, split in manifest["splits"].items():
        assert split["listed"] == split["stored"] + split["quarantined"]
        assert split["quarantined"] == (set_aside["split"] == name).sum()
    assert 0 < len(set_aside) < 20


def test_the_shards_are_as_the_manifest_says(demo_root):
    verified = run_alexnet("verify", "--root", demo_root)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_two_levels_of_runs_are_finished_in_mlflow(demo_root, rows):
    with sqlite3.connect(demo_root / "mlflow.db") as database:
        runs = dict(database.execute("select run_uuid, status from runs"))
        parents = dict(database.execute("select run_uuid, value from tags where key = 'mlflow.parentRunId'"))
        points = dict(database.execute("select run_uuid, count(*) from metrics where key = 'loss' group by run_uuid"))
        twice = database.execute(
            "select run_uuid, key, step, count(*) n from metrics where key = 'loss' group by 1, 2, 3 having n > 1"
        ).fetchall()
    assert set(runs.values()) == {"FINISHED"}
    assert {rows[stage]["mlflow_run_id"] for stage in STAGES} == set(parents)
    assert len(set(parents.values())) == 1
    assert set(parents.values()) & set(parents) == set()
    assert points[rows["train"]["mlflow_run_id"]] >= 20
    assert twice == []


def test_a_second_run_does_no_work_and_says_so(demo_root):
    before = sorted((path, path.stat().st_mtime_ns) for path in demo_root.rglob("*") if path.name != "config.toml")
    again = run_alexnet("run", "--recipe", "demo", "--root", demo_root)
    assert "nothing to do" in again.stdout
    assert again.stdout.count("cached") == len(STAGES)
    after = sorted((path, path.stat().st_mtime_ns) for path in demo_root.rglob("*") if path.name != "config.toml")
    assert after == before


def test_a_cached_run_loads_nothing_heavy(demo_root):
    import subprocess
    import sys

    code = (
        "import sys; from workflows.cli import main; "
        f"code = main(['run', '--recipe', 'demo', '--root', {str(demo_root)!r}]); "
        "print('LOADED', *sorted({'ray', 'torch', 'mlflow', 'nvidia.dali'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip().splitlines()[-1] == "LOADED"


def test_changing_the_epochs_redoes_training_and_nothing_before(demo_root):
    planned = json.loads(run_alexnet("plan", "--json", "--root", demo_root, "--set", "train.epochs=99").stdout)
    assert [row["state"] for row in planned[: len(STAGES)]] == ["CACHED", "CACHED", "STALE", "STALE", "STALE"]
    assert {row["state"] for row in planned[len(STAGES) :]} == {"MISSING"}
    assert any(reason.startswith("train.epochs: ") and reason.endswith("-> 99") for reason in planned[2]["reasons"])
    assert planned[2]["seconds"] > 0
