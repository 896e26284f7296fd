"""Closing what was opened: every step runs whatever the others did, and the first error is the one that is seen."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def afterwards(*steps: Callable[[], object]) -> Iterator[None]:
    """Runs all the steps after the block; errors after the first, which may be the block's own, are notes of it."""
    first: BaseException | None = None
    try:
        yield
    except BaseException as error:
        first = error
    for step in steps:
        try:
            step()
        except BaseException as error:  # a second Ctrl-C ends this step, not the others
            if first is None:
                first = error
            else:
                first.add_note(f"then, while closing: {type(error).__name__}: {error}")
    if first is not None:
        raise first
