"""Tables that are slow to make and quick to keep: the indexes of archives, as Arrow files that are mapped, not read.

A table is kept under the full identity of its files, so that none is taken for that of another: where they lie, how
large they are, since when.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.sources.source import fingerprint_of
from pipelines.storage import FileEntry, Folder

InTasks = Callable[[Callable, Iterable], Iterable]  # maps a function over items, in any order
WORTH_TASKS_BYTES = 10 << 30  # of archives without an index: a minute's work for one core, and hours by network
_WRITERS = 16
_VERSION = 3  # raise when the columns of a cached table change


@dataclass(frozen=True)
class Indexes:
    """Where tables are kept (nowhere, if there is no `folder`), and how many archives are indexed at a time.

    `map` will do for `in_tasks`, and is used for what is quickly done.
    """

    folder: Path | None = None
    in_tasks: InTasks = map

    def table(
        self, what: list, folder: Folder, files: Iterable[FileEntry | None], build: Callable[[], pa.Table]
    ) -> pa.Table:
        """The table that is kept for these files, else built, and kept for the next time."""
        if self.folder is None:
            return build()
        name = _name(what, folder, [file for file in files if file])
        kept = self._kept(name)
        return self._keep(name, build()) if kept is None else kept

    def tables(
        self, what: list, folder: Folder, files: Sequence[FileEntry], build: Callable[[str], pa.Table]
    ) -> list[pa.Table]:
        """The table of each file, built from its name."""
        names = {file.name: _name(what, folder, [file]) for file in files}
        tables = {file: table for file, name in names.items() if (table := self._kept(name)) is not None}
        missing = [file for file in files if file.name not in tables]
        mapped = self.mapped(sum(file.size for file in missing))
        built = mapped(partial(_built, build), [file.name for file in missing])
        with ThreadPoolExecutor(_WRITERS) as pool:  # each of which waits for the disk
            kept = {file: pool.submit(self._keep, names[file], table) for file, table in built}
        tables |= {file: table.result() for file, table in kept.items()}
        return [tables[file.name] for file in files]

    def mapped(self, num_bytes: int) -> InTasks:
        """How to map a function over parts of so many bytes."""
        return self.in_tasks if num_bytes >= WORTH_TASKS_BYTES else map

    def _kept(self, name: str) -> pa.Table | None:
        if self.folder is None or not (self.folder / name).is_file():
            return None
        return _mapped(self.folder / name)

    def _keep(self, name: str, table: pa.Table) -> pa.Table:
        if self.folder is None:
            return table
        Folder.at(self.folder).publish(name, partial(_write, table))
        return _mapped(self.folder / name)


def _name(what: list, folder: Folder, files: list[FileEntry]) -> str:
    identity = [part for file in files for part in folder.identity(file)]
    return f"index-{fingerprint_of([_VERSION, *what, *identity])[:32]}.arrow"


def _mapped(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def _built(build: Callable[[str], pa.Table], file: str) -> tuple[str, pa.Table]:
    return file, build(file)


def _write(table: pa.Table, file: Any) -> None:
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
