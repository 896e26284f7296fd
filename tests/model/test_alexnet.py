"""The network in one process: against its slow twin, against the fact sheet's shapes, and its input."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.alexnet import AlexNet
from model.networks import num_params
from model.shapes import layer_table
from model.specs import AlexNetSpec
from tests.model.reference import reference_logits

SMALL = AlexNetSpec(input_px=64, kernels=(8, 12, 8, 12, 8), fc=(12, 10), num_classes=7, middle_std=0.05)

VARIANTS = {
    "paper": {},
    "as_run": {"conv1_order": "norm_pool_relu", "spatial_norm": True, "lrn_alpha_over_n": True},
    "one_column": {"columns": 1},
    "six_conv": {"conv6_kernels": 8},
    "bottleneck": {"bottleneck": 6},
    "separate_pooling": {"pooling": "separate", "input_px": 80},
    "no_normalisation": {"normalisation": False},
    "no_communication": {"communication": False, "conv6_kernels": 8, "bottleneck": 6},
    "without_conv3": {"removed": "conv3"},
    "without_conv4": {"removed": "conv4"},
    "without_conv5": {"removed": "conv5"},
    "no_dropout": {"dropout": False},
    "tanh": {"activation": "tanh"},
    "symmetric_pad": {"conv1_kernel": 5, "conv1_stride": 2, "conv1_pad": 2},
}


def network(seed=0, **changes) -> AlexNet:
    net = AlexNet(replace(SMALL, **changes), seed=seed).double()
    net.set_mean(np.random.default_rng(0).uniform(80, 140, (90, 90, 3)))
    return net


def images(count, px=64) -> torch.Tensor:
    return 255 * torch.rand(count, 3, px, px, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_equals_its_slow_twin_in_value_and_gradient(name, device):
    net = network(**VARIANTS[name]).eval().to(device)
    x = images(3, net.spec.input_px).to(device)
    weights = {key: p.detach().clone().requires_grad_() for key, p in net.named_parameters()}
    logits, expected = net(x), reference_logits(net.spec, weights, net.mean, x)
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)
    grad = torch.randn(logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
    logits.backward(grad)
    expected.backward(grad)
    for key, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 0
        torch.testing.assert_close(parameter.grad, weights[key].grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_the_parameters_that_its_table_counts(name):
    net = network(**VARIANTS[name])
    assert sum(p.numel() for p in net.parameters()) == num_params(net.spec)
    for layer in layer_table(net.spec):
        assert net.get_submodule(layer.name).weight.shape == layer.weight_shape


def test_the_full_network_has_the_papers_parameters_and_shapes():
    net, shapes = AlexNet(AlexNetSpec()).eval(), {}
    assert sum(p.numel() for p in net.parameters()) == 60_965_224
    for name in net.table:
        hook = lambda module, _, out, name=name: shapes.update({name: tuple(out.shape[1:])})  # noqa: E731
        net.get_submodule(name).register_forward_hook(hook)
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert shapes == {
        "conv1": (96, 55, 55), "conv2": (256, 27, 27), "conv3": (384, 13, 13), "conv4": (384, 13, 13),
        "conv5": (256, 13, 13), "fc6": (4096,), "fc7": (4096,), "fc8": (1000,),
    }  # fmt: skip


def test_conv1_overhangs_on_the_right_and_at_the_bottom_only():
    net = network()
    padded = net.centre(images(1), overhang=net.overhang)
    assert padded.shape == (1, 3, 67, 67)
    assert torch.equal(padded[:, :, :64, :64], images(1) - net.mean)
    assert padded[:, :, 64:].abs().max() == padded[:, :, :, 64:].abs().max() == 0


def test_the_mean_is_the_central_window_or_one_colour():
    mean_HWC = np.random.default_rng(1).uniform(0, 255, (70, 68, 3))
    image, channel = network(mean="image"), network(mean="channel")
    image.set_mean(mean_HWC)
    channel.set_mean(mean_HWC)
    np.testing.assert_allclose(image.mean.permute(1, 2, 0), mean_HWC[3:67, 2:66])
    np.testing.assert_allclose(channel.mean[:, 0, 0], mean_HWC.mean((0, 1)))


def test_pixels_may_be_bytes():
    net = network().eval()
    pixels = images(2).round().to(torch.uint8)
    assert torch.equal(net(pixels), net(pixels.double()))


def test_bytes_that_are_lit_are_the_floats_that_the_loader_lit(device):
    net = network().float().train().to(device)
    pixels = images(2).round().to(device, torch.uint8)
    shift = torch.tensor([[3.25, -7.5, 0.1], [-20.0, 0.0, 1.7]], device=device)
    net.input_scale = 0.9
    assert torch.equal(net.centre(pixels, shift), net.centre(pixels.float() + shift[:, :, None, None]))
    assert not torch.equal(net.centre(pixels, shift), net.centre(pixels))


def test_the_input_is_scaled_in_training_alone():
    net, x = network(), images(2)
    net.input_scale = 0.9
    torch.testing.assert_close(net.train().centre(x), 0.9 * net.eval().centre(x))
    assert torch.equal(net.centre(x), network().centre(x))


def test_test_mode_halves_what_training_masks():
    net, x = network(), images(2)
    hidden = torch.ones(2, 12, dtype=torch.float64)
    assert torch.equal(net.eval().drop(hidden, "fc6"), hidden * 0.5)
    masked = net.train().drop(hidden, "fc6")
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    plain = network(dropout=False)
    assert torch.equal(plain.train()(x), plain.eval()(x))


def test_the_same_seed_gives_the_same_network():
    first, second, other = network(seed=1), network(seed=1), network(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.fc6.weight, other.fc6.weight)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_no_layer_is_saturated_at_birth(activation):
    """Of tanh: its biases begin at 0, and conv1's weights are small where the configuration says so."""
    net = AlexNet(AlexNetSpec(input_px=96, activation=activation, conv1_std=0.001, num_classes=10)).train()
    net.set_mean(np.full((96, 96, 3), 128, np.float32))
    means, shares = [], []

    def neuron(x: torch.Tensor, original=net.neuron) -> torch.Tensor:
        x = original(x)
        means.append(x.mean().item())
        shares.append((x.abs() > 0.97).float().mean().item())
        return x

    net.neuron = neuron
    net(255 * torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(0)))
    assert len(means) == 7
    if activation == "tanh":
        assert max(shares) < 0.2  # 0.8 with weights of 0.01
        assert max(map(abs, means)) < 0.05
    else:
        assert means[1] > 0.9  # conv2's biases of 1 give its ReLUs something to learn from
