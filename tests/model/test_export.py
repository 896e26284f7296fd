"""An exported network predicts as the trained one did, from pixels alone; a damaged or foreign one is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.export import CARD, WEIGHTS, load_exported, save_exported, starting_weights
from model.specs import AlexNetSpec, TrainSpec
from model.step import predict
from model.trainer import Trainer

SPEC = AlexNetSpec(
    input_px=24, conv1_kernel=5, conv1_stride=1, kernels=(4, 8, 8, 8, 4), fc=(12, 10), num_classes=3, middle_std=0.05
)
NAMES = ("cat", "dog", "eel")


def trainer(spec: AlexNetSpec = SPEC, **settings) -> Trainer:
    mean_HWC = np.random.default_rng(0).uniform(90, 130, (28, 28, 3))
    return Trainer(spec, TrainSpec(**settings), mean_HWC, steps_per_epoch=5)


def export(folder, made: Trainer):
    return save_exported(
        folder, made.net.spec, made.weights(), made.net.mean, class_names=NAMES, provenance={"step": made.step}
    )


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 24, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_an_exported_network_needs_nothing_but_pixels(tmp_path, pixels):
    made = trainer()
    made.train_step(pixels.float(), torch.tensor([0, 1, 2, 0]))
    exported = load_exported(export(tmp_path / "model", made))
    made.net.eval()
    assert torch.equal(predict(exported.net, pixels), predict(made.net, pixels.float()))
    assert exported.net.spec == SPEC
    assert exported.class_names == exported.class_titles == NAMES
    assert exported.provenance == {"step": 1}
    assert not exported.net.training


def test_a_changed_file_is_refused(tmp_path):
    folder = export(tmp_path, trainer())
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{WEIGHTS} is not the file that {CARD} describes"):
        load_exported(folder)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"holds no exported model .no {CARD}."):
        load_exported(tmp_path)


def test_the_card_says_what_goes_in(tmp_path):
    card = json.loads((export(tmp_path, trainer()) / CARD).read_text())
    assert card["input"].startswith("RGB")
    assert card["net"]["kernels"] == [4, 8, 8, 8, 4]


def started(folder, spec: AlexNetSpec = SPEC) -> Trainer:
    made = trainer(spec, seed=2)
    made.load_weights(starting_weights(folder, made.net))
    return made


def test_training_may_start_from_another_runs_weights(tmp_path):
    folder = export(tmp_path, trainer(seed=1))
    source = load_exported(folder).net.state_dict()
    assert all(torch.equal(weight, source[name]) for name, weight in started(folder).weights().items())
    assert not torch.equal(trainer(seed=2).weights()["fc8.weight"], source["fc8.weight"])


def test_other_classes_get_a_new_fc8(tmp_path):
    folder, wider = export(tmp_path, trainer(seed=1)), replace(SPEC, num_classes=7)
    weights, fresh = started(folder, wider).weights(), trainer(wider, seed=2).weights()
    source = load_exported(folder).net.state_dict()
    assert torch.equal(weights["fc7.weight"], source["fc7.weight"])
    assert torch.equal(weights["fc8.weight"], fresh["fc8.weight"])


def test_starting_from_another_architecture_is_refused(tmp_path):
    folder = export(tmp_path, trainer())
    with pytest.raises(ValueError, match=r"train\.init_from=.*: fc6\.weight needs shape \(20, 16\)"):
        started(folder, replace(SPEC, fc=(20, 10)))
