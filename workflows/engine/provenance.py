"""Which code and which versions a result comes from."""

import hashlib
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

VERSIONS_OF = ("torch", "nvidia-dali-cuda130", "ray", "mlflow", "pyarrow", "pandas", "numpy", "simplejpeg")

OF_RESULTS = ("model", "pipelines", "workflows/compute", "workflows/stages", "workflows/training")
OF_DATA = "pipelines/sources"  # and not of results: what it makes has a manifest with a digest


class Code(NamedTuple):
    """Which code made something: the commit, and the digest of what trains and evaluates, where it is known."""

    commit: str
    digest: str = ""

    def __str__(self) -> str:
        """The commit in short; where files differed from it, the digest tells these from others."""
        name, plus, changes = self.commit.partition("+")
        told = f" {self.digest[:8]}" if self.digest and (plus or name == "unknown") else ""
        return name[:10] + plus + changes + told


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


@cache
def code_digest() -> str:
    """Of the files here that train and evaluate: checked in or not, installed or not."""
    root = Path(__file__).resolve().parents[2]
    files = sorted(path for folder in OF_RESULTS for path in (root / folder).rglob("*.py"))
    parts = (
        f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for path in files
        if root / OF_DATA not in path.parents
    )
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def is_alike(one: Code, other: Code) -> bool:
    """Whether two codes differ in nothing that trains or evaluates; without digests, as far as git can tell."""
    if one.digest and other.digest:
        return one.digest == other.digest
    if one.commit == other.commit:
        return True
    if any("+" in code.commit or code.commit == "unknown" for code in (one, other)):
        return False
    try:
        where = (*(f":/{folder}" for folder in OF_RESULTS), f":(top,exclude){OF_DATA}")
        _git("diff", "--quiet", one.commit, other.commit, "--", *where)
    except (subprocess.CalledProcessError, OSError):
        return False
    return True


def _git(*command: str) -> str:
    done = subprocess.run(
        ["git", *command], cwd=Path(__file__).resolve().parent, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
