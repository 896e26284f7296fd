"""An exported network predicts as the trained one did, from pixels alone; a damaged or foreign one is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.export import CARD, WEIGHTS, load_exported, save_exported, starting_weights
from model.networks import tensor_shapes
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


@pytest.mark.parametrize(
    "card", ["", "[]", "{}", '{"sha256": "0"}', {"net": {"nosuch": 1}}, {"net": {"kernels": [8] * 5}}, {"net": []}]
)
def test_a_card_that_is_none_is_refused(card, tmp_path):
    folder = export(tmp_path, trainer())
    if isinstance(card, dict):
        card = json.dumps(json.loads((folder / CARD).read_text()) | card)
    (folder / CARD).write_text(card)
    with pytest.raises(ValueError, match=f"{tmp_path}.*again"):
        load_exported(folder)


def test_a_card_without_weights_is_refused(tmp_path):
    (export(tmp_path, trainer()) / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="holds no whole model"):
        load_exported(tmp_path)


def started(folder, spec: AlexNetSpec = SPEC, class_names=NAMES) -> Trainer:
    made = trainer(spec, seed=2)
    made.load_weights(starting_weights(folder, tensor_shapes(made.net.spec), class_names))
    return made


def test_training_may_start_from_another_runs_weights(tmp_path):
    folder = export(tmp_path, trainer(seed=1))
    source = load_exported(folder).net.state_dict()
    assert all(torch.equal(weight, source[name]) for name, weight in started(folder).weights().items())
    assert not torch.equal(trainer(seed=2).weights()["fc8.weight"], source["fc8.weight"])


@pytest.mark.parametrize("class_names", [tuple("abcdefg"), ("dog", "cat", "eel"), ("cat", "dog", "fox")])
def test_other_classes_get_a_new_fc8(class_names, tmp_path):
    folder, other = export(tmp_path, trainer(seed=1)), replace(SPEC, num_classes=len(class_names))
    weights, fresh = started(folder, other, class_names).weights(), trainer(other, seed=2).weights()
    source = load_exported(folder).net.state_dict()
    assert torch.equal(weights["fc7.weight"], source["fc7.weight"])
    assert torch.equal(weights["fc8.weight"], fresh["fc8.weight"])


def test_named_layers_are_taken_and_all_others_start_anew(tmp_path):
    """Also into a network with a layer that the old one lacks, and other widths behind it."""
    folder = export(tmp_path, trainer(seed=1))
    other = replace(SPEC, conv6_kernels=4, fc=(20, 10), num_classes=5)
    made = trainer(other, seed=2)
    fresh, source = made.weights(), load_exported(folder).net.state_dict()
    taken = starting_weights(folder, tensor_shapes(made.net.spec), tuple("vwxyz"), "conv*")
    assert {name.partition(".")[0] for name in taken} == {"conv1", "conv2", "conv3", "conv4", "conv5"}
    made.load_weights(taken)
    for name, weight in made.weights().items():
        assert torch.equal(weight, source[name] if name in taken else fresh[name]), name


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        ("conv9", "train.init_layers=conv9 names no layer of the network"),
        ("conv1 conv6", r"conv6\.weight needs shape .* no such layer; .* train.init_layers to those that both have"),
        ("fc*", "train.init_layers=fc. has fc8, but .* knows other classes"),
        ("fc6", r"fc6\.weight needs shape"),
    ],
)
def test_named_layers_that_cannot_be_taken_are_refused(taken, words, tmp_path):
    folder, other = export(tmp_path, trainer(seed=1)), replace(SPEC, conv6_kernels=4, fc=(20, 10))
    with pytest.raises(ValueError, match=words):
        starting_weights(folder, tensor_shapes(other), ("x", "y", "z"), taken)


def test_starting_from_another_architecture_is_refused(tmp_path):
    folder = export(tmp_path, trainer())
    with pytest.raises(ValueError, match=r"train\.init_from=.*: fc6\.weight needs shape \(20, 16\)"):
        started(folder, replace(SPEC, fc=(20, 10)))


def test_a_layer_that_one_of_the_two_lacks_is_refused(tmp_path):
    longer = replace(SPEC, conv6_kernels=4)
    folder = export(tmp_path / "longer", trainer(longer))
    with pytest.raises(ValueError, match=r"conv6\.weight has no place here, that model has shape \(4, 4, 3, 3\)"):
        started(folder)
    folder = export(tmp_path / "shorter", trainer())
    with pytest.raises(ValueError, match=r"conv6\.weight needs shape \(4, 4, 3, 3\), that model has no such layer"):
        started(folder, longer)


def test_a_bottleneck_belongs_to_the_classes(tmp_path):
    """The pre-trained network of 2011 had one before its 21,843 classes; the one made of it had none."""
    with_one = replace(SPEC, bottleneck=6)
    folder = export(tmp_path / "with", trainer(with_one, seed=1))
    with pytest.raises(ValueError, match="bottleneck"):
        started(folder)
    assert "bottleneck.weight" not in started(folder, class_names=("x", "y", "z")).weights()
    folder = export(tmp_path / "without", trainer(seed=1))
    assert "bottleneck.weight" in started(folder, with_one, ("x", "y", "z")).weights()
