"""The trainer: it learns, resumes to the same bits, moves between placements, stops before a bad update, warns."""

import math

import numpy as np
import pytest
import torch

from model import checkpoint
from model.columns import place_ranks
from model.specs import AlexNetSpec, TrainSpec
from model.step import backward, evaluate, predict
from model.trainer import NonFiniteLoss, Trainer
from tests.model.ranks import run_ranks

SPEC = AlexNetSpec(
    input_px=24, conv1_kernel=5, conv1_stride=1, kernels=(8, 16, 16, 16, 8), fc=(32, 32), num_classes=3,
    middle_std=0.03, initial="scaled",
)  # fmt: skip
STEPS_PER_EPOCH, EPOCHS = 5, 4


def trainer(columns=None, device="cpu", **settings) -> Trainer:
    spec = TrainSpec(**({"epochs": EPOCHS, "schedule": "plateau", "patience": 1} | settings))
    return Trainer(SPEC, spec, np.full((24, 24, 3), 110.0), STEPS_PER_EPOCH, columns=columns, device=device)


def batch(step: int, count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose mean colour says the class, so that there is something to learn."""
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(3, (count,), generator=generator)
    images = 200 * torch.rand(count, 3, 24, 24, generator=generator)
    images[torch.arange(count), labels] += 55
    return images, labels


def train(made: Trainer, steps: range) -> None:
    for step in steps:
        made.net.input_scale = 1 / 1.1
        made.train_step(*batch(step))
        if (step + 1) % STEPS_PER_EPOCH == 0:
            made.end_epoch(0.5)  # never improves: the plateau drops


def same(first: Trainer, second: Trainer) -> bool:
    (a, scalars), (b, others) = first.state_dict(), second.state_dict()
    return scalars == others and a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns(device):
    made = trainer(device=device, epochs=100, schedule="constant")
    for step in range(80):
        made.train_step(*batch(step, 32))
    assert made.metrics()["loss"] < math.log(3)
    assert made.evaluate([batch(1000, 100)]).top1_error < 0.1


@pytest.mark.parametrize("stop", [1, 7, 10, 13, 19])
def test_resuming_gives_the_same_bits_as_going_on(stop, tmp_path, device):
    whole, before = trainer(device=device), trainer(device=device)
    train(whole, range(20))
    train(before, range(stop))
    checkpoint.save(tmp_path, before.step, *before.state_dict())
    after = trainer(device=device)
    found = checkpoint.newest_complete(tmp_path)
    after.load_state_dict(found.tensors, found.scalars)
    train(after, range(after.step, 20))
    assert same(after, whole)
    assert whole.lr == pytest.approx(1e-5)  # the schedule's state went along


def test_a_state_does_not_change_when_training_goes_on(device):
    made = trainer(device=device)
    train(made, range(2))
    tensors, _ = made.state_dict()
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    train(made, range(2, 4))
    assert all(torch.equal(tensors[name], kept[name]) for name in kept)


def from_state(path: str, columns=None, device: str = "cpu") -> tuple[float, dict]:
    """The next step's loss, and the state after it."""
    made = trainer(columns, device)
    found = checkpoint.load(path)
    made.load_state_dict(found.tensors, found.scalars)
    made.metrics()
    train(made, range(made.step, made.step + 1))
    return made.metrics()["loss"], made.state_dict()


def save_and_continue(rank: int, world: int, device: str) -> dict:
    """Two columns: continue from what one process saved, and save for it."""
    import os
    from pathlib import Path

    columns, _ = place_ranks(2, 1, rank, world)
    root = Path(os.environ["CHECKPOINTS_OF_TEST"])
    loss, _ = from_state(root / "one" / "step-00000007", columns, device)
    made = trainer(columns, device)
    train(made, range(7))
    state = made.state_dict()
    if rank == 0:
        checkpoint.save(root / "two", made.step, *state)
    made.metrics()
    train(made, range(7, 8))
    return {"loss_from_one": loss, "next_loss": made.metrics()["loss"]}


@pytest.mark.slow
def test_a_checkpoint_moves_between_placements_with_the_same_next_loss(tmp_path, monkeypatch, device):
    alone = trainer(device=device)
    train(alone, range(7))
    checkpoint.save(tmp_path / "one", 7, *alone.state_dict())
    alone.metrics()
    train(alone, range(7, 8))
    next_loss = alone.metrics()["loss"]
    monkeypatch.setenv("CHECKPOINTS_OF_TEST", str(tmp_path))
    ranks = run_ranks(save_and_continue, 2, device)
    loss_from_two, _ = from_state(tmp_path / "two" / "step-00000007", device=device)
    for rank in ranks:
        assert rank["loss_from_one"] == pytest.approx(next_loss, rel=1e-5)  # float32, other order of additions
        assert loss_from_two == pytest.approx(rank["next_loss"], rel=1e-5)


def test_a_loss_that_is_no_number_stops_before_the_update():
    made = trainer()
    train(made, range(6))
    before = made.weights()
    images, labels = batch(6)
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteLoss, match=r"step 6 \(epoch 1, batch 1\).*train\.lr"):
        made.train_step(images, labels)
    assert all(torch.equal(weight, before[name]) for name, weight in made.weights().items())
    with pytest.raises(NonFiniteLoss):
        made.state_dict()


def test_a_gpu_is_not_waited_for_and_keeps_the_weights_from_before_a_loss_that_is_no_number(device):
    made = trainer(device=device)
    train(made, range(2))
    before = made.weights()
    images, labels = batch(2)
    images[0, 0, 0, 0] = float("nan")
    if device == "cpu":  # which stops at once
        with pytest.raises(NonFiniteLoss, match="step 2 "):
            made.train_step(images, labels)
    else:
        made.train_step(images, labels)
        made.train_step(*batch(3))
    with pytest.raises(NonFiniteLoss, match="step 2 "):
        made.metrics()
    assert all(torch.equal(weight, before[name]) for name, weight in made.weights().items())


def test_a_frozen_layer_and_those_below_it_ask_for_no_gradients(device):
    """Until the schedule wakes them; all others go on as if nothing had been left out."""
    schedule = "1:*=.01 2:conv1=0,conv2=0 3:conv1=.01,conv2=.01"
    made, asked = trainer(device=device, schedule=schedule), []
    made.net.conv2.register_forward_hook(lambda conv2, inputs, maps: asked.append(maps.requires_grad))
    train(made, range(15))
    assert asked == [True] * 5 + [False] * 5 + [True] * 5
    twin = trainer(device=device, schedule=schedule)
    for step in range(15):
        for parameter in twin.net.parameters():
            parameter.requires_grad_ = lambda wanted, parameter=parameter: parameter  # all ask for theirs
        train(twin, range(step, step + 1))
    for name, weight in made.weights().items():
        torch.testing.assert_close(weight, twin.weights()[name], rtol=1e-6, atol=1e-7)


def test_a_step_makes_the_same_update_where_all_layers_are_frozen(device):
    made = trainer(device=device, schedule="1:*=0")
    before = made.weights()
    train(made, range(2))
    assert made.step == 2
    assert made.metrics()["loss"] > 0
    assert all(torch.equal(weight, before[name]) for name, weight in made.weights().items())


def test_metrics_are_means_since_last_asked():
    made = trainer()
    images, labels = batch(0)
    loss, wrong, count = backward(made.net.train(), images, labels).tolist()
    made.flat.clear_gradients()
    made.train_step(images, labels)
    assert made.metrics() == {"loss": loss / count, "top1_error": wrong / count, "lr": 0.01}
    made.train_step(*batch(1))
    assert made.metrics()["loss"] != loss / count


def test_metrics_after_a_resume_are_of_all_steps_since_last_asked(device):
    whole, after = trainer(device=device), trainer(device=device)
    train(whole, range(3))
    after.load_state_dict(*whole.state_dict())
    for made in (whole, after):
        train(made, range(3, 5))
    assert after.metrics() == whole.metrics()


def test_a_step_in_bf16_goes_where_one_in_float32_does(device):
    exact, rounded = trainer(device=device), trainer(device=device, precision="bf16")
    before = exact.weights()["fc8.weight"]
    for made in (exact, rounded):
        train(made, range(1))
    moved = [made.weights()["fc8.weight"] - before for made in (exact, rounded)]
    assert rounded.net.fc8.weight.dtype == torch.float32
    assert not torch.equal(*moved)
    assert torch.nn.functional.cosine_similarity(*(move.flatten() for move in moved), dim=0) > 0.999
    assert rounded.metrics()["loss"] == pytest.approx(exact.metrics()["loss"], rel=0.01)


def test_auto_is_float32_on_a_cpu_and_what_began_in_another_precision_is_refused():
    made = trainer(precision="auto")
    tensors, scalars = made.state_dict()
    assert made.precision == scalars["precision"] == "float32"
    with pytest.raises(ValueError, match="computed in bf16, and train.precision=auto is float32 here: go on where"):
        made.load_state_dict(tensors, scalars | {"precision": "bf16"})


def test_the_softmax_is_in_float32_whatever_the_logits_are_in():
    net, (images, labels) = trainer().net.train(), batch(0)
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(images).detach()
    net.at(step=0)
    loss, *_ = backward(net, images, labels, precision="bf16").tolist()
    assert logits.dtype == torch.bfloat16
    assert loss == torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum").item()
    probabilities = predict(net.eval(), images, "bf16")
    assert probabilities.dtype == torch.float32
    assert (probabilities.sum(1) - 1).abs().max() < 1e-6


def test_a_short_batch_has_the_mean_gradient_of_its_true_size(device):
    made = trainer(device=device)
    images, labels = (tensor.to(device) for tensor in batch(0, 4))
    backward(made.net.train(), images, labels)
    whole = made.net.fc6.weight.grad.clone()
    made.flat.clear_gradients()
    for row in range(4):
        made.net.at(step=0, first_row=row)
        backward(made.net, images[row : row + 1], labels[row : row + 1], batch_size=4)
    torch.testing.assert_close(made.net.fc6.weight.grad, whole)


def test_a_stalled_loss_is_told_with_what_to_try():
    made = trainer(stall_steps=3)
    train(made, range(2))
    assert made.stalled(math.log(3)) is None
    train(made, range(2, 3))
    assert "after 3 steps the loss is 1.099" in made.stalled(math.log(3))
    assert "net.middle_std" in made.stalled(math.log(3))
    assert made.stalled(0.9) is None


def test_ten_views_average_probabilities(device):
    net = trainer(device=device).net.eval()
    for parameter in net.parameters():
        parameter.data *= 2
    views = torch.stack([batch(seed, 6)[0] for seed in range(10)], dim=1).to(device)
    expected = torch.stack([net(views[:, view]).softmax(1) for view in range(10)]).mean(0)
    torch.testing.assert_close(predict(net, views), expected)
    logits = torch.stack([net(views[:, view]) for view in range(10)]).mean(0).softmax(1)
    assert (logits - expected).abs().max() > 1e-4


def test_evaluation_leaves_the_mode_and_the_weights(device):
    made = trainer(device=device)
    made.net.train()
    before = made.weights()
    top = evaluate(made.net, [batch(0, 5), batch(1, 3)])
    assert made.net.training
    assert top.num_images == 8
    assert all(torch.equal(weight, before[name]) for name, weight in made.weights().items())
