"""`alexnet baseline`: evaluated as the network is, on the same images; tuned on training images; goes on if killed."""

import json
import shutil
import sqlite3
from pathlib import Path

import crash
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
from conftest import run_alexnet
from PIL import Image

from pipelines.features import finished_files, write_features
from pipelines.formats.rows import ShardRows
from pipelines.shard_record import ShardRecord
from pipelines.storage import Folder
from workflows.commands.verifying import verified, way_out
from workflows.compute.workers import InProcess
from workflows.config import BASELINES, RunConfig, UsageError, dump, with_values
from workflows.engine.outputs import places
from workflows.engine.plan import plan
from workflows.engine.run import Row, run
from workflows.stages import linear
from workflows.stages.linear import Course, is_held_out
from workflows.studies import stored
from workflows.workflow import STAGES

SMALL = {"fisher__components": 8, "fisher__gaussians": 4, "sparse__atoms": 16, "sparse__grids": "1,2"}
SMALL |= {f"{name}__{key}": value for name in BASELINES for key, value in (("samples", 2000), ("passes", 3))}


def write_stripes(folder: Path) -> Path:
    """30 images of each of four classes: stripes that run in four directions, with noise."""
    draw, (y, x) = np.random.default_rng(0), np.mgrid[:32, :32]
    for number in range(120):
        along = [x, y, x + y, x - y][number % 4] + draw.uniform(0, 9)
        grey = 128 + 60 * np.sin(along * draw.uniform(0.8, 1.2)) + draw.normal(size=(32, 32)) * 20
        path = folder / "abcd"[number % 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(path)
    return folder


def made(root: Path, config: RunConfig, *only: str) -> list[Row]:
    return run(STAGES, config, root, only=only, compute=lambda *_: InProcess())


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> tuple[Path, RunConfig]:
    """A root with both baselines and a network on the same images, and the configuration."""
    folder = tmp_path_factory.mktemp("baseline")
    settings = {**SMALL, "train__placement": "one", "train__epochs": 1}
    config = tiny.config(write_stripes(folder / "source"), **settings)
    made(folder / "runs", config, "ingest", "stats", "train", "evaluate", *BASELINES)
    return folder / "runs", config


def output(root: Path, stage: str) -> Path:
    (found,) = (root / stage).iterdir()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_predictions_and_errors_are_as_the_network_s(shared, name):
    root, config = shared
    ours, network = (pq.read_table(output(root, stage) / "predictions.parquet") for stage in (name, "evaluate"))
    assert ours.schema.equals(network.schema)
    for column in ("id", "key", "label"):
        assert ours[column].to_pylist() == network[column].to_pylist()
    errors = json.loads((output(root, name) / "evaluate.json").read_text())
    labels_N, best_N5 = ours["label"].to_numpy(), np.stack(ours["classes"].to_pylist())
    assert errors["top1_error"] == pytest.approx((best_N5[:, 0] != labels_N).mean())
    assert errors["top1_error"] < 0.2  # of four classes
    assert errors["num_images"] == len(ours)
    probabilities_N5 = np.stack(ours["probabilities"].to_pylist())
    np.testing.assert_allclose(probabilities_N5.sum(1), 1, atol=1e-5)  # of four classes all are there
    spec = getattr(config, name)
    assert [model["model"] for model in errors["models"]] == list(spec.descriptors)
    assert {model["rate"] for model in errors["models"]} <= {*spec.rates}


@pytest.mark.slow
def test_an_evaluation_averages_the_network_with_baselines(shared, tmp_path):
    """By the newest and by its folder; other images are refused, and so is a folder that holds nothing."""
    root, config = shared
    names = ("fisher@newest", str(output(root, "sparse")))
    wanted = {"evaluate.models": names, "evaluate.keep_probabilities": True}
    shutil.copytree(root, tmp_path / "runs")
    (row,) = made(tmp_path / "runs", with_values(config, wanted), "evaluate")
    folder = row.folder.local_path()
    found = json.loads((folder / "evaluate.json").read_text())
    kept = pq.read_table(folder / "probabilities.parquet")
    by_model = np.stack([np.stack(kept[name].to_pylist()).astype(np.float64) for name in ("trained", *names)])
    labels_N, average_NK = kept["label"].to_numpy(), by_model.mean(0)
    assert found["average"]["top1_error"] == pytest.approx((average_NK.argmax(1) != labels_N).mean())
    for model, stage in zip(found["models"][1:], BASELINES, strict=True):
        errors = json.loads((output(root, stage) / "evaluate.json").read_text())
        assert model["top1_error"] == pytest.approx(errors["top1_error"])
    assert "3 models together" in row.result
    with pytest.raises(UsageError, match=r"evaluate.models=fisher@newest holds probabilities of other images than tho"):
        made(tmp_path / "runs", with_values(config, wanted | {"evaluate.split": "train"}), "evaluate")
    with pytest.raises(UsageError, match="no baseline sparse is finished under .*run `alexnet baseline sparse` first"):
        made(tmp_path / "new", with_values(config, {"evaluate.models": ("sparse@newest",)}), "evaluate")
    with pytest.raises(
        UsageError, match="no model.safetensors there, nor probabilities.parquet; name the folder of an"
    ):
        made(tmp_path / "runs", with_values(config, {"evaluate.models": (str(tmp_path),)}), "evaluate")


@pytest.mark.slow
def test_vocabulary_and_classifier_stay_and_what_was_encoded_goes(shared):
    kept = {path.name for path in (output(shared[0], "fisher") / "sift").iterdir()}
    assert kept == {"vocabulary.npz", "choosing.npz", "chosen.json", "classifier.npz"}


@pytest.mark.slow
def test_a_damaged_file_is_found_by_verify_which_names_the_baseline_s_command(shared):
    root, config = shared
    file = output(root, "fisher") / "sift" / "classifier.npz"
    good = file.read_bytes()
    file.write_bytes(good[:-9])
    found = {each.stage.name: each for each in verified(plan(STAGES, config, places(config, root)), map)}
    file.write_bytes(good)
    assert [name for name, each in found.items() if each.problems] == ["fisher"]
    ((problem,),) = found["fisher"].problems.values()
    assert problem.startswith(f"{file} is not the file that stage fisher made")
    said = way_out(found["fisher"].stage, lambda *words: " ".join(["alexnet", *words]))
    assert said == "`alexnet baseline fisher --redo fisher` makes it again"


@pytest.mark.slow
def test_a_second_call_does_nothing_and_mlflow_has_the_errors(shared):
    root, _ = shared
    again = run_alexnet("baseline", "fisher", "--root", root)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout
    errors = json.loads((output(root, "fisher") / "evaluate.json").read_text())
    query = (
        "select m.value from latest_metrics m join tags t using (run_uuid) "
        "where t.key = 'alexnet.stage' and t.value = 'fisher' and m.key = 'top1_error'"
    )
    with sqlite3.connect(root / "mlflow.db") as database:
        assert database.execute(query).fetchall() == [(errors["top1_error"],)]


@pytest.mark.slow
def test_keys_of_one_baseline_leave_the_other_as_it_is(shared):
    root, _ = shared
    said = run_alexnet("plan", "--json", "--root", root, "--set=sparse.threshold=.5")
    rows = {row["stage"]: row for row in json.loads(said.stdout)}
    assert (rows["fisher"]["state"], rows["sparse"]["state"]) == ("CACHED", "STALE")
    assert "optional: `alexnet baseline sparse` makes it" in rows["sparse"]["reasons"]
    assert rows["sparse"]["units"] == 120
    assert rows["sparse"]["bytes"] == 120 * 3 * 16 * (1 + 4) * 2


@pytest.mark.slow
def test_a_comparison_has_a_network_and_baselines_as_arms(shared):
    """What ordinary runs have made is seed 0 of each; the plan, the page, the table and MLflow know what there is."""
    root, config = shared
    path = root.parent / "config.toml"
    path.write_text(dump(config))
    arms = ["network", "Fisher vectors:baseline=fisher", "sparse coding:baseline=sparse"]
    command = ["compare", "--root", root, "--config", path, "--name", "rows", *(f"--arm={arm}" for arm in arms)]
    planned = json.loads(run_alexnet(*command, "--seeds", 2, "--plan", "--json").stdout)
    assert [(row["arm"], row["stored"], row["missing"]) for row in planned] == [
        (arm.partition(":")[0], 1, 1) for arm in arms
    ]
    assert all(row["seconds"] > 0 and not row["untimed"] for row in planned)
    done = run_alexnet(*command)
    assert done.returncode == 0, done.stderr
    assert "run 1 of" not in done.stderr
    network, fisher, sparse = done.stdout.splitlines()[2:5]
    assert fisher.split()[-2:] == sparse.split()[-2:] == ["–", "–"]
    assert network.split()[-1] != "–"
    summary = json.loads((root / "compare" / "rows" / "summary.json").read_text())
    assert [arm["num_images"] for arm in summary["arms"]] == [summary["arms"][0]["num_images"]] * 3
    for arm, stage in zip(summary["arms"][1:], BASELINES, strict=True):
        error = json.loads((output(root, stage) / "evaluate.json").read_text())["top1_error"]
        assert arm["measures"].keys() == {"top1_error_views", "top5_error_views"}
        assert arm["measures"]["top1_error_views"]["mean"] == pytest.approx(error)
        assert arm["measures"]["top1_error_views"]["se_of"] == "test images"
    assert all(pair["measures"]["top1_error_views"]["se_images"] is not None for pair in summary["pairs"])
    runs = pq.read_table(root / "compare" / "rows" / "results.parquet").to_pylist()
    assert [run["train_s"] is None for run in runs] == [False, True, True]
    assert [run["baseline"] for run in runs] == ["", *BASELINES]
    page = (root / "compare" / "rows" / "page.html").read_text()
    assert page.count("<img ") == 3  # the errors; two curves, of the network
    assert f"fisher/{output(root, 'fisher').name}" in page
    with sqlite3.connect(root / "mlflow.db") as database:
        tagged = database.execute("select run_uuid from tags where key = 'compare.rows'").fetchall()
    assert len(tagged) == 4  # train and evaluate, and one of each baseline
    assert {(stage, output(root, stage).name) for stage in BASELINES} <= stored.outputs(root)  # clean spares them


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fisher.gaussians": 5000}, "descriptors are too few for fisher.gaussians=5000"),
        ({"fisher.grids": "8", "fisher.patches": "1"}, "fisher.grids=8: a part of the image has no patch"),
        ({"evaluate.split": "test"}, "evaluate.split=test: there are no such images"),
    ],
)
def test_what_cannot_be_done_is_a_line(shared, settings, said):
    root, config = shared
    with pytest.raises(UsageError, match=said):
        made(root, with_values(config, settings), "fisher")


def finished(root: Path) -> dict[Path, int]:
    """When the vocabularies and the whole files of encoded images were written."""
    files = [*root.glob("fisher/*/*/vocabulary.npz")]
    files += [part.parents[1] / "data" / f"{part.stem}.parquet" for part in root.glob("fisher/*/*/parts/*.json")]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.slow
def test_a_killed_baseline_goes_on_with_what_is_missing(shared, tmp_path):
    settings = {**SMALL, "ingest__rows_per_shard": 4, "fisher__passes": 12, "tracking__uri": "off"}
    config = tiny.write_config(tmp_path / "config.toml", shared[0].parent / "source", **settings)
    contents = []
    for name, kills in (("undisturbed", ()), ("killed", ("parts/*", "choosing.npz", "classifier.npz"))):
        root, log = tmp_path / name, tmp_path / f"{name}.log"
        crash.finish(crash.start_in_process(root, config, "ingest", log=log), log)
        known: dict[Path, int] = {}
        for pattern in kills:
            driver = crash.start_in_process(root, config, "fisher", log=log)
            crash.wait_until(lambda r=root, p=pattern: [*r.glob(f"fisher/*/sift/{p}")], pattern, 120, driver)
            driver.kill()
            driver.wait()
            assert known.items() <= finished(root).items()
            known = finished(root)
            assert not [*root.glob("fisher/*/evaluate.json")]
        crash.finish(crash.start_in_process(root, config, "fisher", log=log), log)
        names = ("evaluate.json", "predictions.parquet")
        contents.append([path.read_bytes() for each in names for path in root.glob(f"fisher/*/{each}")])
    assert len(contents[0]) == 2
    assert contents[1] == contents[0]


@pytest.mark.slow
def test_too_little_room_is_said_once_the_first_file_tells_how_much_is_wanted(shared, monkeypatch):
    root, config = shared
    monkeypatch.setattr("workflows.stages.room.DISK_MARGIN", 1e12)
    with pytest.raises(UsageError, match=r"the rest of the encoded images will take about .* free: make room, or"):
        made(root, with_values(config, {"sparse.atoms": 5, "sparse.descriptors": "colour"}), "sparse")
    assert len([*root.glob("sparse/*/colour/data/*")]) == 1


def encoded(folder: Folder, labels_N: np.ndarray, values_NF: np.ndarray, **keys) -> Course:
    """A course over one file of such images."""
    ids_N, count = np.arange(len(labels_N)), len(labels_N)
    record = ShardRecord("data/train-00000-of-00001.parquet", "train", 0, count, count, 0, "")
    rows = ShardRows(ids_N, labels_N, [*ids_N], lambda _: [str(i) for i in ids_N], lambda _: ids_N)
    file = write_features(folder, record, rows, [values_NF.astype(np.float32)], "float16")
    config = with_values(RunConfig(), {f"fisher.{name}": value for name, value in keys.items()})
    return Course(folder, (file,), config.fisher, 2, 1)


def test_a_damaged_file_of_encoded_images_is_told_with_the_baseline_s_command_and_then_missing(tmp_path):
    course = encoded(Folder.at(tmp_path), np.arange(9) % 2, np.ones((9, 4)))
    file = tmp_path / course.files[0].name
    file.write_bytes(file.read_bytes()[:-9] + bytes(9))
    assert len(finished_files(course.folder)) == 1
    with pytest.raises(ValueError, match=f"{file} is not the file .*; run `alexnet baseline fisher` again, which enc"):
        linear.one_pass("choosing", course)
    assert not finished_files(course.folder)


def test_held_out_images_choose_and_are_not_learned_from(tmp_path):
    """Images of which the first value tells the class; those held out are labelled the other way round."""
    labels_N = np.arange(200) % 2
    values_NF = np.random.default_rng(0).normal(size=(200, 4)) * 0.1
    values_NF[:, 0] += labels_N
    held_N = is_held_out(np.arange(200), 0.15)
    assert held_N.sum() == 30
    settings = {"rates": "0,5", "decays": "0", "passes": 4, "batch_size": 10, "held_out": 0.15}
    for name, wrong_N, rate in (("as_is", False, 5), ("turned", held_N, 0)):
        course = encoded(Folder.at(tmp_path / name), labels_N ^ wrong_N, values_NF, **settings)
        for _ in range(4):
            linear.one_pass("choosing", course)
        linear.choose(course)
        assert (linear.chosen(course).rate, linear.chosen(course).held_out_error < 0.1) == (rate, rate == 5)
        linear.one_pass("classifier", course)
        assert (linear.passes_done(course, "choosing"), linear.passes_done(course, "classifier")) == (4, 1)
    learned = [np.load(tmp_path / name / "choosing.npz")["weights"] for name in ("as_is", "turned")]
    assert np.array_equal(*learned)
    assert np.abs(learned[0]).max() > 1
