"""Which code and which versions a result comes from."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

VERSIONS_OF = ("torch", "nvidia-dali-cuda130", "ray", "mlflow", "pyarrow", "pandas", "numpy", "simplejpeg")

OF_RESULTS = ("model", "pipelines", "workflows/compute", "workflows/stages", "workflows/training")


def versions() -> dict[str, str]:
    """Versions of Python and of what the results come from."""
    found = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def code_commit() -> str:
    """The commit of this code, `+changes` where files differ from it; `unknown` where it is no checkout of its own.

    Installed, this code may lie inside somebody else's repository, whose commits say nothing of it.
    """
    here = Path(__file__).resolve()
    try:
        top = _git("rev-parse", "--show-toplevel")
        _git("ls-files", "--error-unmatch", str(here))
        if Path(top).resolve() != here.parents[2]:
            return "unknown"
        return _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain", "-uno") else "")
    except (subprocess.CalledProcessError, OSError):
        return "unknown"


def is_alike(one: str, other: str) -> bool:
    """Whether two commits differ in nothing that trains or evaluates; False where git cannot tell."""
    if one == other:
        return True
    if any("+" in commit or commit == "unknown" for commit in (one, other)):
        return False
    try:
        _git("diff", "--quiet", one, other, "--", *(f":/{folder}" for folder in OF_RESULTS))
    except (subprocess.CalledProcessError, OSError):
        return False
    return True


def short(commit: str) -> str:
    """Its first ten digits, and `+changes` where there were any."""
    name, plus, changes = commit.partition("+")
    return name[:10] + plus + changes


def _git(*command: str) -> str:
    done = subprocess.run(
        ["git", *command], cwd=Path(__file__).resolve().parent, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
