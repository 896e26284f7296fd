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

from pipelines.quarantine import refuse_damaged, refuse_damaged_parts, write_quarantine
from pipelines.shard_record import ShardRecord, mended_notes
from pipelines.specs import IngestSpec
from pipelines.storage import Folder

if TYPE_CHECKING:
    from pipelines.sources.source import Source

MANIFEST = "manifest.json"
_NOT_CONTENT = ("source", "check_md5", "max_bad")  # fields of IngestSpec without a part in what is stored
REDO = "run `alexnet verify` and then `alexnet ingest`, which writes anew what is damaged"
_PACKAGES = ("numpy", "pillow", "pyarrow", "simplejpeg", "torch")


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
    notes: tuple[str, ...] = field(default=(), compare=False)  # of the source: what was left out, what is odd

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
                    "shards": [record.to_json() for record in records],
                }
                for split, records in self.splits.items()
            },
        }

    def save(self, folder: Folder) -> None:
        document = {"digest": self.digest, "versions": self.versions, "notes": self.notes, **self._content()}
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
            notes=tuple(values.get("notes", ())),
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
        notes=(*source.notes, *mended_notes(in_order)),
    )
    _check_balance(manifest, {split: len(rows) for split, rows in source.splits.items()}, spec.limit)
    refuse_damaged(folder, manifest.records(), sum(map(manifest.num_listed, manifest.splits)), spec.max_bad)
    refuse_damaged_parts(folder, manifest.records(), manifest.class_names, spec.max_bad)
    write_quarantine(folder, manifest.records())
    manifest.save(folder)
    return manifest


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
