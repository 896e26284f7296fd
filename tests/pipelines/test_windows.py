"""Shards of a window are those that their tasks would write alone, and each block of the source is read once."""

from dataclasses import dataclass, field, replace

import builders
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.plan import plan_shards
from pipelines.shards import write_shard
from pipelines.sources.catalog import open_source
from pipelines.specs import IngestSpec
from pipelines.storage import Folder
from pipelines.windows import write_shards
from tests.memory_source import MemoryReader, jpegs, memory_source
from tests.s3_gate import gate_before


@dataclass(frozen=True)
class CountingReader(MemoryReader):
    """In blocks of 4 neighbours; `asked` has the offsets in the order of reading."""

    asked: list[int] = field(default_factory=list)

    def blocks(self, rows: pa.Table) -> np.ndarray:
        return rows["offset"].to_numpy() // 4

    def read(self, rows: pa.Table):
        self.asked.extend(rows["offset"].to_pylist())
        return super().read(rows)


def blockwise(images: list[bytes]):
    source = memory_source({"train": images})
    return replace(source, reader=CountingReader(source.reader.contents))


def contents(folder: Folder) -> dict[str, bytes]:
    return {entry.name: folder.read(entry.name) for entry in folder.files(recursive=True)}


@pytest.mark.parametrize("options", [{}, {"encoding": "raw", "format": "parquet"}])
def test_a_window_writes_what_its_tasks_write_alone(tmp_path, options):
    images = [*jpegs(20), b"no image", *jpegs(2)]
    spec = IngestSpec(source="x", size=24, rows_per_shard=5, **options)
    alone, together = Folder.at(tmp_path / "alone"), Folder.at(tmp_path / "together")
    apart = [write_shard(task) for task in plan_shards(blockwise(images), spec, alone)]
    source = blockwise(images)
    (window,) = plan_shards(source, spec, together).windows()
    assert write_shards(window) == apart
    assert sum(len(record.quarantined) for record in apart) == 1
    assert contents(together) == contents(alone)
    assert sorted(source.reader.asked) == list(range(23))  # each once


def test_shards_that_are_there_are_not_read_again(tmp_path):
    """As after a crash in the middle of a window, when Ray runs the task again, or the stage goes on."""
    source, spec = blockwise(jpegs(20)), IngestSpec(source="x", size=24, rows_per_shard=5)
    plan = plan_shards(source, spec, Folder.at(tmp_path))
    first = write_shard(plan[0])
    source.reader.asked.clear()
    assert write_shards(next(plan.windows()))[0] == first
    assert len(source.reader.asked) == 15
    (left,) = plan.windows({first.name})
    assert [task.name for task in left] == plan.names[1:]


def test_a_limit_takes_the_first_of_the_order_whatever_the_cut(tmp_path):
    source = blockwise(jpegs(40))
    spec = IngestSpec(source="x", size=24, rows_per_shard=5, limit=3)
    ((task,),) = plan_shards(source, spec, Folder.at(tmp_path)).windows()
    assert len(task.rows) == 3
    write_shards([task])
    assert len(source.reader.asked) == 3


def test_an_archive_has_another_plan_in_a_store_than_on_a_disk(tmp_path):
    """Its shards hold other rows: those of the one plan are not taken for those of the other."""
    on_disk, in_store = memory_source({"train": jpegs(20)}), blockwise(jpegs(20))
    spec = IngestSpec(source="x", size=24, rows_per_shard=5)
    plans = [plan_shards(source, spec, Folder.at(tmp_path)) for source in (on_disk, in_store)]
    assert plans[0].origin != plans[1].origin
    assert len(list(plans[0].windows())) == 4


def write_tar(folder: Folder) -> tuple[str, int]:
    files = builders.class_folders(images=60, classes=("cat", "dog", "eel"))
    files = {name: data + bytes(110_000 - len(data)) for name, data in files.items()}  # as long as ImageNet's
    folder.write("set.tar", builders.tar_bytes(files))
    return "set.tar", sum(map(len, files.values()))


def write_parquet(folder: Folder) -> tuple[str, int]:
    noise = np.random.default_rng(0)
    images = [{"bytes": builders.jpeg(i) + noise.bytes(110_000), "path": f"{i}.jpg"} for i in range(180)]
    table = pa.table({"image": images, "label": pa.array(np.arange(180) // 60)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=20)
    folder.write("train-00000-of-00001.parquet", sink.getvalue().to_pybytes())
    return "", sum(len(image["bytes"]) for image in images)


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_tar, write_parquet])
def test_a_whole_split_in_a_store_is_read_once(s3_server, s3_folder, tmp_path, write):
    """At most 1.1 times the bytes of the images, and no request for each."""
    name, num_bytes = write(Folder.at(s3_folder))
    with gate_before(s3_server) as gate:
        folder = Folder.at(s3_folder.replace(s3_server, gate.address))
        spec = IngestSpec(
            source=folder.child(name).url if name else folder.url, size=24, rows_per_shard=16, val_fraction=0
        )
        plan = plan_shards(open_source(spec, tmp_path), spec, Folder.at(tmp_path / "shards"))
        gate.reset()
        records = [record for window in plan.windows() for record in write_shards(window)]
        assert len(records) == 12
        assert sum(record.rows for record in records) == 180
        assert num_bytes <= gate.bytes_read <= 1.1 * num_bytes
        assert gate.requests < 180 / 5
        assert gate.connections <= 16
