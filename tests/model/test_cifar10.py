"""The networks for CIFAR-10: counts as published, layers as their slow twins compute them."""

import pytest
import torch
import torch.nn.functional as F

from model.cifar10 import SPACE, Cifar10Net, LocallyConnected
from model.cifar10_shapes import Cifar10Spec, layer_table
from model.networks import build, num_macs, num_params
from model.shapes import Layer

THIRTEEN = Cifar10Spec(local_kernels=(32, 32))
ELEVEN = Cifar10Spec(local_kernels=(64, 32), normalisation="maps")
NINETEEN = Cifar10Spec(input_px=32, kernels=(32, 32, 64), local_kernels=())


@pytest.mark.parametrize(("spec", "count"), [(THIRTEEN, 1_116_490), (ELEVEN, 2_112_970), (NINETEEN, 89_578)])
def test_counts_are_those_of_the_published_networks(spec, count):
    net = build(spec)
    assert num_params(spec) == count == sum(parameter.numel() for parameter in net.parameters())
    assert [layer.shapes["weight"] for layer in layer_table(spec)] == [
        tuple(p.shape) for name, p in net.named_parameters() if name.endswith("weight")
    ]


def test_a_local_layers_work_is_that_of_a_convolution():
    conv = 6 * 6 * 3 * 3 * 64 * 32
    assert num_macs(ELEVEN) - num_macs(THIRTEEN) == conv + conv // 2  # local3 is twice as wide, and local4 reads it


def local_twin(layer: LocallyConnected, x_BCHW: torch.Tensor) -> torch.Tensor:
    """Window by window."""
    k, side = layer.layer.kernel, layer.layer.out_px
    padded = F.pad(x_BCHW, [layer.layer.pad] * 4)
    out = x_BCHW.new_empty(len(x_BCHW), layer.layer.out, side, side)
    for place in range(side * side):
        y, x = divmod(place, side)
        window_BU = padded[:, :, y : y + k, x : x + k].permute(0, 2, 3, 1).flatten(1)
        out[:, :, y, x] = window_BU @ layer.weight[place].T + layer.bias[place]
    return out


@pytest.mark.parametrize(("side", "maps", "kernels", "batch"), [(6, 4, 3, 2), (1, 2, 5, 1), (5, 3, 1, 3)])
def test_a_locally_connected_layer_is_its_slow_twin(side, maps, kernels, batch, device):
    layer = LocallyConnected(
        Layer("local", 1, True, 3, 1, 1, side, side, maps, kernels, 0.04, 0.0, local=True)
    ).double()
    torch.manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    layer.to(device)
    x = torch.randn(batch, maps, side, side, dtype=torch.float64).to(device).requires_grad_()
    seed = torch.randn(batch, kernels, side, side, dtype=torch.float64).to(device)
    inputs = (x, layer.weight, layer.bias)
    fast, slow = layer(x), local_twin(layer, x)
    torch.testing.assert_close(fast, slow)
    gradients = zip(torch.autograd.grad(fast, inputs, seed), torch.autograd.grad(slow, inputs, seed), strict=True)
    for ours, theirs in gradients:
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("activation", [torch.relu, torch.tanh])
def test_the_11_percent_network_layer_by_layer(activation):
    """By PyTorch's own layers; its LocalResponseNorm divides alpha by n, as the code of 2012 did."""
    net = Cifar10Net(Cifar10Spec(normalisation="maps", activation=activation.__name__), seed=1).eval()
    strong(net)
    norm = torch.nn.LocalResponseNorm(9, 1e-3, 0.75, 1.0)
    x = pixels(24) - net.mean
    x = norm(F.max_pool2d(activation(F.conv2d(x, *weights(net, "conv1"), padding=2)), 3, 2, ceil_mode=True))
    x = F.max_pool2d(norm(activation(F.conv2d(x, *weights(net, "conv2"), padding=2))), 3, 2, ceil_mode=True)
    for name in ("local3", "local4"):
        x = activation(local_twin(net.get_submodule(name), x))
    expected = F.linear(x.flatten(1), *weights(net, "fc10"))
    torch.testing.assert_close(net(pixels(24)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalisation", ["none", "space"])
def test_the_18_and_19_percent_networks_layer_by_layer(normalisation):
    """An average is that of the part of a window that lies on the map."""
    spec = Cifar10Spec(input_px=32, kernels=(4, 4, 6), local_kernels=(), normalisation=normalisation)
    net = Cifar10Net(spec, seed=1).eval()
    strong(net)

    def average(x):
        ones = F.pad(torch.ones_like(x), (0, 1, 0, 1))
        return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2) / F.avg_pool2d(ones, 3, 2)

    def norm(x):
        sums = F.avg_pool2d(x.square(), 3, 1, padding=1) * 9
        return x * (1 + SPACE.alpha * sums) ** -0.75 if normalisation == "space" else x

    x = torch.relu(F.conv2d(pixels(32) - net.mean, *weights(net, "conv1"), padding=2))
    x = norm(F.max_pool2d(x, 3, 2, ceil_mode=True))
    x = norm(average(torch.relu(F.conv2d(x, *weights(net, "conv2"), padding=2))))
    x = average(torch.relu(F.conv2d(x, *weights(net, "conv3"), padding=2)))
    assert x.shape[1:] == (6, 4, 4)
    expected = F.linear(x.flatten(1), *weights(net, "fc10"))
    torch.testing.assert_close(net(pixels(32)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kernels": (64,)}, "net.kernels"),
        ({"kernels": (64, 0)}, "net.kernels"),
        ({"local_kernels": (64, 0)}, "net.local_kernels"),
        ({"input_px": 4}, "net.input_px is 4"),
        ({"normalisation": "batch"}, "net.normalisation"),
    ],
)
def test_what_cannot_be_built_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Cifar10Spec(**settings)


def strong(net: Cifar10Net) -> None:
    """Weights that make all layers count, unlike the first ones."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(parameter.numel()))


def weights(net: Cifar10Net, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    return net.get_parameter(f"{layer}.weight"), net.get_parameter(f"{layer}.bias")


def pixels(side: int) -> torch.Tensor:
    return 255 * torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
