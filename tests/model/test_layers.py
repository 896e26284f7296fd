"""Each layer of our own against PyTorch's or the written formula, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from model.layers import LRN, Dropout, generator, initial_weights, linear, local_response_norm, spatial_norm
from model.shapes import layer_table
from model.specs import AlexNetSpec


def responses(*shape, seed=0, dtype=torch.float64):
    """Signed values on the scale of real responses, where normalisation does something."""
    return 60 * torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("n", [1, 3, 5, 9])
@pytest.mark.parametrize("maps", [4, 12])
def test_lrn_is_torchs_within_each_column_with_alpha_times_n(columns, n, maps, device):
    x = responses(3, maps, 4, 5).to(device).requires_grad_()
    twin = x.detach().clone().requires_grad_()
    grad = responses(3, maps, 4, 5, seed=1).to(device)
    y = local_response_norm(x, columns, LRN(n=n, alpha=1e-3))
    y.backward(grad)
    apart = twin.unflatten(1, (columns, -1)).flatten(0, 1)
    expected = F.local_response_norm(apart, n, alpha=1e-3 * n, beta=0.75, k=2.0).view_as(x)
    expected.backward(grad)
    torch.testing.assert_close(y, expected, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(x.grad, twin.grad, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_lrn_gradient_is_that_of_its_value(beta):
    x = responses(2, 6, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: local_response_norm(x, 2, LRN(alpha=1e-3, beta=beta)), x)


@pytest.mark.parametrize("norm", [lambda x: local_response_norm(x, 2, LRN()), spatial_norm])
def test_normalisation_and_its_gradient_do_not_depend_on_how_the_batch_is_cut(norm, monkeypatch):
    x = responses(5, 8, 6, 6, dtype=torch.float32).requires_grad_()
    whole = norm(x)
    (grad,) = torch.autograd.grad(whole.square().sum(), x)
    monkeypatch.setattr("model.kernels.response_norm.PART_VALUES", 2 * 8 * 36)
    cut = norm(x)
    assert torch.equal(cut, whole)
    assert torch.equal(torch.autograd.grad(cut.square().sum(), x)[0], grad)


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_linear_and_its_gradients_are_torchs(rows):
    tensors = [responses(*shape, seed=i, dtype=torch.float32) for i, shape in enumerate([(rows, 48), (20, 48), (20,)])]
    grad = responses(rows, 20, seed=3, dtype=torch.float32)
    found, expected = ([t.double() if exact else t.clone() for t in tensors] for exact in (False, True))
    for those, function in ((found, linear), (expected, F.linear)):
        outputs = function(*(tensor.requires_grad_() for tensor in those))
        outputs.backward(grad.to(outputs.dtype))
    assert found[1].grad.is_contiguous()
    torch.testing.assert_close(linear(*found).double(), F.linear(*expected), rtol=1e-5, atol=0.05)
    for ours, torchs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.grad.double(), torchs.grad, rtol=1e-5, atol=0.05)


def test_linear_works_under_autocast():
    x, weight, bias = (responses(*shape, dtype=torch.float32) for shape in [(2, 8), (4, 8), (4,)])
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))


def test_lrn_computes_in_float32_for_bfloat16(device):
    x = responses(2, 8, 3, 3).to(device).bfloat16()
    y = local_response_norm(x, 2, LRN())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, local_response_norm(x.float(), 2, LRN()).bfloat16(), atol=0, rtol=0)


def test_lrn_gradient_of_bfloat16_is_that_of_float32_rounded(device):
    x, grad = (responses(2, 8, 3, 3, seed=seed).to(device).bfloat16() for seed in (0, 1))
    narrow, wide = x.clone().requires_grad_(), x.float().requires_grad_()
    local_response_norm(narrow, 2, LRN()).backward(grad)
    local_response_norm(wide, 2, LRN()).backward(grad.float())
    assert narrow.grad.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.grad.float(), wide.grad, atol=0.02 * float(wide.grad.abs().max()), rtol=0.01)


def test_spatial_norm_is_the_form_of_2012(device):
    x = responses(2, 3, 7, 6).to(device).requires_grad_()
    squares = F.avg_pool2d(x**2, 5, stride=1, padding=2, count_include_pad=True)
    torch.testing.assert_close(spatial_norm(x), x * (1 + 1e-3 * squares) ** -0.75, atol=1e-11, rtol=1e-11)
    assert torch.autograd.gradcheck(spatial_norm, x[:1, :2, :4, :4].detach().requires_grad_())


def masks(rows: slice, units: slice, seed: int = 3, step: int = 7, layer: str = "fc6") -> torch.Tensor:
    dropout = Dropout(seed, layer, units)
    dropout.at(step, rows.start)
    return dropout(torch.ones(rows.stop - rows.start, units.stop - units.start))


def test_dropout_masks_half_and_rescales_nothing():
    y = Dropout(0, "fc6", slice(0, 512))(torch.full((64, 512), 3.0))
    assert set(y.unique().tolist()) == {0.0, 3.0}
    assert 0.49 < (y > 0).float().mean() < 0.51
    assert (y > 0).float().mean(0).min() > 0.3  # every unit, and every image, is sometimes kept
    assert (y > 0).float().mean(1).min() > 0.3


@pytest.mark.parametrize("unit", [1, 8, 100, 128, 131])
@pytest.mark.parametrize("row", [0, 1, 5])
def test_dropout_masks_do_not_depend_on_placement(unit, row):
    """Cut anywhere, by the columns and by the replicas."""
    whole = masks(slice(0, 10), slice(0, 300))
    parts = [
        torch.cat([masks(rows, units) for rows in (slice(0, row), slice(row, 10))])
        for units in (slice(0, unit), slice(unit, 300))
    ]
    assert torch.equal(torch.cat(parts, 1), whole)


def test_dropout_masks_differ_by_seed_step_layer_row_and_unit():
    rows, units = slice(0, 8), slice(0, 128)
    first = masks(rows, units)
    others = {"seed": 4, "step": 8, "layer": "fc7"}
    different = [masks(rows, units, **{name: value}) for name, value in others.items()]
    different += [masks(rows, units, step=7 + 2**32), masks(slice(8, 16), units), masks(rows, slice(128, 256))]
    for other in different:
        assert 0.4 < (other != first).float().mean() < 0.6


def test_each_pass_in_training_is_a_step_of_its_own():
    dropout, x = Dropout(3, "fc6", slice(0, 64)), torch.ones(4, 64)
    assert torch.equal(torch.stack([dropout(x), dropout(x)]), torch.stack([masks_of(step) for step in (0, 1)]))
    assert torch.equal(dropout.eval()(x), x * 0.5)
    assert torch.equal(dropout.train()(x), masks_of(2))


def masks_of(step: int) -> torch.Tensor:
    return masks(slice(0, 4), slice(0, 64), step=step)


def test_initial_weights_have_the_papers_spread_and_biases():
    table = {layer.name: layer for layer in layer_table(AlexNetSpec(middle_std=0.03, conv6_kernels=256))}
    expected = {"conv1": (0.01, 0), "conv2": (0.01, 1), "conv3": (0.03, 0)}
    expected |= dict.fromkeys(("conv4", "conv5", "conv6"), (0.03, 1))
    expected |= {"fc6": (0.01, 1), "fc7": (0.01, 1), "fc8": (0.01, 0)}
    assert {name: (layer.std, layer.bias) for name, layer in table.items()} == expected
    for name in ("conv1", "conv2", "conv3", "conv4"):
        (std, bias), (weight, biases) = expected[name], initial_weights(table[name], seed=0)
        assert weight.shape == table[name].weight_shape
        assert abs(weight.std().item() / std - 1) < 0.01
        assert abs(weight.mean().item()) < std / 50
        assert set(biases.tolist()) == {float(bias)}
    assert not torch.equal(initial_weights(table["conv3"], 0)[0], initial_weights(table["conv3"], 1)[0])


def test_a_generator_is_a_function_of_its_key():
    draws = [torch.rand(4, generator=generator("cpu", *key)) for key in [(1, 2), (1, 2), (1, 3), (12,)]]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])
