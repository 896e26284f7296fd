"""MLflow's own database under a root: its address, and artifacts that are found wherever the root is mounted now.

MLflow keeps the absolute address of every artifact; they are rewritten when the root is elsewhere than they say.
"""

import contextlib
import fcntl
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"  # in the root
LOCK = ".mlflow.lock"
BUSY_S = 20.0  # as long as MLflow itself waits for another process's transaction
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_OURS = re.compile(rf"(file://.*/{ARTIFACTS})(/\d+)?")  # with a number: experiments that the MLflow server made


def url(root: Path) -> str:
    """The database as SQLAlchemy takes it, which decodes `%` and splits at `?`."""
    return "sqlite:///" + str(root / DATABASE).replace("%", "%25").replace("?", "%3F")


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """One process at a time: two that make the same database at once destroy it."""
    with (root / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def strays_removed(root: Path) -> Iterator[None]:
    """MLflow makes the folder that the escaped address of a database would be in, were it not escaped."""
    folder = Path(url(root).removeprefix("sqlite:///")).parent
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in missing if folder != root else ():
            with contextlib.suppress(OSError):
                path.rmdir()


def follow(root: Path, copy: Path | None = None) -> None:
    """What lay under the root when it was elsewhere lies under the root of today: in the database, or in a copy."""
    database, here = copy or root / DATABASE, (root / ARTIFACTS).as_uri()
    if not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection, connection:
        known = {table for (table,) in connection.execute("select name from sqlite_master")}
        for old in _elsewhere(connection, here) if "experiments" in known else ():
            for table, column in ADDRESSES:
                if table in known:
                    connection.execute(
                        f"update {table} set {column} = ? || substr({column}, ?) "
                        f"where {column} = ? or substr({column}, 1, ?) = ?",
                        (here, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )


def _elsewhere(connection: sqlite3.Connection, here: str) -> set[str]:
    places = [place for (place,) in connection.execute("select artifact_location from experiments") if place]
    return {found[1] for place in places if (found := _OURS.fullmatch(place))} - {here}


@contextlib.contextmanager
def to_look_at(root: Path) -> Iterator[Path]:
    """The folder of a database whose addresses are right: the root, or for a root that cannot be written a copy's."""
    if _can_write(root):
        with locked(root):
            follow(root)
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="alexnet-ui-") as scratch:
        copy = Path(scratch) / DATABASE
        uri = f"{(root / DATABASE).as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        follow(root, copy)
        yield Path(scratch)


def _can_write(root: Path) -> bool:
    return os.access(root, os.W_OK) and os.access(root / DATABASE, os.W_OK)


def experiment_id(database: Path, name: str) -> str | None:
    """The experiment's number; None where there is none yet, or none with its view of the runs."""
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
        try:
            found = connection.execute(
                "select experiment_id from experiments join experiment_tags using (experiment_id) "
                "where name = ? and key like 'mlflow.sharedViewState.%'",
                (name,),
            ).fetchone()
        except sqlite3.OperationalError:  # no tables yet
            return None
    return str(found[0]) if found else None
