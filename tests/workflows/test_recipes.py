"""The recipes say what the logs say: the table of rates of the reference, epoch by epoch."""

from dataclasses import replace

import pytest

from model.networks import num_params, parameter_names
from model.optimizer import decay_of
from model.schedules import phases
from workflows import recipes

# run: epoch of .01 -> .001, of -> 1e-4, of conv1 -> 1e-5 and colour off, of conv1 frozen, of the rest -> 1e-5; the last
LOGS = {
    "as_run": (23, 51, 68, 72, 78, 93),
    "as_run_2012": (25, 51, 67, 72, 79, 91),
    "one_gpu": (20, 48, 66, 72, 79, 96),  # the last drop is inferred
    "separate_pooling": (23, 51, None, 79, 79, 90),
    "no_normalisation": (22, 44, 69, 73, 86, 97),
    "no_communication": (25, 49, 66, 72, 79, 92),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_recipe_has_the_rates_of_its_log(name):
    to_3, to_4, slow, frozen, to_5, stop = LOGS[name]
    config = recipes.named(name)
    assert config.train.epochs == stop
    for epoch in range(1, stop + 1):
        rest = 1e-2 if epoch < to_3 else 1e-3 if epoch < to_4 else 1e-4 if epoch < to_5 else 1e-5
        conv1 = 0 if epoch >= frozen else 1e-5 if slow and epoch >= slow else rest
        found = rates(config, epoch)
        assert found["conv1.weight"] == pytest.approx(conv1)
        assert all(found[f"{layer}.weight"] == pytest.approx(rest) for layer in ("conv2", "conv5", "fc6", "fc8"))
        assert found["fc6.bias"] == (0.002 if name in ("as_run", "one_gpu") and epoch >= to_3 else 0.02)
        assert light(config, epoch) == (0.0 if slow and epoch >= slow else None)


def test_fine_tuning_has_the_rates_of_its_log():
    config = recipes.named("finetune_2012")
    for epoch in range(1, 55):
        rest = 1e-3 if epoch < 22 else 1e-4 if epoch < 42 else 1e-5
        found = rates(config, epoch)
        assert found["conv3.weight"] == pytest.approx(rest)
        assert found["fc8.weight"] == pytest.approx(1e-2 if epoch < 9 else rest)
        assert found["conv1.weight"] == pytest.approx(1e-4 if epoch < 5 else 1e-5 if epoch < 7 else 0)
        assert light(config, epoch) == (0.0 if epoch >= 38 else None)


def test_run_170_is_four_equal_segments_and_two_of_the_biases():
    config = recipes.named("segments")
    for epoch in range(1, 91):
        found = rates(config, epoch + 0.5)  # the first ends in the middle of one
        segment = int(4 * (epoch - 0.5) / 90)
        assert found["fc6.weight"] == pytest.approx(0.01 * 250 ** (-segment / 3), rel=1e-4)
        assert found["fc6.bias"] == (0.02 if epoch <= 45 else 0.002)


@pytest.mark.parametrize(("name", "count"), [("13pct", 1_116_490), ("11pct", 2_112_970)])
def test_the_networks_for_cifar_10_have_their_published_counts_and_schedules(name, count):
    first, last = recipes.named(f"cifar10_{name}_first"), recipes.named(f"cifar10_{name}")
    assert num_params(replace(last.net, num_classes=10)) == count
    assert first.net == last.net
    assert (first.train.epochs, last.train.epochs) == (350, 170)
    assert rates(first, 350) == rates(last, 150)
    assert [rates(last, epoch)["local3.weight"] for epoch in (150, 151, 161)] == [1e-3, 1e-4, 1e-5]
    assert {rates(last, epoch)["local3.bias"] for epoch in (1, 151, 170)} == {0.002}


def test_decay_on_cifar_10_goes_by_layer_and_never_by_bias():
    wanted = {
        "cifar10_13pct": {"conv1": 0, "local3": 0.004, "local4": 0.004, "fc10": 0.004},
        "cifar10_11pct_short": {"conv2": 0, "local3": 0.004, "local4": 0.004, "fc10": 0.01},
        "cifar10_18pct": {"conv1": 0.004, "conv3": 0.004, "fc10": 1},
        "cifar10_19pct": {"conv2": 0.004, "conv3": 0.004, "fc10": 3},
        "figure_1": {"conv1": 0, "local3": 0, "fc10": 0},
    }
    for name, decays in wanted.items():
        train = recipes.named(name).train
        assert {layer: decay_of(train, f"{layer}.weight") for layer in decays} == decays
        assert {decay_of(train, f"{layer}.bias") for layer in decays} == {0}


def rates(config, epoch: float) -> dict[str, float]:
    """Of each parameter at the start of an epoch, counted from 1."""
    found = {}
    for parameter in parameter_names(config.net):
        (told,) = [phase for phase in phases(config.train, [parameter]) if phase.epoch <= epoch][-1].rates.values()
        found[parameter] = told
    return found


def light(config, epoch: float) -> float | None:
    return [phase for phase in phases(config.train, parameter_names(config.net)) if phase.epoch <= epoch][-1].light
