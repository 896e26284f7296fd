"""The update against the paper's formula, step by step, and against torch's SGD where they must agree."""

import pytest
import torch

from model.flat import Flat
from model.optimizer import Momentum, decay_of
from model.specs import TrainSpec
from tests.model.reference import reference_update

NAMES = ("conv1.weight", "conv1.bias", "fc6.weight", "fc6.bias")


def parameters(seed=0) -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.nn.Parameter(torch.randn(5, 3, generator=generator, dtype=torch.float64)) for name in NAMES}


def gradients(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return {name: torch.randn(5, 3, generator=generator, dtype=torch.float64) for name in NAMES}


def rates(*of_names: float) -> dict[str, float]:
    return dict(zip(NAMES, of_names, strict=True))


def run(
    spec: TrainSpec, rates_of_step: list[dict[str, float]], skip: list[bool] | None = None, device: str = "cpu"
) -> dict[str, torch.Tensor]:
    mine = {name: torch.nn.Parameter(p.detach().to(device)) for name, p in parameters().items()}
    optimizer = Momentum(Flat(mine.items(), in_place=True), spec)
    for step, of_step in enumerate(rates_of_step):
        for name, grad in gradients(step).items():
            mine[name].grad += grad.to(device)
        optimizer.update(of_step, torch.tensor(skip[step], device=device) if skip else None)
    return {name: p.detach().cpu() for name, p in mine.items()}


CHANGING = [rates(0.1, 0.2, 0.1, 0.2)] * 4 + [rates(0.01, 0.2, 0.02, 0.05)] * 3 + [rates(0.0, 0.0, 0.002, 0.05)] * 3


@pytest.mark.parametrize("decays", ["", "*.bias=0"])
def test_the_update_is_the_papers_while_rates_change(decays, device):
    spec = TrainSpec(weight_decay=0.01, decays=decays)
    expected = {name: p.detach().clone() for name, p in parameters().items()}
    velocity = {name: torch.zeros(5, 3, dtype=torch.float64) for name in NAMES}
    for step, of_step in enumerate(CHANGING):
        for name, grad in gradients(step).items():
            if rate := of_step[name]:
                decay = 0.0 if name.endswith("bias") and decays else spec.weight_decay
                reference_update(expected[name], velocity[name], grad, rate, decay, spec.momentum)
    for name, weight in run(spec, CHANGING, device=device).items():
        torch.testing.assert_close(weight, expected[name], atol=1e-12, rtol=1e-12)


def test_the_update_is_torchs_sgd_at_a_constant_rate():
    spec, twins = TrainSpec(weight_decay=0.01), parameters()
    sgd = torch.optim.SGD(twins.values(), lr=0.1, momentum=spec.momentum, weight_decay=spec.weight_decay)
    for step in range(50):
        for name, grad in gradients(step).items():
            twins[name].grad = grad
        sgd.step()
    for name, weight in run(spec, [rates(0.1, 0.1, 0.1, 0.1)] * 50).items():
        torch.testing.assert_close(weight, twins[name].detach(), atol=1e-12, rtol=1e-12)


def test_after_a_drop_the_papers_velocity_still_carries_the_old_rate_and_torchs_does_not():
    drop = [rates(0.1, 0.1, 0.1, 0.1)] * 5 + [rates(0.001, 0.001, 0.001, 0.001)] * 1
    paper = run(TrainSpec(optimizer="paper"), drop)["fc6.weight"]
    torchs = run(TrainSpec(optimizer="torch"), drop)["fc6.weight"]
    before = run(TrainSpec(), drop[:5])["fc6.weight"]
    assert (paper - before).norm() > 20 * (torchs - before).norm()


def test_a_rate_of_zero_freezes_weights_and_velocity():
    spec = TrainSpec(weight_decay=0.1)
    moving, frozen = rates(0.1, 0.1, 0.1, 0.1), rates(0.0, 0.0, 0.1, 0.1)
    start, end = run(spec, [moving] * 2), run(spec, [moving] * 2 + [frozen] * 3)
    assert torch.equal(start["conv1.weight"], end["conv1.weight"])
    assert torch.equal(start["conv1.bias"], end["conv1.bias"])
    assert not torch.equal(start["fc6.weight"], end["fc6.weight"])


def test_a_skipped_step_leaves_the_weights(device):
    steps = [rates(0.1, 0.1, 0.1, 0.1)] * 2
    stopped = run(TrainSpec(), steps, [False, True], device)
    before = run(TrainSpec(), steps[:1], [False], device)
    assert all(torch.equal(stopped[name], before[name]) for name in NAMES)


@pytest.mark.parametrize("part_values", [1, 4, 2**18])
def test_the_update_does_not_depend_on_how_the_parameters_are_cut(part_values, monkeypatch):
    whole = run(TrainSpec(weight_decay=0.01), CHANGING)
    monkeypatch.setattr("model.optimizer._PART_VALUES", part_values)
    cut = run(TrainSpec(weight_decay=0.01), CHANGING)
    assert all(torch.equal(whole[name], cut[name]) for name in NAMES)


def test_the_decay_of_a_layer_may_be_its_own():
    spec = TrainSpec(weight_decay=0.5, decays="*.bias=0 fc6=.25")
    assert [decay_of(spec, name) for name in NAMES] == [0.5, 0, 0.25, 0.25]


def test_a_network_that_was_moved_is_not_updated():
    mine = parameters()
    optimizer = Momentum(Flat(mine.items(), in_place=True), TrainSpec())
    for name in NAMES[:2]:
        mine[name].grad = None
    with pytest.raises(AssertionError, match="moved"):
        optimizer.update(CHANGING[0])
