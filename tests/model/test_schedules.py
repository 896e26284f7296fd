"""The rates of a run: the 2012 log's epochs, the four segments, and the plateau with its guard."""

import pytest

from model.schedules import Rates, Schedule
from model.specs import TrainSpec

EPOCHS = 93  # of the run behind the paper's Table 1


def at_epochs(spec: TrainSpec, epochs: list[float]) -> list[Rates]:
    schedule = Schedule(spec, EPOCHS * 100, num_classes=1000)
    return [schedule.rates(round(100 * epoch)) for epoch in epochs]


def test_manual_is_the_run_of_table_1():
    """Its changes came at epochs 23, 51, 68, 72 and 78, counted from 1."""
    spec = TrainSpec(schedule="manual", biases="as_run", conv1_late="frozen")
    weights = [rates.weights for rates in at_epochs(spec, [0, 21.99, 22, 49.99, 50, 76.99, 77, 92])]
    assert weights == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    conv1 = [rates.conv1_weights for rates in at_epochs(spec, [49.99, 66.99, 67, 70.99, 71, 92])]
    assert conv1 == pytest.approx([1e-3, 1e-4, 1e-5, 1e-5, 0, 0])
    biases = [rates.biases for rates in at_epochs(spec, [0, 21.99, 22, 92])]
    assert biases == pytest.approx([0.02, 0.02, 0.002, 0.002])
    conv1_biases = [rates.conv1_biases for rates in at_epochs(spec, [66.99, 67, 71])]
    assert conv1_biases == pytest.approx([0.002, 1e-5, 0])


def test_segments_are_four_of_equal_length():
    quarters = [0, 0.24, 0.26, 0.49, 0.51, 0.74, 0.76, 0.999]
    schedule = Schedule(TrainSpec(biases="as_run"), 1000, 1000)
    weights = [schedule.rates(int(1000 * part)).weights for part in quarters]
    steps = [0.01, 0.0015874, 0.00025198, 0.00004]
    assert weights == pytest.approx([rate for rate in steps for _ in range(2)], rel=1e-4)
    biases = [schedule.rates(int(1000 * part)).biases for part in quarters]
    assert biases == pytest.approx([0.02] * 4 + [0.002] * 4)


def test_the_papers_biases_follow_the_weights():
    schedule = Schedule(TrainSpec(), 100, 10)
    assert all(rates.biases == rates.weights for rates in map(schedule.rates, range(100)))


def test_constant_stays():
    schedule = Schedule(TrainSpec(schedule="constant", lr=0.5), 10, 10)
    assert {schedule.rates(step) for step in range(10)} == {Rates(0.5, 0.5, 0.5, 0.5)}


def plateau(errors: list[float], **settings) -> list[float]:
    """Rates of the weights after each epoch."""
    schedule = Schedule(TrainSpec(schedule="plateau", patience=2, **settings), 1000, num_classes=10)
    rates = []
    for error in errors:
        schedule.end_epoch(error)
        rates.append(schedule.rates(500).weights)
    return rates


def test_plateau_drops_when_the_error_stops_improving_three_times_and_no_more():
    rates = plateau([0.5, 0.4, 0.4, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3])
    assert rates == pytest.approx([1e-2] * 3 + [1e-3] * 3 + [1e-4] * 2 + [1e-5] * 4)


def test_plateau_waits_out_a_flat_start():
    assert plateau([0.9, 0.9, 0.9, 0.9, 0.9, 0.899, 0.9]) == pytest.approx([1e-2] * 7)


def test_plateau_counts_a_tiny_improvement_as_none():
    assert plateau([0.5, 0.4999, 0.4998], min_improvement=0.01)[-1] == pytest.approx(1e-3)
    assert plateau([0.5, 0.4999, 0.4998], min_improvement=0.0)[-1] == pytest.approx(1e-2)


def test_plateau_continues_from_its_state():
    spec = TrainSpec(schedule="plateau", patience=2)
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
