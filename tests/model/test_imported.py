"""Networks of somebody else's, by the name of a function: trained, stopped, exported and judged as ours are."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from model import checkpoint
from model.columns import place_ranks
from model.export import CARD, load_exported, save_exported, starting_weights
from model.imported import source_digest
from model.networks import build, layer_table, num_params, parameter_names, tensor_shapes
from model.portable import portable
from model.schedules import phases
from model.specs import ImportedSpec, TrainSpec
from model.step import predict
from model.trainer import Trainer
from tests.model import own_networks
from tests.model.ranks import run_ranks

HERE = "module:tests.model.own_networks:"
SPEC = ImportedSpec(kind=f"{HERE}residual", input_px=16, num_classes=4)
TRAIN = TrainSpec(epochs=2, batch_size=6, lr=0.05, schedule="constant")
NAMES = ("a", "b", "c", "d")


def trainer(spec: ImportedSpec = SPEC, train: TrainSpec = TRAIN, **where) -> Trainer:
    return Trainer(spec, train, np.full((16, 16, 3), 120, np.float32), 10, **where)


def run(made: Trainer, steps: range, first: int = 0, count: int = 6) -> Trainer:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = 255 * torch.rand(6, 3, 16, 16, generator=generator)
        labels = torch.randint(4, (6,), generator=generator)
        rows = slice(first, first + count)
        made.train_step(images[rows], labels[rows], batch_size=6, first_row=first)
    return made


def export(folder, made: Trainer):
    return save_exported(folder, made.net.spec, made.weights(), made.net.mean, class_names=NAMES)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


@pytest.mark.parametrize("stop", [1, 4, 10])
def test_stopped_and_continued_it_has_the_same_bits(stop, tmp_path):
    """Averages of layers and masks of PyTorch's own dropout included, whatever else draws random numbers."""
    whole, before = run(trainer(), range(12)), run(trainer(), range(stop))
    checkpoint.save(tmp_path, before.step, *before.state_dict())
    torch.manual_seed(99)
    found, after = checkpoint.newest_complete(tmp_path), trainer()
    after.load_state_dict(found.tensors, found.scalars)
    run(after, range(stop, 12))
    assert same(after.state_dict()[0], whole.state_dict()[0])
    assert whole.weights()["block.0.norm.num_batches_tracked"] == 12


def test_the_random_numbers_of_others_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(SPEC, seed=3)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(build(SPEC, seed=3).module.fc.weight, build(SPEC, seed=3).module.fc.weight)
    assert not torch.equal(build(SPEC, seed=3).module.fc.weight, build(SPEC, seed=4).module.fc.weight)


def test_what_is_frozen_stays():
    made = trainer()
    before = made.weights()
    run(made, range(3))
    after = made.weights()
    assert torch.equal(before["stem.bias"], after["stem.bias"])
    assert not torch.equal(before["stem.weight"], after["stem.weight"])
    assert not torch.equal(before["scale"], after["scale"])


def two_replicas(rank: int, world: int) -> dict[str, torch.Tensor]:
    columns, replicas = place_ranks(1, 1, rank, world)
    return run(trainer(columns=columns, replicas=replicas), range(3), first=3 * rank, count=3).weights()


@pytest.mark.slow
def test_replicas_stay_alike():
    first, second = run_ranks(two_replicas, 2)
    assert same(first, second)
    alone = run(trainer(), range(3)).weights()
    assert not torch.equal(first["block.0.norm.running_mean"], alone["block.0.norm.running_mean"])  # of its own rows


def test_its_names_are_those_of_the_module():
    assert parameter_names(SPEC)[:3] == ["scale", "stem.weight", "stem.bias"]
    assert num_params(SPEC) == 1 + (3 * 9 + 1) * 8 + 2 * (8 * 8 * 9 + 16) + 9 * 4
    table = {layer.name: layer for layer in layer_table(SPEC)}
    assert table["block.0.conv"].output == (8, 7, 7)
    assert table["block.0.conv"].macs == 8 * 8 * 9 * 49
    assert table["fc"].macs == 32
    schedule = TrainSpec(schedule="1:*=.1 block.*=.01 block.0.conv.weight=0")
    (phase,) = phases(schedule, parameter_names(SPEC))
    assert sorted(phase.rates.values()) == [0, 0.01, 0.1]


def test_an_export_names_no_code_and_loads_none(tmp_path):
    made = run(trainer(), range(3))
    folder = export(tmp_path, made)
    assert json.loads((folder / CARD).read_text())["net"]["kind"] == "module"
    own_networks.calls.clear()
    with pytest.raises(ValueError, match="say which function makes it, with --set net.kind=module:"):
        load_exported(folder)
    with pytest.raises(ValueError, match="say which function"):
        load_exported(folder, "alexnet")
    assert not own_networks.calls
    images = 255 * torch.rand(2, 3, 16, 16)
    loaded = load_exported(folder, SPEC.kind).net
    assert torch.equal(predict(loaded, images), predict(made.net, images))
    torch.testing.assert_close(portable(loaded)(images).softmax(1), predict(made.net, images))
    with pytest.raises(ValueError, match="is no model of the network that .*headless makes"):
        load_exported(folder, f"{HERE}headless")


def test_a_card_that_names_code_is_not_followed(tmp_path):
    folder = export(tmp_path, trainer())
    card = json.loads((folder / CARD).read_text())
    card["net"]["kind"] = SPEC.kind
    (folder / CARD).write_text(json.dumps(card))
    own_networks.calls.clear()
    with pytest.raises(ValueError, match="say which function makes it"):
        load_exported(folder)
    assert not own_networks.calls


def test_training_starts_from_its_layers_and_their_averages(tmp_path):
    source = run(trainer(), range(3))
    folder, other = export(tmp_path, source), replace(SPEC, num_classes=3)
    taken = starting_weights(folder, tensor_shapes(other), ("x", "y", "z"))
    assert taken.keys() == source.weights().keys() - {"fc.weight", "fc.bias"}
    assert torch.equal(taken["block.2.norm.running_var"], source.weights()["block.2.norm.running_var"])
    assert set(starting_weights(folder, tensor_shapes(SPEC), NAMES, "stem fc")) == {
        *("stem.weight", "stem.bias", "fc.weight", "fc.bias")
    }


def test_its_features_are_what_its_last_layer_reads():
    net, images = build(SPEC).eval(), 255 * torch.rand(2, 3, 16, 16)
    assert net.features(images).shape == (2, 8)
    torch.testing.assert_close(net.head(net.features(images)), net(images))
    with pytest.raises(ValueError, match=r"headless: its last layer is no torch.nn.Linear"):
        build(replace(SPEC, kind=f"{HERE}headless")).features(images)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("module:nowhere_to_be_found:net", "No module named 'nowhere_to_be_found'; it must be importable"),
        (f"{HERE}absent", "has no attribute 'absent'"),
        (f"{HERE}calls", "calls is no function"),
        (f"{HERE}number", "no torch.nn.Module with parameters, but int"),
        (f"{HERE}of_three", r"two images give \[2, 3\], not logits of \[2, 4\]"),
        (f"{HERE}narrow", "fails on images of 16 px: RuntimeError"),
        (f"{HERE}with_mean", "a tensor of it is called mean"),
    ],
)
def test_what_is_no_network_is_told_in_one_line(name, words):
    with pytest.raises(ValueError, match=words) as told:
        layer_table(replace(SPEC, kind=name))
    assert str(told.value).startswith(f"net.kind={name}: ")
    assert "\n" not in str(told.value)


def test_the_digest_is_of_the_file_that_the_function_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_of_mine.py").write_text("from tests.model.own_networks import residual\n\ndef net(spec): ...\n")
    assert source_digest(replace(SPEC, kind="module:nets_of_mine:net")) != source_digest(SPEC)
    assert source_digest(replace(SPEC, kind="module:nets_of_mine:residual")) == source_digest(SPEC)


@pytest.mark.parametrize("name", ["module:os:system", "module:torch:tensor", f"{HERE}partly"])
def test_what_no_python_file_defines_has_no_digest(name):
    with pytest.raises(ValueError, match=f"net.kind={name}: the file that it is in cannot be read; give a function"):
        source_digest(replace(SPEC, kind=name))
