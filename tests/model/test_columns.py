"""Two ranks with a column each are the network of one process with both; two replicas of them train as one does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.alexnet import AlexNet
from model.columns import OneColumn, place_ranks, share
from model.networks import exchanged_bytes
from model.specs import AlexNetSpec, TrainSpec
from model.step import backward
from model.trainer import Trainer
from pipelines import order
from tests.model.ranks import run_ranks

SMALL = AlexNetSpec(input_px=64, kernels=(8, 12, 8, 12, 8), fc=(12, 10), num_classes=7, middle_std=0.05)
VARIANTS = {
    "paper": {},
    "as_run": {"conv1_order": "norm_pool_relu", "spatial_norm": True, "lrn_alpha_over_n": True},
    "six_conv_bottleneck": {"conv6_kernels": 8, "bottleneck": 6},
    "separate_pooling": {"pooling": "separate", "input_px": 80},
    "no_communication": {"communication": False, "conv6_kernels": 8, "bottleneck": 6},
    "without_conv3": {"removed": "conv3"},
    "without_conv5": {"removed": "conv5"},
    "even_classes": {"num_classes": 8},
}
pytestmark = pytest.mark.slow


def batch(
    count: int, spec: AlexNetSpec = SMALL, seed: int = 0, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = 255 * torch.rand(count, 3, spec.input_px, spec.input_px, generator=generator, dtype=torch.float64)
    return pixels.to(device), torch.randint(spec.num_classes, (count,), generator=generator).to(device)


def one_step(name: str, columns=None, device: str = "cpu") -> dict:
    """Logits and gradients of a variant, of this rank's part or of the whole."""
    spec = replace(SMALL, **VARIANTS[name])
    net = AlexNet(spec, columns, seed=3).double().to(device)
    net.set_mean(np.full((90, 90, 3), 120.0))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 8  # so that no gradient is lost in rounding
    images, labels = batch(4, spec, device=device)
    before = net.columns.bytes_for["layers"]
    net.input_scale = 0.9
    net.at(step=2, first_row=2)
    sums = backward(net, images, labels, batch_size=6)
    moved = net.columns.bytes_for["layers"] - before
    grads = {key: net.columns.merge(p.grad, net.table[key.split(".")[0]].out) for key, p in net.named_parameters()}
    return {"logits": net.eval()(images).detach(), "grads": grads, "sums": sums, "bytes": moved}


def two_ranks(rank: int, world: int, device: str) -> dict:
    columns, _ = place_ranks(2, 1, rank, world)
    results = {name: one_step(name, columns, device) for name in VARIANTS}
    return {"variants": results, "shared": [shared_as_loaded(columns, size, device) for size in (4, 5, 1)]}


def shared_as_loaded(columns: OneColumn, size: int, device: str) -> bool:
    """Whether a batch, of which this rank brings what its loader cuts, is whole again; no byte moves twice."""
    whole, before = batch(size, device=device), columns.bytes_for["batches"]
    start, stop = order.share(0, size, columns.column, 2)
    shift = torch.arange(3.0 * size, device=device).view(size, 3)
    *shared, lit = columns.share_batch(*(tensor[start:stop] for tensor in (*whole, shift)), size)
    moved = columns.bytes_for["batches"] - before
    return all(map(torch.equal, (*shared, lit), (*whole, shift))) and moved == sum(t.nbytes for t in (*whole, shift))


@pytest.fixture(scope="module")
def of_two_ranks(device) -> list[dict]:
    return run_ranks(two_ranks, 2, device)


@pytest.mark.parametrize("name", VARIANTS)
def test_two_ranks_equal_one_process_in_output_and_every_gradient(name, of_two_ranks):
    alone = one_step(name)
    for rank in (0, 1):
        together = of_two_ranks[rank]["variants"][name]
        torch.testing.assert_close(together["logits"], alone["logits"], atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(together["sums"], alone["sums"], atol=1e-10, rtol=1e-10)
        assert together["grads"].keys() == alone["grads"].keys()
        for key, grad in alone["grads"].items():
            assert grad.abs().max() > 1e-6
            torch.testing.assert_close(together["grads"][key], grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_bytes_exchanged_are_those_counted_on_paper(name, of_two_ranks):
    expected = 4 * 2 * exchanged_bytes(replace(SMALL, **VARIANTS[name]))  # 4 images, of float64
    assert [result["variants"][name]["bytes"] for result in of_two_ranks] == [expected, expected]


def test_two_ranks_share_whole_odd_and_one_row_batches_cut_as_the_loader_cuts_them(of_two_ranks):
    assert [result["shared"] for result in of_two_ranks] == [[True] * 3] * 2


@pytest.mark.parametrize("total", [1, 2, 7, 21_843])
def test_the_columns_shares_cover_everything_once(total):
    rows = list(range(total))
    assert rows[share(total, 0, 2)] + rows[share(total, 1, 2)] == rows
    assert len(rows[share(total, 0, 2)]) - len(rows[share(total, 1, 2)]) in (0, 1)


BATCH_SIZES = (6, 5, 1)  # whole, odd, and too short for the second replica


def trainer(columns=None, replicas=None, dtype=torch.float64, device="cpu") -> Trainer:
    torch.set_default_dtype(dtype)
    try:
        mean = np.full((64, 64, 3), 120.0)
        spec = TrainSpec(epochs=2, seed=3)
        return Trainer(SMALL, spec, mean, 3, columns=columns, replicas=replicas, device=device)
    finally:
        torch.set_default_dtype(torch.float32)


def train(made: Trainer, steps: range) -> None:
    """Each replica takes its slice of the global batches."""
    for step in steps:
        images, labels = batch(BATCH_SIZES[step % 3], seed=step, device=made.net.fc6.weight.device)
        mine = share(len(images), made.replicas.index, made.replicas.count)
        made.train_step(images[mine], labels[mine], batch_size=len(images), first_row=mine.start)


def four_ranks(rank: int, world: int, device: str) -> dict:
    columns, replicas = place_ranks(2, 1, rank, world)
    made = trainer(columns, replicas, device=device)
    train(made, range(3))
    metrics, (tensors, scalars) = made.metrics(), made.state_dict()
    train(made, range(3, 6))
    again = trainer(columns, replicas, device=device)
    again.load_state_dict(tensors, scalars)
    train(again, range(3, 6))
    errors = made.evaluate([batch(3, seed=10 + replicas.index, device=device)])
    return {
        "metrics": metrics,
        "weights": made.weights(),
        "resumed": again.weights(),
        "errors": errors,
        "place": (columns.column, replicas.index),
    }


@pytest.fixture(scope="module")
def of_four_ranks(device) -> list[dict]:
    return run_ranks(four_ranks, 4, device)


def test_two_replicas_of_two_columns_train_as_one_process_does(of_four_ranks):
    alone = trainer()
    train(alone, range(3))
    metrics = alone.metrics()
    train(alone, range(3, 6))
    for result in of_four_ranks:
        assert result["metrics"] == pytest.approx(metrics, abs=1e-10)
        for name, weight in alone.weights().items():
            torch.testing.assert_close(result["weights"][name], weight, atol=1e-10, rtol=1e-10)
    assert [result["place"] for result in of_four_ranks] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_all_replicas_hold_the_same_bits_and_resume_to_them(of_four_ranks):
    for result in of_four_ranks:
        for name, weight in of_four_ranks[0]["weights"].items():
            assert torch.equal(result["weights"][name], weight)
            assert torch.equal(result["resumed"][name], weight)


def test_replicas_evaluate_the_sum_of_their_shares(of_four_ranks):
    alone = trainer()
    train(alone, range(6))
    top = alone.evaluate([batch(3, seed=10), batch(3, seed=11)])
    assert all(result["errors"] == top for result in of_four_ranks)


def three_ranks(rank: int, world: int, device: str) -> dict:
    """Three whole networks in float32: one that goes on, and one that begins where a checkpoint of it ends."""
    columns, replicas = place_ranks(2, 2, rank, world)
    made, again = (trainer(columns, replicas, torch.float32, device) for _ in range(2))
    train(made, range(3))
    again.load_state_dict(*made.state_dict())
    train(made, range(3, 6))
    train(again, range(3, 6))
    return {"weights": made.weights(), "resumed": again.weights(), "metrics": (made.metrics(), again.metrics())}


def test_a_gradient_of_three_replicas_does_not_depend_on_the_steps_before_it(device):
    alone = trainer(dtype=torch.float32)
    train(alone, range(6))
    for result in run_ranks(three_ranks, 3, device):
        assert result["metrics"][0] == result["metrics"][1]
        for name, weight in alone.weights().items():
            assert torch.equal(result["weights"][name], result["resumed"][name])
            torch.testing.assert_close(result["weights"][name], weight, atol=1e-5, rtol=1e-4)


def test_both_columns_in_one_process_exchange_nothing():
    place, replicas = place_ranks(2, 2, 0, 1)
    assert not isinstance(place, OneColumn)
    assert replicas.count == 1
    assert one_step("paper", place)["bytes"] == 0
