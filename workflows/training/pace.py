"""When a checkpoint is due: every so many steps, or every so many seconds, at the same step on all workers."""

import math
import time
from collections.abc import Callable

from model.specs import TrainSpec


class Pace:
    """Seconds become steps, by the rate since the last checkpoint, so that workers need not ask each other every step.

    Args:
        of_first: Makes a number of the first worker's known to all; every worker calls it at the same steps.
    """

    def __init__(
        self, spec: TrainSpec, step: int, of_first: Callable[[int], int], clock: Callable[[], float] = time.monotonic
    ):
        self._spec, self._of_first, self._clock = spec, of_first, clock
        self._look_at = step + 1
        self.begin(step)

    def begin(self, step: int) -> None:
        """A checkpoint was written at this step."""
        self._step, self._time = step, self._clock()

    def is_due(self, step: int) -> bool:
        """Whether to write one after this step, the last that was made."""
        steps, seconds = self._spec.checkpoint_every_steps, self._spec.checkpoint_every_s
        if steps and step % steps == 0:
            return True
        if not seconds or step < self._look_at:
            return False
        passed = self._clock() - self._time
        left = self._of_first(math.ceil((seconds - passed) * (step - self._step) / max(passed, 1e-9)))
        self._look_at = step + max(1, left)
        return left <= 0
