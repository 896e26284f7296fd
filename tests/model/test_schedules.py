"""The rates of a run: as a log tells them, the four segments, and the plateau with its guards."""

from dataclasses import replace

import pytest

from model.networks import parameter_names
from model.notation import parse, value_at
from model.schedules import Phase, Schedule, light_of, phases, require_rates, starts
from model.specs import AlexNetSpec, TrainSpec

NAMES = parameter_names(AlexNetSpec())
LOG = "1:*=.01 *.bias=.02 23:*=.001 68:conv1=1e-5,light=0 72:conv1=0"


def test_a_log_counts_epochs_from_1_and_steps_from_0():
    schedule = Schedule(TrainSpec(schedule=LOG, epochs=93), 100, num_classes=1000)
    at = {step: schedule.rate(step, "conv1.weight") for step in (0, 2199, 2200, 6699, 6700, 7099, 7100, 9299)}
    assert at == {0: 0.01, 2199: 0.01, 2200: 1e-3, 6699: 1e-3, 6700: 1e-5, 7099: 1e-5, 7100: 0, 9299: 0}
    assert schedule.rate(9299, "conv2.bias") == 0.02


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 7])
def test_a_rate_that_was_looked_up_once_is_what_the_settings_say_at_every_step(steps_per_epoch):
    """In any order, since a run goes on anywhere; 2.3 lies between two steps."""
    log = "1:*=.01 *.bias=.02 conv1=.5 2.3:*=.001 conv?.weight=.003 2.3:fc8=.7 4:conv1=0,light=0 5:*.bias=.9"
    schedule = Schedule(TrainSpec(schedule=log, epochs=6), steps_per_epoch, num_classes=10)
    said = parse(log, "train.schedule")
    steps = range(schedule.num_steps)
    for step in [*steps, *reversed(steps)]:
        for name in NAMES:
            assert schedule.rate(step, name) == value_at(said, name, 1 + step / steps_per_epoch)


def test_the_light_is_for_the_loader_which_counts_epochs_from_0():
    assert light_of(TrainSpec(schedule=LOG)) == ((67, 0.0),)
    assert light_of(TrainSpec(schedule="1:*=.1 light=.2 3:light=0")) == ((0, 0.2), (2, 0.0))
    assert light_of(TrainSpec()) == ()


@pytest.mark.parametrize("epochs", [10, 6.65, 0.5])
def test_segments_are_four_of_equal_length(epochs):
    schedule = Schedule(TrainSpec(epochs=epochs), 100, 1000)
    parts = [0, 0.24, 0.26, 0.49, 0.51, 0.74, 0.76, 0.999]
    rates = [schedule.rate(int(100 * epochs * part), "fc6.bias") for part in parts]
    assert rates == pytest.approx([r for r in (0.01, 0.0015874, 0.00025198, 0.00004) for _ in range(2)], rel=1e-4)
    assert schedule.num_steps == round(100 * epochs)


def test_constant_stays():
    schedule = Schedule(TrainSpec(schedule="constant", lr=0.5), 10, 10)
    assert {schedule.rate(step, name) for step in range(10) for name in NAMES} == {0.5}


def plateau(errors: list[float], **settings) -> list[float]:
    """Rates after each epoch."""
    schedule = Schedule(TrainSpec(schedule="plateau", patience=2, **settings), 1000, num_classes=10)
    rates = []
    for error in errors:
        schedule.end_epoch(error)
        rates.append(schedule.rate(500, "fc6.weight"))
    return rates


def test_plateau_drops_when_the_error_stops_improving_three_times_and_no_more():
    rates = plateau([0.5, 0.4, 0.4, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3])
    assert rates == pytest.approx([1e-2] * 3 + [1e-3] * 3 + [1e-4] * 2 + [1e-5] * 4)


@pytest.mark.parametrize("lucky", [0.899, 0.84, 0.7])
def test_plateau_waits_out_a_flat_start_with_a_lucky_epoch_in_it(lucky):
    assert plateau([0.9, 0.9, lucky, 0.9, 0.9, 0.899, 0.9, 0.9]) == pytest.approx([1e-2] * 8)


def test_plateau_does_not_drop_before_its_first_epochs_are_over():
    errors = [0.5] * 7
    assert plateau(errors, min_epochs=5) == pytest.approx([1e-2] * 4 + [1e-3] * 2 + [1e-4])
    assert plateau(errors)[2] == pytest.approx(1e-3)


def test_plateau_counts_a_tiny_improvement_as_none():
    assert plateau([0.5, 0.4999, 0.4998], min_improvement=0.01)[-1] == pytest.approx(1e-3)
    assert plateau([0.5, 0.4999, 0.4998], min_improvement=0.0)[-1] == pytest.approx(1e-2)


def test_plateau_continues_from_its_state():
    spec = TrainSpec(schedule="plateau", patience=2, min_epochs=4)
    whole, first, second = (Schedule(spec, 100, 10) for _ in range(3))
    errors = [0.5, 0.5, 0.4, 0.4, 0.4, 0.3]
    for error in errors:
        whole.end_epoch(error)
    for error in errors[:4]:
        first.end_epoch(error)
    second.load_state(first.state())
    for error in errors[4:]:
        second.end_epoch(error)
    assert second.state() == whole.state()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule": "1:*=.01 conv9=0"}, "train.schedule: conv9 is no layer of this network; it has conv1, conv2"),
        ({"schedule": "1:conv*=.01"}, r"train.schedule: fc6.weight has no rate in epoch 1; begin with 1:\*="),
        ({"schedule": "2:*=.01"}, "train.schedule: conv1.weight has no rate in epoch 1"),
        ({"decays": "fc9=0"}, "train.decays: fc9 is no layer"),
    ],
)
def test_a_schedule_that_does_not_fit_the_network_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        require_rates(TrainSpec(**settings), NAMES)
    require_rates(TrainSpec(schedule=LOG, decays="*.bias=0"), NAMES)


def test_a_rate_beside_a_schedule_that_says_all_is_refused():
    with pytest.raises(ValueError, match=r"train.lr is 0.02, but train.schedule says the rates: change them there"):
        TrainSpec(schedule=LOG, lr=0.02)


def test_phases_are_the_table_of_a_run():
    found = phases(TrainSpec(schedule=LOG, epochs=70), NAMES)
    names = ("conv1 weights", "conv1 biases", "other weights", "other biases")
    rates = {1: (0.01, 0.02, 0.01, 0.02), 23: (0.001, 0.02, 0.001, 0.02), 68: (1e-5, 1e-5, 0.001, 0.02)}
    assert {phase.epoch: phase.rates for phase in found} == {e: dict(zip(names, rates[e], strict=True)) for e in rates}
    assert [phase.light for phase in found] == [None, None, 0]
    assert starts(TrainSpec(schedule=LOG, epochs=70)) == [1, 23, 68, 72]
    assert [phase.epoch for phase in phases(TrainSpec(epochs=10), NAMES)] == [1, 3.5, 6, 8.5]
    assert phases(TrainSpec(schedule="constant"), NAMES) == [Phase(1, {"all": 0.01}, None)]
    assert phases(replace(TrainSpec(), schedule="plateau"), NAMES) == []
