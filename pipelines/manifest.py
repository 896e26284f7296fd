"""What a folder of shards holds: `_manifest.json`, written when all of them are complete, and a record of each shard.

Nothing is lost silently: listed = stored + quarantined, for each shard and in total. The records lie beside it in
`_shards.parquet`, the shards below it in `data/`.

The `digest` covers all that decides what a reader gets (the source's fingerprint, configuration, classes, and of each
shard its place, counts and sha256) and no version, time or path. It says that the shards are the same bytes. Bytes
depend on the libraries that decode, resize and encode, too: with others, the same source and configuration may give
another digest. Each record names the ones that wrote its shard, `libraries` counts them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipelines.quarantine import refuse_damaged, refuse_damaged_parts, write_quarantine
from pipelines.shard_record import REDO, ShardRecord, WrittenShard, mended_notes, sum_label_counts
from pipelines.shard_table import read_records, write_shard_table
from pipelines.specs import IngestSpec
from pipelines.storage import Folder

if TYPE_CHECKING:
    from pipelines.sources.source import Source

MANIFEST = "_manifest.json"
_LAYOUT = 2  # of the output's files
_MANIFEST_OF_LAYOUT_1 = "manifest.json"
_NOT_CONTENT = ("source", "check_md5", "max_bad", "mixed_versions")  # fields of IngestSpec that decide nothing stored


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
    labels: dict[str, dict[int, int]]  # stored images by split and label
    libraries: dict[str, int] = field(compare=False)  # that shards were written with, and how many
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
        return self.labels.get(split, {})

    @cached_property
    def digest(self) -> str:
        """sha256 of the content; equal digests mean equal shards in equal order."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def _content(self) -> dict[str, Any]:
        return {
            "layout": _LAYOUT,
            "format": self.format,
            "encoding": self.encoding,
            "size_px": self.size_px,
            "source": {"kind": self.source_kind, "fingerprint": self.source_fingerprint},
            "config": self.config,
            "class_names": self.class_names,
            "class_titles": self.class_titles,
            "splits": {split: self._of_split(split) for split in self.splits},
        }

    def _of_split(self, split: str) -> dict[str, Any]:
        records = [asdict(record) for record in self.splits[split]]
        return {
            "listed": self.num_listed(split),
            "stored": self.num_rows(split),
            "quarantined": self.num_quarantined(split),
            "bytes": self.num_bytes(split),
            "shards": len(records),
            "records_sha256": hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest(),
            "labels": {str(label): count for label, count in self.label_counts(split).items()},
        }

    def save(self, folder: Folder) -> None:
        """Without the records, which lie beside it."""
        document = {"digest": self.digest, "libraries": self.libraries, "notes": self.notes, **self._content()}
        folder.write(MANIFEST, json.dumps(document, indent=1))

    @staticmethod
    def load(folder: Folder) -> "Manifest":
        """ValueError where there is none, where it is of another layout, or where it was changed."""
        values = _read(folder)
        records = read_records(folder)
        manifest = Manifest(
            format=values["format"],
            encoding=values["encoding"],
            size_px=values["size_px"],
            class_names=tuple(values["class_names"]),
            class_titles=tuple(values["class_titles"]),
            source_kind=values["source"]["kind"],
            source_fingerprint=values["source"]["fingerprint"],
            config=values["config"],
            splits={name: tuple(record for record in records if record.split == name) for name in values["splits"]},
            labels={
                name: {int(label): count for label, count in part["labels"].items()}
                for name, part in values["splits"].items()
            },
            libraries=values["libraries"],
            notes=tuple(values["notes"]),
        )
        if manifest.digest != values["digest"]:
            raise ValueError(f"{folder.where(MANIFEST)} was changed after it was written; {REDO}")
        return manifest


def _read(folder: Folder) -> dict[str, Any]:
    """The manifest's document, if it is of this layout."""
    redo = "run `alexnet ingest`, which writes the shards anew"
    if folder.size(MANIFEST) is None:
        if folder.size(_MANIFEST_OF_LAYOUT_1) is not None:
            raise ValueError(f"{folder.where()} holds shards of the former layout, which is not read: {redo}")
        raise ValueError(f"{folder.where()} holds no {MANIFEST}: ingest has not finished there; run it (again)")
    values = json.loads(folder.read(MANIFEST))
    if (layout := values.get("layout")) != _LAYOUT:
        raise ValueError(f"{folder.where(MANIFEST)} is of layout {layout}, this code reads {_LAYOUT}: {redo}")
    return values


def content_config(spec: IngestSpec) -> dict[str, str | int | float]:
    """The fields of the configuration that decide what is stored."""
    return {name: value for name, value in asdict(spec).items() if name not in _NOT_CONTENT}


def write_manifest(folder: Folder, source: "Source", spec: IngestSpec, shards: Iterable[WrittenShard]) -> Manifest:
    """What was set aside, the records, then the manifest, last of all files.

    ValueError where too many images are damaged.
    """
    shards = sorted(shards, key=lambda shard: shard.first_id)  # names would not sort from 100,000 shards on
    splits = {split: tuple(shard for shard in shards if shard.split == split) for split in source.splits}
    splits = {split: found for split, found in splits.items() if found}
    in_order = [shard for found in splits.values() for shard in found]
    _check_balance(splits, {split: len(rows) for split, rows in source.splits.items()}, spec.limit)
    refuse_damaged(folder, in_order, sum(shard.listed for shard in in_order), spec.max_bad)
    refuse_damaged_parts(folder, in_order, source.class_names, spec.max_bad)
    write_quarantine(folder, in_order)
    write_shard_table(folder, in_order)
    manifest = Manifest(
        format=spec.format,
        encoding=spec.encoding,
        size_px=spec.size,
        class_names=source.class_names,
        class_titles=source.class_titles,
        source_kind=source.kind,
        source_fingerprint=source.fingerprint,
        config=content_config(spec),
        splits={split: tuple(shard.record for shard in found) for split, found in splits.items()},
        labels={split: sum_label_counts(found) for split, found in splits.items()},
        libraries=dict(Counter(shard.libraries for shard in in_order)),
        notes=(*source.notes, *mended_notes(in_order)),
    )
    manifest.save(folder)
    return manifest


def _check_balance(splits: dict[str, tuple[WrittenShard, ...]], listed: dict[str, int], limit: int) -> None:
    for split, count in listed.items():
        next_id = 0
        for shard in splits.get(split, ()):
            assert shard.first_id == next_id, shard.name
            assert shard.listed == shard.rows + len(shard.quarantined), shard.name
            assert shard.rows == shard.labels_N2[:, 1].sum(), shard.name
            next_id += shard.listed
        assert next_id == (min(count, limit) if limit else count), (split, next_id)
