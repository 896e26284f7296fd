"""Tables that are slow to make and quick to keep: the indexes of archives, as Arrow files that are mapped, not read."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from pipelines.sources.source import fingerprint_of
from pipelines.storage import Folder

_VERSION = 2  # raise when the columns of a cached table change


def cached_table(cache: Path | None, identity: list, build: Callable[[], pa.Table]) -> pa.Table:
    """The table kept under this identity in the folder `cache`, else built, and kept for the next time."""
    if cache is None:
        return build()
    folder, name = Folder.at(cache), f"index-{fingerprint_of([_VERSION, *identity])[:32]}.arrow"
    if folder.size(name) is None:
        table = build()
        folder.publish(name, lambda file: _write(table, file))
    with pa.memory_map(str(folder.local_path() / name)) as file:
        return pa.ipc.open_file(file).read_all()


def _write(table: pa.Table, file) -> None:
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
