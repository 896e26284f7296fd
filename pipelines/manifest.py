"""What a folder of shards holds: one record per shard, and the manifest that is written when all of them are complete.

Nothing is lost silently: listed = stored + quarantined, for each shard and in total. The `digest` covers all that
decides what a reader gets (content, order, classes) and no version, time or path.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pipelines.specs import IngestSpec
from pipelines.storage import Folder
from pipelines.tables import read_table

if TYPE_CHECKING:
    from pipelines.sources.source import Source

MANIFEST, QUARANTINE = "manifest.json", "quarantine.parquet"
_NOT_CONTENT = ("source", "check_md5", "max_bad")  # fields of IngestSpec without a part in what is stored
REDO = "run `alexnet verify` and then `alexnet ingest`, which writes anew what is damaged"
_PACKAGES = ("numpy", "pillow", "pyarrow", "simplejpeg", "torch")


@dataclass(frozen=True)
class Quarantined:
    """An image that could not be stored: where it is in the source (archive, member, offset), and why.

    A row of `quarantine.parquet`, which also says the split.
    """

    id: int
    key: str  # its name in the source: the member of the archive, the path below the folder
    label: int
    file: str  # the source's archive or file
    offset: int  # in it, bytes
    reason: str


@dataclass(frozen=True)
class ShardRecord:
    """One shard: ids [first_id, first_id + listed) of its split without the quarantined ones, in this order."""

    name: str
    split: str
    first_id: int
    listed: int
    rows: int
    bytes: int
    sha256: str
    labels: str  # "label:count label:count .."; as text, since a split may have 15,000 shards of 1,000 classes
    quarantined: tuple[Quarantined, ...] = ()

    @property
    def label_counts(self) -> dict[int, int]:
        pairs = (pair.split(":") for pair in self.labels.split())
        return {int(label): int(count) for label, count in pairs}

    @staticmethod
    def from_json(values: dict) -> "ShardRecord":
        quarantined = tuple(Quarantined(**entry) for entry in values["quarantined"])
        return ShardRecord(**{**values, "quarantined": quarantined})


def pack_label_counts(labels: Iterable[int]) -> str:
    return " ".join(f"{label}:{count}" for label, count in sorted(Counter(labels).items()))


@dataclass(frozen=True)
class Manifest:
    format: str  # "parquet" or "tfrecord"
    encoding: str  # "jpeg" or "raw"
    size_px: int
    class_names: tuple[str, ...]  # index is the label
    class_titles: tuple[str, ...]
    source_kind: str
    source_fingerprint: str
    config: dict[str, str | int | float]  # of IngestSpec, what decides the content
    splits: dict[str, tuple[ShardRecord, ...]]
    versions: dict[str, str] = field(compare=False)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def records(self) -> Iterator[ShardRecord]:
        for shards in self.splits.values():
            yield from shards

    def num_listed(self, split: str) -> int:
        return sum(record.listed for record in self.splits.get(split, ()))

    def num_rows(self, split: str) -> int:
        """Images stored."""
        return sum(record.rows for record in self.splits.get(split, ()))

    def num_quarantined(self, split: str) -> int:
        return sum(len(record.quarantined) for record in self.splits.get(split, ()))

    def num_bytes(self, split: str) -> int:
        return sum(record.bytes for record in self.splits.get(split, ()))

    def label_counts(self, split: str) -> dict[int, int]:
        total = Counter[int]()
        for record in self.splits.get(split, ()):
            total.update(record.label_counts)
        return dict(sorted(total.items()))

    @cached_property
    def digest(self) -> str:
        """sha256 of the content; equal digests mean equal shards in equal order."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def _content(self) -> dict:
        return {
            "layout": 1,
            "format": self.format,
            "encoding": self.encoding,
            "size_px": self.size_px,
            "source": {"kind": self.source_kind, "fingerprint": self.source_fingerprint},
            "config": self.config,
            "class_names": self.class_names,
            "class_titles": self.class_titles,
            "splits": {
                split: {
                    "listed": self.num_listed(split),
                    "stored": self.num_rows(split),
                    "quarantined": self.num_quarantined(split),
                    "bytes": self.num_bytes(split),
                    "shards": [asdict(record) for record in records],
                }
                for split, records in self.splits.items()
            },
        }

    def save(self, folder: Folder) -> None:
        document = {"digest": self.digest, "versions": self.versions, **self._content()}
        folder.write(MANIFEST, json.dumps(document, indent=1))

    @staticmethod
    def load(folder: Folder) -> "Manifest":
        if folder.size(MANIFEST) is None:
            raise ValueError(f"{folder.where()} holds no {MANIFEST}: ingest has not finished there; run it (again)")
        values = json.loads(folder.read(MANIFEST))
        manifest = Manifest(
            format=values["format"],
            encoding=values["encoding"],
            size_px=values["size_px"],
            class_names=tuple(values["class_names"]),
            class_titles=tuple(values["class_titles"]),
            source_kind=values["source"]["kind"],
            source_fingerprint=values["source"]["fingerprint"],
            config=values["config"],
            splits={
                split: tuple(ShardRecord.from_json(record) for record in part["shards"])
                for split, part in values["splits"].items()
            },
            versions=values["versions"],
        )
        if manifest.digest != values["digest"]:
            raise ValueError(f"{folder.where(MANIFEST)} was changed after it was written; {REDO}")
        return manifest


def content_config(spec: IngestSpec) -> dict[str, str | int | float]:
    """The fields of the configuration that decide what is stored."""
    return {name: value for name, value in asdict(spec).items() if name not in _NOT_CONTENT}


def write_manifest(folder: Folder, source: "Source", spec: IngestSpec, records: Iterable[ShardRecord]) -> Manifest:
    """The quarantine list, then the manifest, last of all files; ValueError where too many images are damaged."""
    in_order = sorted(records, key=lambda record: record.first_id)  # names would not sort from 100,000 shards on
    splits = {split: tuple(record for record in in_order if record.split == split) for split in source.splits}
    manifest = Manifest(
        format=spec.format,
        encoding=spec.encoding,
        size_px=spec.size,
        class_names=source.class_names,
        class_titles=source.class_titles,
        source_kind=source.kind,
        source_fingerprint=source.fingerprint,
        config=content_config(spec),
        splits={split: shards for split, shards in splits.items() if shards},
        versions={"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
    )
    _check_balance(manifest, {split: len(rows) for split, rows in source.splits.items()}, spec.limit)
    refuse_damaged(folder, manifest.records(), sum(map(manifest.num_listed, manifest.splits)), spec.max_bad)
    _write_quarantine(folder, manifest.records())
    manifest.save(folder)
    return manifest


def refuse_damaged(folder: Folder, records: Iterable[ShardRecord], listed: int, max_bad: float) -> None:
    """ValueError, and a list of what was set aside, where that is more than the fraction `max_bad` of all `listed`."""
    records = list(records)
    if too_damaged(records, listed, max_bad):
        bad = [entry for record in records for entry in record.quarantined]
        _write_quarantine(folder, records)
        examples = "; ".join(f"{entry.key}: {entry.reason}" for entry in bad[:3])
        raise ValueError(
            f"{len(bad)} of {listed} images are damaged, more than ingest.max_bad={max_bad:g} ({examples}); "
            f"see {folder.where(QUARANTINE)}; mend the source or raise ingest.max_bad"
        )


def too_damaged(records: Iterable[ShardRecord], listed: int, max_bad: float) -> bool:
    """Whether it is certain already that more than the fraction `max_bad` of all `listed` images are damaged."""
    return sum(len(record.quarantined) for record in records) > max_bad * listed


def _check_balance(manifest: Manifest, listed: dict[str, int], limit: int) -> None:
    for split, count in listed.items():
        expected = min(count, limit) if limit else count
        assert manifest.num_listed(split) == expected, (split, manifest.num_listed(split), expected)
        next_id = 0
        for record in manifest.splits.get(split, ()):
            assert record.first_id == next_id, record.name
            assert record.listed == record.rows + len(record.quarantined), record.name
            assert record.rows == sum(record.label_counts.values()), record.name
            next_id += record.listed


def _write_quarantine(folder: Folder, records: Iterable[ShardRecord]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("id", pa.int64()), ("key", pa.string()), ("label", pa.int32()), ("split", pa.string())]
        + [("file", pa.string()), ("offset", pa.int64()), ("reason", pa.string())]
    )
    rows = [{"split": record.split, **asdict(bad)} for record in records for bad in record.quarantined]
    folder.publish(QUARANTINE, lambda file: pq.write_table(pa.Table.from_pylist(rows, schema), file))


def verify_quarantine(folder: Folder, manifest: Manifest) -> list[str]:
    """The problems of the quarantine list."""
    try:
        listed = read_table(folder, QUARANTINE, ["split", "id"]).to_pylist()
    except (ValueError, OSError) as error:
        return [f"{folder.where(QUARANTINE)}: {error}"]
    known = [{"split": record.split, "id": bad.id} for record in manifest.records() for bad in record.quarantined]
    return [] if listed == known else [f"{folder.where(QUARANTINE)}: not the images that the manifest sets aside"]
