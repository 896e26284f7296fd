"""Shards that read the same blocks of a source, written together: each block is read once.

Their rows are read in the order of the source, and wait, prepared, in a file without a name until their shard is
written; so a task needs little memory, and in the temporary folder (TMPDIR) the room of its window's shards.
"""

import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipelines.plan import ShardTask
from pipelines.shard_record import WrittenShard
from pipelines.shards import Prepared, finished_shard, prepare, write_shard
from pipelines.storage import writing


def write_shards(tasks: Sequence[ShardTask]) -> list[WrittenShard]:
    """Write the shards of one window, as far as they are not there already."""
    left = [task for task in tasks if not finished_shard(task.folder, task.name, task.origin)]
    if len(left) < 2:
        return [write_shard(task) for task in tasks]
    with _prepared(left) as waiting:
        return [write_shard(task, waiting.rows(task)) for task in tasks]


@contextmanager
def _prepared(tasks: Sequence[ShardTask]) -> Iterator["_Waiting"]:
    """All rows of these tasks, read in the order of the source."""
    import pyarrow as pa

    rows = pa.concat_tables([task.rows for task in tasks]).unify_dictionaries()
    ids = (id for task in tasks for id in range(task.first_id, task.first_id + len(task.rows)))
    with tempfile.TemporaryFile() as file:
        waiting = _Waiting(file)
        for prepared in prepare(rows, ids, tasks[0]):
            waiting.add(prepared)
        yield waiting


class _Waiting:
    """Prepared rows by their id, in a file."""

    def __init__(self, file):
        self._file = file
        self._places: dict[int, tuple[int, int]] = {}

    def add(self, prepared: Prepared) -> None:
        data = pickle.dumps(prepared)
        self._places[prepared.row.id] = self._file.tell(), len(data)
        with writing(tempfile.gettempdir()):
            self._file.write(data)

    def rows(self, task: ShardTask) -> Iterator[Prepared]:
        """Those of one shard."""
        self._file.flush()
        for id in range(task.first_id, task.first_id + len(task.rows)):
            offset, size = self._places[id]
            yield pickle.loads(os.pread(self._file.fileno(), size, offset))
