"""`alexnet codes`: what it writes is what its autoencoders say, also after a stop."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from model.autoencoder import Autoencoder
from pipelines.codes import nearest_codes, packed, read_codes
from pipelines.neighbour_rows import joined
from pipelines.storage import Folder
from workflows.compute.workers import InProcess
from workflows.config import RunConfig, with_values
from workflows.engine.outputs import places
from workflows.engine.plan import plan
from workflows.engine.run import run
from workflows.report import sections_neighbours
from workflows.report.finished_run import open_run
from workflows.workflow import STAGES

pytestmark = pytest.mark.slow
NAMES = ("features-9", "features-70", "pixels-9", "pixels-70")


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> tuple[Path, RunConfig]:
    """A root in which features were taken, and its configuration."""
    root, config = tiny.features_taken(tmp_path_factory.mktemp("taken"))
    return root, with_values(config, {"codes.bits": "[9,70]", "codes.epochs": 3})


def made(root: Path, config: RunConfig, compute: InProcess | None = None) -> Path:
    """The folder of the codes, which are made unless they are there."""
    rows = run(STAGES, config, root, only=("codes",), compute=lambda *_: compute or InProcess())
    return rows[-1].folder.local_path()


def test_codes_are_those_of_the_stored_autoencoder(taken):
    root, config = taken
    folder = made(root, config)
    card = json.loads((folder / "codes.json").read_text())
    assert [f"{found['of']}-{found['bits']}" for found in card["codes"]] == list(NAMES)
    finished = open_run(root)
    rows = {split: joined(finished.features(split)) for split in ("train", "val")}
    shown = sections_neighbours.by_codes(finished)
    assert list(shown)[0] == f"9 bits of features, of {card['codes'][0]['queries']}"
    assert list(shown.values()) == [found["right_class"] for found in card["codes"]]
    for found in card["codes"][:2]:
        name, bits = f"features-{found['bits']}", found["bits"]
        net = Autoencoder(rows["train"].features_NU.shape[1], bits)
        net.load_state_dict(load_file(folder / name / "autoencoder.safetensors"))
        codes = {split: read_codes(Folder.at(folder), f"{name}.parquet", split) for split in rows}
        for split, of_split in rows.items():
            expected = net.bits(torch.from_numpy(of_split.features_NU.astype(np.float32))).numpy()
            assert (codes[split].codes_NW == packed(expected)).all()
            assert codes[split].ids_N.tolist() == of_split.ids_N.tolist()
        labels = dict(zip(rows["train"].ids_N.tolist(), rows["train"].labels_N.tolist(), strict=True))
        nearest = nearest_codes(codes["val"].codes_NW, codes["train"], 6)
        right = [
            np.mean([labels[id] == label for id in ids])
            for ids, label in zip(nearest.ids_QK.tolist(), rows["val"].labels_N, strict=True)
        ]
        assert found["right_class"]["6"]["share"] == pytest.approx(np.mean(right))
        assert found["bytes_per_image"] == 8 * -(-bits // 64)


def test_an_interrupted_run_goes_on_at_the_epoch_with_the_same_codes(taken, tmp_path):
    root, config = taken
    whole = made(root, config)
    config = with_values(config, {"neighbours.split": "train"})  # another key, the same autoencoders
    with pytest.raises(KeyboardInterrupt):
        made(root, config, tiny.Interrupted(6))
    planned = {step.stage.name: step for step in plan(STAGES, config, places(config, root))}
    parts = planned["codes"].output.folder.local_path() / "parts"
    assert {path.name for path in parts.iterdir()} == {
        f"{name}-after-{epochs}.pt" for name, epochs in zip(NAMES, (2, 2, 1, 1), strict=True)
    }
    resumed = made(root, config)
    for name in NAMES:
        one, other = (load_file(folder / name / "autoencoder.safetensors") for folder in (whole, resumed))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert not (resumed / "parts").exists() or not list((resumed / "parts").iterdir())
