"""Evidence is what the runs of a claim's comparison came to."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
from conftest import run_alexnet

from workflows.claims import evidence, keeping, paper
from workflows.compute.workers import InProcess
from workflows.config import UsageError, load
from workflows.console import Console
from workflows.engine.run import run
from workflows.studies.comparison import Comparison
from workflows.studies.running import How, compare
from workflows.workflow import BASELINES, STAGES

pytestmark = pytest.mark.slow
HOW = How(Console(), lambda *_: InProcess())


def test_evidence_has_the_means_and_differences_of_its_runs(data, tmp_path):
    claim = paper.ALL["dropout"]
    comparison, summary, root = made(claim, data, tmp_path)
    evidence.write(evidence.gather(claim, "small", comparison, summary, root), root)
    found, wrong = evidence.stored(claim, root, tmp_path)
    assert not wrong
    rows = {(run["arm"], run["seed"]): run for run in summary["runs"]}
    gaps = {key: run["top1_error"] - run["train_top1_error"] for key, run in rows.items()}
    pair = found["small"].pair(claim.pair, "gap")
    differences = [gaps["none", seed] - gaps["dropout", seed] for seed in (0, 1)]
    assert pair["difference"] == pytest.approx(sum(differences) / 2)
    assert pair["n"] == 2
    mean = found["small"].arm("none", "top1_error_views")
    assert mean == json.loads(json.dumps(summary["arms"][1]["measures"]["top1_error_views"]))
    assert found["small"].runs == evidence.keys_of(summary["runs"])
    assert found["small"]["manifests"] == [rows["none", 0]["manifest"]]
    assert found["small"]["hours"] > 0


def test_networks_are_averaged_and_their_kernels_looked_at(data, tmp_path):
    claim = paper.ALL["five_averaged"]
    comparison, summary, root = made(claim, data, tmp_path)
    (arm,) = evidence.gather(claim, "small", comparison, summary, root)["arms"]
    kept = [pq.read_table(root / "evaluate" / run["evaluate_key"] / "probabilities.parquet") for run in summary["runs"]]
    labels = kept[0]["label"].to_numpy()
    of_each = [np.stack(table["trained"].to_numpy()).astype(float) for table in kept]
    wrong = [(one.argmax(1) != labels).mean() for one in of_each]
    together = (sum(of_each).argmax(1) != labels).mean()
    gain = arm["measures"]["gain_of_average"]
    assert gain["mean"] == pytest.approx(np.mean(wrong) - together)
    assert (gain["n"], gain["se_of"]) == (1, "test images")
    colour = paper.ALL["colour_by_column"]
    files = {path.name for path in keeping.keep(colour, "small", comparison, summary, root)}
    assert files == {"colour_by_column-small.json", "colour_by_column-small.png", "claims.html"}
    (arm,) = evidence.read(root / "claims" / "colour_by_column-small.json", "colour_by_column", "small")["arms"]
    assert arm["measures"]["colour_differs"]["n"] == 2
    assert 0 <= arm["measures"]["colour_gap"]["mean"] <= 1


def test_optional_stages_are_made_of_each_run_and_measured(data, tmp_path):
    claim = paper.ALL["short_codes"]
    comparison, summary, root = made(claim, data, tmp_path)
    (arm,) = evidence.gather(claim, "small", comparison, summary, root)["arms"]
    cards = {
        name: [json.loads(path.read_text()) for path in (root / name).glob(f"*/{name}.json")]
        for name in ("neighbours", "codes")
    }
    by_codes = [
        {(one["of"], one["bits"]): one["right_class"]["6"]["share"] for one in card["codes"]} for card in cards["codes"]
    ]
    assert len(by_codes) == 2  # seeds
    gains = [shares["features", 256] - shares["pixels", 256] for shares in by_codes]
    assert arm["measures"]["codes_over_pixels"]["mean"] == pytest.approx(np.mean(gains))
    by_features = np.mean([card["right_class"]["features"]["6"]["share"] for card in cards["neighbours"]])
    lost = by_features - np.mean([shares["features", 256] for shares in by_codes])
    assert arm["measures"]["lost_by_codes"]["mean"] == pytest.approx(lost)


def test_the_tables_have_baselines_and_fine_tuned_networks_and_averages_of_several_arms(data, tmp_path):
    claim = paper.ALL["tables_cifar10"]
    averages = {"2 CNNs": {"1 CNN": 2}, "3 CNNs*": {"1 CNN": 2, "1 CNN*": 1}, "5 CNNs": {"1 CNN": 5}}
    claim = replace(claim, small=replace(claim.small, averages=averages))
    settings = {f"{name}__{key}": value for name in BASELINES for key, value in (("samples", 500), ("passes", 1))}
    settings |= {"fisher__components": 4, "fisher__gaussians": 2, "sparse__atoms": 8, "sparse__grids": "1"}
    comparison, root = prepared(claim, data, tmp_path, evaluate__keep_probabilities=True, **settings)
    with pytest.raises(UsageError, match="run `alexnet run --recipe pretrain_tiny` there first"):
        compare(comparison, root, HOW)
    first = replace(comparison.base, recipe="pretrain_tiny", loader=replace(comparison.base.loader, seed=5))
    (pretrained,) = run(STAGES, first, root, only=("train",), compute=lambda *_: InProcess())
    summary = compare(comparison, root, HOW)
    assert summary["states"] == {"done": 8}
    found = {arm["name"]: arm for arm in evidence.gather(claim, "small", comparison, summary, root)["arms"]}
    assert list(found) == ["1 CNN", "1 CNN*", "SIFT + FVs", "Sparse coding", "2 CNNs", "3 CNNs*"]  # not five of two
    keys = {(run["arm"], run["seed"]): run["evaluate_key"] for run in summary["runs"]}
    chosen = [keys["1 CNN", 0], keys["1 CNN", 1], keys["1 CNN*", 0]]
    kept = [pq.read_table(root / "evaluate" / key / "probabilities.parquet") for key in chosen]
    together_NK = sum(np.stack(table["trained"].to_numpy()).astype(float) for table in kept)
    error = (together_NK.argmax(1) != kept[0]["label"].to_numpy()).mean()
    average = found["3 CNNs*"]["measures"]["top1_error_views"]
    assert (average["mean"], average["n"], average["se_of"]) == (pytest.approx(error), 1, "test images")
    weights = hashlib.sha256(pretrained.folder.child("model").read("model.safetensors")).hexdigest()
    trained = [json.loads(path.read_text())["ingredients"].get("init_from") for path in root.glob("train/*/stage.json")]
    assert trained.count(weights) == 2


def made(claim, data, tmp_path) -> tuple[Comparison, dict, Path]:
    """A claim's small comparison on a tiny network and two seeds, its summary, and its root."""
    comparison, root = prepared(claim, data, tmp_path)
    return comparison, compare(comparison, root, HOW), root


def prepared(claim, data, tmp_path, **settings) -> tuple[Comparison, Path]:
    """The same before it is made."""
    given = {"tracking__uri": "off", "train__placement": "one", "train__epochs": 1, **settings}
    training = tiny.Training(data, tmp_path, tiny.in_process, **given)
    return claim.small.comparison(f"claim-{claim.id}-small", load(training.config), seeds=2), training.root


def test_a_claim_is_reproduced_once(tmp_path):
    source = tiny.write_source(tmp_path / "source")
    settings = tiny.SETTINGS | {"ingest.source": source, "train.epochs": 1, "train.schedule": "constant"}
    command = ["reproduce", "ten_views", "--seeds", 2, "--root", tmp_path / "runs"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    done = run_alexnet(*command)
    assert done.returncode == 0, done.stderr
    assert "ours     " in done.stdout
    assert "verdict  out of date: " in done.stdout  # of the tiny settings
    files = {path.name for path in (tmp_path / "runs" / "claims").iterdir()}
    assert files == {"claims.html", "ten_views-small.json", "five_averaged-small.json"}  # of the same runs
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("alexnet").experiment_id
    (run,) = client.search_runs([experiment], "tags.`alexnet.kind` = 'comparison'")
    assert files <= {file.path for file in client.list_artifacts(run.info.run_id)}
    again = run_alexnet(*command)
    assert again.stdout == done.stdout
    assert "run 1 of" not in again.stderr
    planned = run_alexnet(*command, "--plan")
    assert "nothing to do: every run is stored" in planned.stdout
