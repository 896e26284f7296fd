"""Standard output and standard error that end nothing: their reader may be gone, or their disk full.

`alexnet run … 2>&1 | head -2` must train to its end, and a BrokenPipeError that still arrives is that of a store or a
server: a failure like any other.
"""

import io
import os
import select
import sys


class _Forgiving(io.FileIO):
    """A descriptor on which writing never fails; what was lost, but for want of a reader, is remembered."""

    lost: OSError | None = None

    def write(self, data) -> int:
        try:
            while (written := super().write(data)) is None:  # full, and made non-blocking by somebody
                select.select([], [self], [])
            return written
        except (BrokenPipeError, ConnectionResetError):
            _to_nowhere(self.fileno())  # the processes that we start fall silent with us
        except OSError as error:
            self.lost = self.lost or error
        return len(data)


def guard() -> None:
    """Makes the process's own output and errors forgiving; what a test or a notebook put there stays."""
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:  # closed by who started us: no file of ours shall land there
        os.set_inheritable(free, True)
    os.close(free)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _forgiving(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _forgiving(2, sys.stderr)


def lost_output() -> OSError | None:
    """Why some of what was printed on standard output is not there; None too where its reader had enough."""
    sys.stdout.flush()
    return getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "lost", None)


def _forgiving(descriptor: int, stream) -> io.TextIOWrapper:
    """The stream again; what its encoding has not, and bytes of file names that are no text, are escaped."""
    if stream is not None:
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Forgiving(descriptor, "w", closefd=False)),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors="backslashreplace",
        line_buffering=getattr(stream, "line_buffering", True),
        write_through=getattr(stream, "write_through", False),
    )


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
