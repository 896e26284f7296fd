"""Data sets in layouts of their own go through all five stages, and come out with their own labels."""

import builders
import pyarrow.parquet as pq
import pytest
import tiny

from pipelines.manifest import Manifest
from pipelines.storage import Folder
from workflows.compute.workers import InProcess
from workflows.engine.run import run
from workflows.workflow import OF_A_RUN, STAGES

pytestmark = pytest.mark.slow


def tiny_imagenet(folder) -> dict[str, str]:
    files, truth = builders.tiny_imagenet()
    builders.write_files(folder, files)
    names = {data: path.rpartition("val/")[2] for path, data in files.items()}
    return {names[data]: wnid for data, wnid in truth["val"].items()}


def webdataset(folder) -> dict[str, str]:
    labels = {f"{i:03d}": ("dog", "cat", "elk")[i % 3] for i in range(12)}
    samples = {key: {"txt": label} for key, label in labels.items()}
    builders.webdataset(folder, {"animals-train-0000.tar": samples, "animals-validation-00.tar": samples})
    return {f"animals-validation-00/{key}.jpg": label for key, label in labels.items()}


@pytest.mark.parametrize("write", [tiny_imagenet, webdataset])
def test_a_source_goes_through_all_stages_with_its_own_labels(tmp_path, write):
    truth = write(tmp_path / "source")
    config = tiny.config(tmp_path / "source", tracking__uri="off", train__epochs=1, train__placement="one")
    rows = run(STAGES, config, tmp_path / "runs", only=OF_A_RUN, compute=lambda *_: InProcess())
    assert [row.state for row in rows] == ["ran"] * 5
    ingest, _, _, evaluate, _ = (row.folder for row in rows)
    names = Manifest.load(Folder.at(ingest.local_path())).class_names
    predictions = pq.read_table(evaluate.local_path() / "predictions.parquet").to_pylist()
    assert {row["key"]: names[row["label"]] for row in predictions} == truth
