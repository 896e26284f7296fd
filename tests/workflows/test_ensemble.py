"""Several models on the same images: their average against NumPy on what was kept, and what does not go together."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from workflows.compute.workers import InProcess
from workflows.config import RunConfig, UsageError, with_values
from workflows.engine.run import Row, run
from workflows.workflow import STAGES

pytestmark = pytest.mark.slow
ALONE = {"tracking__uri": "off", "train__placement": "one", "train__epochs": 1}
UP_TO_EVALUATE = ("ingest", "stats", "train", "evaluate")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, RunConfig, list[str]]:
    """A root with trainings of three seeds, the configuration of the first, and the models of the others."""
    folder = tmp_path_factory.mktemp("ensemble")
    base = tiny.config(tiny.write_source(folder / "source"), **ALONE)
    configs = [replace(base, train=replace(base.train, seed=seed)) for seed in (1, 2, 3)]
    rows = [evaluated(folder / "runs", config) for config in configs]
    return folder / "runs", configs[0], [str(row[2].folder.local_path() / "model") for row in rows[1:]]


def evaluated(root: Path, config: RunConfig) -> list[Row]:
    return run(STAGES, config, root, only=UP_TO_EVALUATE, compute=lambda *_: InProcess())


def error(probabilities_NK: np.ndarray, labels_N: np.ndarray) -> float:
    return float((probabilities_NK.argmax(1) != labels_N).mean())


def test_errors_of_several_models_are_those_of_numpy_on_the_kept_probabilities(trained):
    root, config, models = trained
    wanted = {"evaluate.models": models, "evaluate.keep_probabilities": True}
    row = evaluated(root, with_values(config, wanted))[-1]
    found = json.loads((row.folder.local_path() / "evaluate.json").read_text())
    kept = pq.read_table(row.folder.local_path() / "probabilities.parquet")
    labels_N = kept["label"].to_numpy()
    assert kept["id"].to_pylist() == sorted(kept["id"].to_pylist())
    by_model = np.stack([np.stack(kept[name].to_pylist()).astype(np.float64) for name in ("trained", *models)])
    assert by_model.shape == (3, found["num_images"], 4)
    np.testing.assert_allclose(by_model.sum(2), 1, atol=2e-3)
    for name, probabilities_NK, model in zip(("trained", *models), by_model, found["models"], strict=True):
        assert (model["model"], model["top1_error"]) == (name, pytest.approx(error(probabilities_NK, labels_N)))
    average = error(by_model.mean(0), labels_N)
    assert found["average"]["top1_error"] == pytest.approx(average)
    for left_out, model in enumerate(found["models"]):
        without = error(np.delete(by_model, left_out, 0).mean(0), labels_N)
        assert model["costs_to_leave_out"] == pytest.approx(without - average)
    assert found["top1_error_ten_crop"] == found["models"][0]["top1_error"]
    assert "3 models together" in row.result


def test_the_weights_of_the_others_are_in_the_key(trained):
    root, config, models = trained
    alone = evaluated(root, config)[-1]
    first, second = (evaluated(root, with_values(config, {"evaluate.models": [model]}))[-1] for model in models)
    assert len({alone.key, first.key, second.key}) == 3
    assert "models" not in json.loads((alone.folder.local_path() / "evaluate.json").read_text())


def test_models_of_other_classes_or_other_images_are_refused(trained, tmp_path):
    root, config, models = trained
    for what, change in {
        "class_names": lambda card: {"class_names": list("wxyz")},
        "size_px": lambda card: {"provenance": card["provenance"] | {"size_px": 99}},
        "input_px": lambda card: {"net": card["net"] | {"input_px": 99}},
    }.items():
        other = tmp_path / what
        shutil.copytree(models[0], other)
        card = json.loads((other / "model.json").read_text())
        (other / "model.json").write_text(json.dumps(card | change(card)))
        with pytest.raises(UsageError, match=f"{what} has other {what} than trained .*average models of the same"):
            evaluated(root, with_values(config, {"evaluate.models": [str(other)]}))
    with pytest.raises(UsageError, match=r"evaluate.models=.*nowhere: no model.safetensors there"):
        evaluated(root, with_values(config, {"evaluate.models": [str(tmp_path / "nowhere")]}))
