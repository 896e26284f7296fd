"""Why a training worker failed: of its own, which ends the run, or of another's death, which a new start mends."""

import re

# What the workers that are left say of a peer that is gone: gloo, NCCL, and the store at which they meet.
_ECHOES = re.compile(
    r"gloo/transport/.*(connection|closed|timed? ?out|broken pipe|read error|write error)"
    r"|nccl.*(remote error|remote process exited|network error|connection|watchdog|abort|timed? ?out)"
    r"|(tcpstore|client socket).*(connect|broken pipe|reset|closed|timed? ?out)",
    re.IGNORECASE | re.DOTALL,
)


class PeerGone(Exception):
    """A worker's collective failed because another worker is gone: the echo of a death, never its cause."""


class Died(Exception):
    """Workers, or the nodes that they were on, are gone: who, in a few words."""


def is_echo(error: Exception) -> bool:
    """Whether the error of a collective tells of a peer that is gone, and not of what this worker did."""
    return isinstance(error, RuntimeError) and "enforce fail" not in str(error) and bool(_ECHOES.search(str(error)))


def who_died(failures: dict[int, Exception]) -> str:
    """The workers that are gone, of the failures by rank; those that only heard of it where nobody else is known."""
    dead = sorted(rank for rank, error in failures.items() if not isinstance(error, PeerGone))
    if not dead:
        return "a worker"
    return f"worker {dead[0]}" if len(dead) == 1 else "workers " + ", ".join(map(str, dead))
