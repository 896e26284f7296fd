"""Evidence is what the runs of a claim's comparison came to."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
from conftest import run_alexnet

from workflows.claims import evidence, keeping, paper
from workflows.compute.workers import InProcess
from workflows.config import load
from workflows.console import Console
from workflows.studies.comparison import Comparison
from workflows.studies.running import How, compare

pytestmark = pytest.mark.slow


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


def made(claim, data, tmp_path) -> tuple[Comparison, dict, Path]:
    """A claim's small comparison on a tiny network and two seeds, its summary, and its root."""
    training = tiny.Training(
        data, tmp_path, tiny.in_process, tracking__uri="off", train__placement="one", train__epochs=1
    )
    comparison = claim.small.comparison(f"claim-{claim.id}-small", load(training.config), seeds=2)
    return comparison, compare(comparison, training.root, How(Console(), lambda *_: InProcess())), training.root


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
