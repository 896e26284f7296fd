"""Small sets of shards for tests of what reads them, written by the formats themselves."""

import hashlib
import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.formats import parquet, tfrecord
from pipelines.formats.rows import Row, Shared
from pipelines.images import encode_jpeg
from pipelines.manifest import Manifest
from pipelines.shard_record import Quarantined, WrittenShard, pack_label_counts, sum_label_counts
from pipelines.shard_table import write_shard_table
from pipelines.storage import Folder


@cache
def pixels(seed: int, size_px: int) -> np.ndarray:
    """[size, size, 3] uint8, smooth with some grain, different for each seed."""
    random = np.random.default_rng([seed, 7])
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((size_px, size_px), Image.Resampling.BICUBIC), np.int16)
    return np.clip(smooth + random.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8)


def stored(seed: int, size_px: int, encoding: str) -> bytes:
    return encode_jpeg(pixels(seed, size_px), 90) if encoding == "jpeg" else pixels(seed, size_px).tobytes()


def write_shards(
    folder: Path,
    listed: dict[str, list[int]],
    format: str = "tfrecord",
    encoding: str = "jpeg",
    size_px: int = 48,
    quarantined: tuple[int, ...] = (),
    images: dict[int, bytes] | None = None,
) -> tuple[Folder, Manifest]:
    """Shards of so many listed images for each split; ids in `quarantined` are left out; `images` replaces some."""
    target = Folder.at(folder)
    splits = {}
    for split, sizes in listed.items():
        starts = np.cumsum([0, *sizes])
        splits[split] = tuple(
            _write_shard(
                target,
                f"data/{split}-{number:05d}-of-{len(sizes):05d}.{format}",
                split,
                range(starts[number], starts[number + 1]),
                encoding,
                size_px,
                set(quarantined),
                images or {},
            )
            for number in range(len(sizes))
        )
    manifest = Manifest(
        format=format,
        encoding=encoding,
        size_px=size_px,
        class_names=tuple("abc"),
        class_titles=tuple("abc"),
        source_kind="test",
        source_fingerprint="0",
        config={},
        splits={split: tuple(shard.record for shard in shards) for split, shards in splits.items()},
        labels={split: sum_label_counts(shards) for split, shards in splits.items()},
        libraries={},
    )
    write_shard_table(target, [shard for shards in splits.values() for shard in shards])
    manifest.save(target)
    return target, manifest


def _write_shard(folder, name, split, ids, encoding, size_px, quarantined, images) -> WrittenShard:
    codec = parquet if name.endswith(".parquet") else tfrecord
    kept = [id for id in ids if id not in quarantined]
    rows = [
        Row(id, f"{split}/{id}", id % 3, images.get(id) or stored(id, size_px, encoding), size_px, size_px, "jpeg")
        for id in kept
    ]
    file = io.BytesIO()
    index = codec.write(file, rows, Shared(split, encoding, size_px, tuple("abc")))
    data = file.getvalue()
    folder.publish(name, lambda out: out.write(data))
    if index:
        folder.publish(name + codec.INDEX_SUFFIX, lambda out: out.write(index.encode()))
    return WrittenShard(
        name=name,
        split=split,
        first_id=ids.start,
        listed=len(ids),
        rows=len(rows),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        labels=pack_label_counts(row.label for row in rows),
        libraries="",
        quarantined=tuple(Quarantined(id, "", 0, "", 0, "damaged") for id in ids if id in quarantined),
    )
