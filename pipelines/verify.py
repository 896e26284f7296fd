"""Whether an output is as its manifest says: every shard read again, its index, and the list of what was set aside."""

from collections.abc import Callable, Iterable
from functools import partial

from pipelines.manifest import MANIFEST, Manifest
from pipelines.quarantine import QUARANTINE, verify_quarantine
from pipelines.shard_record import REDO, WrittenShard, pack_label_counts
from pipelines.shard_table import read_written
from pipelines.shards import check_bytes, codec_of, read_bytes
from pipelines.storage import Folder


def verify(folder: Folder) -> list[str]:
    """Read everything again and compare it with the manifest; one line for each problem."""
    return [problem for problems in problems_by_file(folder).values() for problem in problems]


def problems_by_file(folder: Folder, each: Callable[[Callable, Iterable], Iterable] = map) -> dict[str, list[str]]:
    """The same by the shard or other file that has them; files without problems are left out.

    `each` maps a function over the shards, in any order.
    """
    try:
        manifest, shards = Manifest.load(folder), read_written(folder)
    except ValueError as error:
        return {MANIFEST: [str(error)]}
    found = dict(each(partial(_named_problems, folder), shards))
    found = {shard.name: found[shard.name] for shard in shards}
    found[QUARANTINE] = verify_quarantine(folder, manifest.records())
    return {name: problems for name, problems in found.items() if problems}


def _named_problems(folder: Folder, shard: WrittenShard) -> tuple[str, list[str]]:
    return shard.name, verify_shard(folder, shard)


def verify_shard(folder: Folder, record: WrittenShard) -> list[str]:
    """The problems of one shard and of its index."""
    where, codec = folder.where(record.name), codec_of(record.name)
    try:
        data = read_bytes(folder, record.name)
        check_bytes(data, folder, record)
        rows = codec.read(data)
    except (ValueError, OSError) as error:
        return [str(error)]
    problems = []
    quarantined = {entry.id for entry in record.quarantined}
    listed = range(record.first_id, record.first_id + record.listed)
    if rows.ids.tolist() != [id for id in listed if id not in quarantined]:
        problems.append(f"{where}: the ids are not those of the manifest")
    if pack_label_counts(rows.labels.tolist()) != record.labels:
        problems.append(f"{where}: the labels are not those of the manifest")
    if codec.INDEX_SUFFIX and not _has_index(folder, record.name, codec.index(data)):
        problems.append(f"{where}{codec.INDEX_SUFFIX}: not the index of its shard; {REDO}")
    return problems


def _has_index(folder: Folder, name: str, index: str) -> bool:
    name += codec_of(name).INDEX_SUFFIX
    return folder.size(name) is not None and folder.read(name) == index.encode()
