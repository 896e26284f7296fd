"""The operators behind the layers: equal to their formulas, one node each to the compiler, absent from an export."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd

from model.alexnet import AlexNet
from model.kernels.linear import linear
from model.kernels.response_norm import response_norm
from model.layers import LRN, response_norm_formula
from model.portable import portable
from model.specs import AlexNetSpec

SPEC = AlexNetSpec(
    input_px=24, conv1_kernel=5, conv1_stride=1, kernels=(8, 16, 16, 16, 8), fc=(32, 34), num_classes=3,
    middle_std=0.03, initial="scaled", spatial_norm=True, bottleneck=8,
)  # fmt: skip


def random(*shape: int, scale: float = 60, dtype=torch.float32) -> torch.Tensor:
    return scale * torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize("n", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (40, 12), (2, 3, 5, 4), (1, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_response_norm_is_its_formula(shape, n, beta, dtype, device):
    x, lrn = random(*shape, dtype=dtype).to(device), LRN(n, 1e-3, beta, 1.5)
    torch.testing.assert_close(response_norm(x, *lrn, keep=True)[0], response_norm_formula(x, lrn))
    torch.testing.assert_close(response_norm(x, *lrn, keep=False)[0], response_norm_formula(x, lrn))


@pytest.mark.parametrize("shape", [(7, 3), (40, 12), (2, 3, 5, 4)])
def test_the_gradient_of_response_norm_is_that_of_its_formula(shape, device):
    grad = random(*shape, scale=1, dtype=torch.float64).to(device)
    found, expected = (random(*shape).double().to(device) for _ in range(2))
    response_norm(found.requires_grad_(), *LRN(alpha=1e-3), keep=True)[0].backward(grad)
    response_norm_formula(expected.requires_grad_(), LRN(alpha=1e-3)).backward(grad)
    torch.testing.assert_close(found.grad, expected.grad)


@pytest.mark.parametrize("shape", [(40, 12), (2, 3, 5, 4)])
def test_the_operators_keep_what_torch_asks_of_them(shape):
    """Schemas, shapes without values, gradients under the compiler."""
    torch.library.opcheck(response_norm, (random(*shape).requires_grad_(), 5, 1e-3, 0.75, 2.0, True))
    x, weight, bias = (random(*shape).requires_grad_() for shape in [(3, 8), (5, 8), (5,)])
    torch.library.opcheck(linear, (x, weight, bias))


def test_no_rows_are_normalised_to_no_rows():
    assert response_norm(torch.empty(0, 8), *LRN(), keep=True)[0].shape == (0, 8)


def test_the_compiler_sees_one_node_for_each_layer():
    graphs = []

    def keep(graph: torch.fx.GraphModule, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes if "alexnet" in str(node.target)])
        return graph.forward

    net, twin = AlexNet(SPEC).train(), AlexNet(SPEC).train()
    compiled = torch.compile(net, backend=aot_autograd(fw_compiler=keep), fullgraph=True)
    images = random(3, 3, 24, 24).abs()
    for forward in (compiled, twin):
        forward(images).square().sum().backward()
    norms, products = 3, 4
    assert sorted(graphs[0]) == ["alexnet.linear.default"] * products + ["alexnet.response_norm.default"] * norms
    assert len(graphs[1]) == norms + products
    for (name, ours), parameter in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, parameter.grad, msg=name)


def test_no_compiler_is_imported_for_a_forward_alone():
    """It takes a second, of a command that looks at one image."""
    code = "from model.kernels import linear as fc, response_norm as norm; import sys, torch; x = torch.ones(4, 8);"
    code += "norm.response_norm(fc.linear(x, torch.ones(6, 8), torch.ones(6)), 5, 1e-3, 0.75, 2.0, False);"
    code += "sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


WITHOUT_THIS_PROJECT = """
import sys
sys.path.append(sys.argv[3])
import torch
try:
    import model
    sys.exit("the project is at hand; this shows nothing")
except ImportError:
    pass
inputs, outputs = torch.load(sys.argv[2])
torch.testing.assert_close(torch.export.load(sys.argv[1]).module()(inputs), outputs)
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 5])
def test_an_exported_network_runs_where_this_project_is_not_installed(count, tmp_path):
    net = AlexNet(SPEC).eval()
    images = random(count, 3, 24, 24).abs()
    plain = portable(net)
    torch.testing.assert_close(plain(images), net(images))
    again = torch.export.export(plain, (images,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(again, tmp_path / "model.pt2")
    torch.save((images, net(images).detach()), tmp_path / "expected.pt")
    packages = Path(torch.__file__).parents[1]  # with -S its .pth files, which lead here, are not read
    command = [sys.executable, "-S", "-P", "-c", WITHOUT_THIS_PROJECT, "model.pt2", "expected.pt", str(packages)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
