"""Parameters in one piece of memory: the same network, whose gradients arrive where the update and the sum look."""

import pytest
import torch

from model.alexnet import AlexNet
from model.flat import Flat
from model.specs import AlexNetSpec

SPEC = AlexNetSpec(
    input_px=24, conv1_kernel=5, conv1_stride=1, kernels=(6, 10, 6, 6, 6), fc=(34, 30), num_classes=3,
    middle_std=0.03, initial="scaled", dropout=False,
)  # fmt: skip


def gradients(net: AlexNet) -> dict[str, torch.Tensor]:
    net.train()(torch.full((2, 3, 24, 24), 99.0, device=net.mean.device)).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


def test_a_flat_network_has_the_values_and_gradients_that_it_had(device):
    plain, net = (AlexNet(SPEC, seed=3).to(device) for _ in range(2))
    flat = Flat(net.named_parameters(), in_place=True, more=3)
    expected, found = gradients(plain), gradients(net)
    assert flat.is_whole()
    for name, parameter in plain.named_parameters():
        assert torch.equal(flat.view(flat.weights, name), parameter)
        assert torch.equal(found[name], expected[name])
        assert torch.equal(flat.view(flat.gradients, name), expected[name])
    gradients(net)  # a second backward adds to what is there
    assert all(torch.equal(flat.view(flat.gradients, name), 2 * expected[name]) for name in expected)


@pytest.mark.parametrize("in_place", [False, True])
def test_gradients_are_flat_in_the_order_of_the_weights_and_can_be_cleared(in_place, device):
    plain, net = (AlexNet(SPEC, seed=3).to(device) for _ in range(2))
    flat, expected = Flat(net.named_parameters(), in_place), gradients(plain)
    for _ in range(2):
        gradients(net)
        for name, place in flat.places.items():
            twin = torch.zeros_like(flat.weights)
            flat.view(twin, name).copy_(expected[name])
            assert torch.equal(flat.gradient(name), twin[place])
        flat.clear_gradients()
        assert not any(flat.gradient(name).any() for name in flat.places)


def test_nothing_overlaps_and_padding_stays_zero():
    net = AlexNet(SPEC, seed=3)
    flat = Flat(net.named_parameters(), in_place=True, more=3)
    gradients(net)
    assert flat.more.tolist() == [0, 0, 0]
    seen = torch.zeros_like(flat.weights)
    for name in flat.places:
        flat.view(seen, name).add_(1)
    assert seen.max() == 1
    assert seen.sum() == sum(parameter.numel() for parameter in net.parameters())
    assert not flat.gradients[seen == 0].any()


@pytest.mark.parametrize("change", [lambda net: net.double(), lambda net: net.zero_grad()])
def test_it_knows_when_the_network_left(change):
    net = AlexNet(SPEC, seed=3)
    flat = Flat(net.named_parameters(), in_place=True)
    change(net)
    assert not flat.is_whole()
