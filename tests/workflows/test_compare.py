"""A comparison is a set of ordinary runs: found again, shared, gone on with after a kill, and kept when one fails."""

import json
from pathlib import Path

import crash
import pandas as pd
import pytest
import tiny
from conftest import run_alexnet

from workflows.compute.workers import InProcess
from workflows.config import load, with_values
from workflows.console import Console
from workflows.engine.outputs import places
from workflows.engine.plan import plan
from workflows.engine.run import run
from workflows.studies.arms import arms
from workflows.studies.comparison import Comparison
from workflows.studies.running import How, compare
from workflows.workflow import STAGES

pytestmark = pytest.mark.slow
ALONE = {"tracking__uri": "off", "train__placement": "one", "train__epochs": 1}


def in_process(comparison: Comparison, root: Path) -> dict:
    return compare(comparison, root, How(Console(), lambda *_: InProcess()))


def made(root: Path) -> dict[str, str]:
    """Which making each finished training is, by key."""
    return {path.parent.name: json.loads(path.read_text())["made"] for path in root.glob("train/*/stage.json")}


@pytest.fixture(scope="module")
def killed_and_continued(data, tmp_path_factory) -> tuple[tiny.Training, list, dict[str, str]]:
    """A comparison of two arms and two seeds, killed in its second training; its command; what was trained by then."""
    folder = tmp_path_factory.mktemp("compared")
    training = tiny.Training(data, folder, tiny.on_ray, train__epochs=2)
    command = ["compare", "--config", training.config, "--root", training.root]
    command += ["--vary", "net.normalisation=true,false", "--seeds", 2, "--name", "lrn"]
    driver = crash.start(*command, log=training.log)
    points = training.root.glob
    crash.wait_until(lambda: len(list(points("train/*/history.jsonl"))) == 2, "the second training", 300, driver)
    assert crash.kill(driver) == []
    before = made(training.root)
    crash.finish(crash.start(*command, log=training.log), training.log)
    return training, command, before


def test_the_same_command_goes_on_after_a_kill(killed_and_continued):
    training, _, before = killed_and_continued
    after = made(training.root)
    assert (len(before), len(after)) == (1, 4)
    assert before.items() <= after.items()
    frame = pd.read_parquet(training.root / "compare" / "lrn" / "results.parquet")
    assert frame["state"].tolist() == ["done"] * 4
    assert set(zip(frame["arm"], frame["seed"], strict=True)) == {
        (f"normalisation={value}", seed) for value in ("true", "false") for seed in (0, 1)
    }
    assert set(frame["train_key"]) == set(after)


def test_each_run_is_the_one_that_alexnet_run_makes_of_its_configuration(killed_and_continued):
    training, _, _ = killed_and_continued
    settings = {"net.normalisation": False, "train.seed": 1, "loader.seed": 1}
    config = with_values(load(training.config), settings)
    steps = plan(STAGES, config, places(config, training.root))
    assert [step.state for step in steps[:4]] == ["CACHED"] * 4


def test_the_same_command_again_does_nothing(killed_and_continued):
    training, command, _ = killed_and_continued
    files = {path: path.stat().st_mtime_ns for path in training.root.glob("compare/lrn/**/*")}
    again = run_alexnet(*command)
    assert again.returncode == 0
    assert again.stderr == f"configuration: demo, {training.config}\n"
    assert {path: path.stat().st_mtime_ns for path in training.root.glob("compare/lrn/**/*")} == files
    shown = run_alexnet("compare", "lrn", "--root", training.root)
    assert shown.stdout == again.stdout
    assert "two seeds: not called significant" in shown.stdout
    assert f"page: {training.root}/compare/lrn/page.html" in shown.stdout


def test_programs_read_the_summary_the_list_and_the_plan(killed_and_continued):
    training, command, _ = killed_and_continued
    root = ["--root", training.root, "--json"]
    summary = json.loads(run_alexnet("compare", "lrn", *root).stdout)
    assert summary == json.loads((training.root / "compare" / "lrn" / "summary.json").read_text())
    assert [arm["n"] for arm in summary["arms"]] == [2, 2]
    assert json.loads(run_alexnet("compare", *root).stdout) == [summary]
    rows = json.loads(run_alexnet(*command[:-3], 3, "--plan", "--json").stdout)
    assert [(row["stored"], row["missing"], row["untimed"]) for row in rows] == [(2, 1, 0)] * 2
    assert all(0 < row["seconds"] < 600 for row in rows)


def test_the_page_and_mlflow_show_it(killed_and_continued):
    training, _, _ = killed_and_continued
    page = (training.root / "compare" / "lrn" / "page.html").read_text()
    assert page.count("<img ") == 3
    for words in ("normalisation=false less normalisation=true", "two seeds: not called significant", "McNemar"):
        assert words in page
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{training.root}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "alexnet"]
    (ours,) = client.search_runs([experiment.experiment_id], "tags.`alexnet.kind` = 'comparison'")
    assert (ours.info.run_name, ours.info.status) == ("lrn", "FINISHED")
    artifacts = {file.path for file in client.list_artifacts(ours.info.run_id)}
    assert artifacts == {"figures", "page.html", "results.parquet", "summary.json"}
    tagged = client.search_runs([experiment.experiment_id], "tags.`compare.lrn` LIKE '%'")
    found = sorted((run.data.tags["alexnet.stage"], run.data.tags["compare.lrn"]) for run in tagged)
    arms = ["normalisation=false"] * 2 + ["normalisation=true"] * 2
    assert found == [("evaluate", arm) for arm in arms] + [("train", arm) for arm in arms]


def test_later_commands_go_on_with_what_the_arms_share(killed_and_continued):
    training, _, _ = killed_and_continued
    assert load(training.root / "config.toml") == load(training.config)


def test_a_run_that_fails_is_named_and_the_others_go_on(data, tmp_path):
    training = tiny.Training(data, tmp_path, tiny.in_process, **ALONE)
    command = ["compare", "--config", training.config, "--root", training.root, "--vary", "train.lr=.001,1e18"]
    failed = run_alexnet(*command)
    assert failed.returncode == 1, failed.stderr
    assert "note: failed: lr=1e18, seed 0: the loss" in failed.stdout
    assert "note: 1 of 2 runs are done" in failed.stdout
    assert "to go on: " in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
    summary = json.loads((training.root / "compare" / "demo-lr" / "summary.json").read_text())
    assert [arm["n"] for arm in summary["arms"]] == [1, 0]
    assert summary["arms"][0]["measures"]["top1_error_views"]["se_of"] == "test images"


def test_runs_at_once_end_with_their_comparison_and_the_same_command_goes_on(data, tmp_path):
    training = tiny.Training(data, tmp_path, tiny.on_ray, net__columns=1, train__epochs=3)
    command = ["compare", "--config", training.config, "--root", training.root, "--jobs", 2]
    command += ["--vary", "net.normalisation=true,false", "--name", "lrn"]
    driver = crash.start(*command, log=training.log)
    histories = training.root.glob
    crash.wait_until(lambda: len(list(histories("train/*/history.jsonl"))) == 2, "both trainings", 300, driver)
    assert crash.kill(driver) == []
    assert made(training.root) == {}
    crash.finish(crash.start(*command, log=training.log), training.log)
    assert len(made(training.root)) == 2
    said = training.log.read_text()
    assert said.count("2 runs, 2 at once") == 2
    assert "normalisation=false, seed 0: train" in said
    assert "failed" not in said
    frame = pd.read_parquet(training.root / "compare" / "lrn" / "results.parquet")
    assert frame["state"].tolist() == ["done"] * 2
    assert load(training.root / "config.toml") == load(training.config)


def test_a_comparison_takes_what_ordinary_runs_have_made(data, tmp_path):
    training = tiny.Training(data, tmp_path, tiny.in_process, **ALONE)
    config = load(training.config)
    rows = run(STAGES, config, training.root, only=("train", "evaluate"), compute=lambda *_: InProcess())
    before = made(training.root)
    comparison = Comparison("c", config, arms(["net.columns=2,1"], []), (0,))
    summary = in_process(comparison, training.root)
    after = made(training.root)
    assert before.items() <= after.items()
    assert (len(before), len(after)) == (1, 2)
    assert summary["arms"][0]["measures"]["top1_error_views"]["mean"] == pytest.approx(
        json.loads(rows[1].folder.read("evaluate.json"))["top1_error_ten_crop"]
    )


def test_arms_that_vary_the_views_share_their_training(data, tmp_path):
    training = tiny.Training(data, tmp_path, tiny.in_process, **ALONE)
    comparison = Comparison("views", load(training.config), arms(["evaluate.views=ten,one"], []), (0,))
    summary = in_process(comparison, training.root)
    assert len(made(training.root)) == 1
    ten, one = (arm["measures"] for arm in summary["arms"])
    assert ten["top1_error"]["mean"] == one["top1_error"]["mean"] == one["top1_error_views"]["mean"]
    assert "top1_error_views" in summary["pairs"][0]["measures"]


def test_arms_that_vary_the_data_are_run_and_not_compared(data, tmp_path, capsys):
    training = tiny.Training(data, tmp_path, tiny.in_process, **ALONE)
    comparison = Comparison("data", load(training.config), arms(["ingest.seed=0,1"], []), (0,))
    summary = in_process(comparison, training.root)
    assert "had other arms" not in capsys.readouterr().err
    assert summary["states"] == {"done": 2}
    assert summary["pairs"][0]["note"] == "other data: not compared"
    assert "arms are of different data" in summary["notes"][-1]
    one = in_process(Comparison("data", load(training.config), arms(["ingest.seed=0"], []), (0,)), training.root)
    assert "comparison data had other arms: these take its place" in capsys.readouterr().err
    assert [arm["name"] for arm in one["arms"]] == ["seed=0"]
