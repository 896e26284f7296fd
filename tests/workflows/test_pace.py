"""When checkpoints are due: by steps, and by the clock without a clock that every worker would have to read."""

from model.specs import TrainSpec
from workflows.training.pace import Pace


class Clock:
    """Seconds that pass as the steps of a training do."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def written_at(spec: TrainSpec, steps: int, seconds_of_step, of_first=lambda number: number) -> list[float]:
    """The seconds at which checkpoints are written."""
    clock = Clock()
    pace, found = Pace(spec, 0, of_first, clock), []
    for step in range(1, steps + 1):
        clock.now += seconds_of_step(step)
        if pace.is_due(step):
            pace.begin(step)
            found.append(clock.now - 100)
    return found


def test_every_so_many_steps():
    assert written_at(TrainSpec(checkpoint_every_steps=30), 100, lambda step: 1) == [30, 60, 90]
    assert written_at(TrainSpec(checkpoint_every_steps=0), 100, lambda step: 1) == []


def test_every_so_many_seconds_whatever_a_step_takes():
    spec = TrainSpec(checkpoint_every_steps=0, checkpoint_every_s=10)
    for seconds in (0.01, 0.3, 4.0, 25.0):
        found = written_at(spec, 3000, lambda step, seconds=seconds: seconds)
        apart = [later - earlier for earlier, later in zip([0, *found], found, strict=False)]
        assert all(10 - 1e-6 <= gap <= 10 + 1.5 * seconds for gap in apart[:-1]), (seconds, apart)


def test_a_slow_beginning_delays_none_and_a_pause_only_the_one_after_it():
    spec = TrainSpec(checkpoint_every_steps=0, checkpoint_every_s=10)
    found = written_at(spec, 4000, lambda step: 8.0 if step in (1, 2000) else 0.01)
    assert [round(seconds) for seconds in found] == [10, 20, 38, 48]


def test_all_workers_take_the_first_ones_word_and_ask_for_it_seldom():
    asked = []
    spec = TrainSpec(checkpoint_every_steps=0, checkpoint_every_s=10)
    first = written_at(spec, 3000, lambda step: 0.01, lambda number: asked.append(number) or number)
    words = iter(asked)
    slower = written_at(spec, 3000, lambda step: 0.02, lambda number: next(words))
    assert [round(seconds / 0.01) for seconds in first] == [round(seconds / 0.02) for seconds in slower]
    assert len(asked) < 30
