"""Every closing step runs, and the first error is the one that is seen."""

import pytest

from workflows.tracking.ending import afterwards


def failing(error, ran):
    def step():
        ran.append(type(error))
        raise error

    return step


def test_all_steps_run_and_the_first_error_is_raised():
    ran = []
    steps = [failing(error, ran) for error in (OSError("one"), ValueError("two"), KeyboardInterrupt())]
    with pytest.raises(OSError, match="one") as seen, afterwards(*steps):
        pass
    assert ran == [OSError, ValueError, KeyboardInterrupt]
    assert seen.value.__notes__ == ["then, while closing: ValueError: two", "then, while closing: KeyboardInterrupt: "]


def test_the_block_s_own_error_comes_first():
    ran = []
    with pytest.raises(KeyError) as seen, afterwards(failing(OSError("closing"), ran), lambda: ran.append("last")):
        raise KeyError("own")
    assert ran == [OSError, "last"]
    assert seen.value.__notes__ == ["then, while closing: OSError: closing"]


def test_without_errors_nothing_is_raised():
    ran = []
    with afterwards(lambda: ran.append("one")):
        ran.append("block")
    assert ran == ["block", "one"]
