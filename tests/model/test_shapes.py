"""The counts of the fact sheet: parameters, neurons, multiply-adds and traffic of the network and its variants."""

from dataclasses import replace

import pytest

from model.networks import exchanged_bytes, num_macs, num_params, train_macs
from model.shapes import layer_table
from model.specs import AlexNetSpec

PAPER = AlexNetSpec()
ONE_GPU = AlexNetSpec(columns=1, kernels=(48, 128, 192, 192, 256))
SIX_CONV = AlexNetSpec(conv6_kernels=256)

PARAMS = {"conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624}
PARAMS |= {"fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000}
MACS = {"conv1": 105_415_200, "conv2": 223_948_800, "conv3": 149_520_384, "conv4": 112_140_288, "conv5": 74_760_192}
MACS |= {"fc6": 37_748_736, "fc7": 16_777_216, "fc8": 4_096_000}
NEURONS = {"conv1": 290_400, "conv2": 186_624, "conv3": 64_896, "conv4": 64_896, "conv5": 43_264}
NEURONS |= {"fc6": 4096, "fc7": 4096, "fc8": 1000}


def test_every_layer_of_the_paper_has_its_known_counts():
    layers = {layer.name: layer for layer in layer_table(PAPER)}
    assert {name: layer.params for name, layer in layers.items()} == PARAMS
    assert {name: layer.macs for name, layer in layers.items()} == MACS
    assert {name: layer.neurons for name, layer in layers.items()} == NEURONS
    assert sum(NEURONS.values()) == 659_272
    assert sum(PARAMS.values()) == num_params(PAPER) == 60_965_224
    assert sum(MACS.values()) == num_macs(PAPER) == 724_406_816
    assert train_macs(PAPER) - num_macs(PAPER) == 1_343_398_432


VARIANTS = {
    "one_gpu": (ONE_GPU, 59_798_312, 391_514_384),
    "six_conv": (SIX_CONV, 61_555_304, 745_640_480),
    "six_conv_10184": (replace(SIX_CONV, num_classes=10_184), 99_182_152, 783_258_144),
    "six_conv_21843": (replace(SIX_CONV, num_classes=21_843), 146_949_075, 831_013_408),
    "six_conv_bottleneck": (replace(SIX_CONV, num_classes=21_843, bottleneck=2048), 110_605_267, 794_667_552),
    "separate_pooling": (replace(PAPER, pooling="separate"), 60_965_224, 686_891_552),
    "tanh": (replace(PAPER, activation="tanh"), 60_965_224, 724_406_816),
    "no_dropout": (replace(PAPER, dropout=False), 60_965_224, 724_406_816),
    "no_normalisation": (replace(PAPER, normalisation=False), 60_965_224, 724_406_816),
    "no_communication": (
        replace(PAPER, communication=False, kernels=(96, 320, 384, 384, 256), fc=(8192, 4096)),
        60_714_408,
        724_323_872,
    ),
    # conv4 (conv5) reads what conv3 (conv4) read; fc6 reads 384 maps where conv5 is gone
    "without_conv3": (
        replace(PAPER, removed="conv3"),
        60_965_224 - 885_120 + 384 * (256 - 192) * 9,
        724_406_816 - 149_520_384 + 384 * (256 - 192) * 9 * 169,
    ),
    "without_conv4": (replace(PAPER, removed="conv4"), 60_965_224 - 663_936, 724_406_816 - 112_140_288),
    "without_conv5": (
        replace(PAPER, removed="conv5"),
        60_965_224 - 442_624 + 4096 * 128 * 36,
        724_406_816 - 74_760_192 + 4096 * 128 * 36,
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_has_its_known_counts(name):
    spec, params, macs = VARIANTS[name]
    assert num_params(spec) == params
    assert num_macs(spec) == macs


def test_separate_pooling_has_the_maps_that_were_run():
    layers = {layer.name: layer for layer in layer_table(replace(PAPER, pooling="separate"))}
    assert [layers[f"conv{i}"].out_px for i in (1, 2, 3, 4, 5)] == [55, 26, 13, 13, 11]
    assert layers["fc6"].sees == 6 * 6 * 256


def test_the_columns_exchange_489376_bytes_an_image():
    assert exchanged_bytes(PAPER) == 489_376
    assert exchanged_bytes(ONE_GPU) == 0
    assert exchanged_bytes(SIX_CONV) == 489_376 + 4 * 18_432
    assert exchanged_bytes(VARIANTS["no_communication"][0]) == 4 * 8_192 + 4_000


def test_scaled_initial_weights_are_the_fixed_ones_in_the_full_network():
    full = AlexNetSpec()
    assert layer_table(replace(full, initial="scaled")) == layer_table(full)


def test_scaled_initial_weights_pass_the_signal_on_in_a_narrower_network():
    """std * sqrt(inputs) is what a layer multiplies its input's magnitude by."""
    small = AlexNetSpec(kernels=(32, 64, 96, 96, 64), fc=(256, 256), num_classes=10, initial="scaled")
    gains = [
        {layer.name: layer.std * (layer.weights / layer.out) ** 0.5 for layer in layer_table(spec)}
        for spec in (small, AlexNetSpec())
    ]
    assert gains[0] == pytest.approx(gains[1])
