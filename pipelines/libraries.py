"""Which libraries, by version, the bytes of a shard come from: with others, the same images may give other bytes."""

from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata

from pipelines.shard_record import WrittenShard

_PIXELS = ("simplejpeg", "pillow", "torch")  # decode (libjpeg-turbo is part of simplejpeg), decode the odd ones, resize
_OF_FORMAT = {"parquet": ("pyarrow",), "tfrecord": ()}  # the footer


@lru_cache
def libraries(format: str) -> str:
    """Of this process, as a shard's record names them; a build of torch for another device resizes by the same code."""
    names = (*_PIXELS, *_OF_FORMAT[format])
    return ", ".join(f"{name} {metadata.version(name).partition('+')[0]}" for name in names)


def written_with_others(shards: Iterable[WrittenShard], mine: str) -> str:
    """What there is to say of shards that other versions wrote; nothing where none did."""
    others = [shard.libraries for shard in shards if shard.libraries != mine]
    return f"{len(others):,} shards were written with {', or '.join(sorted(set(others)))}, not {mine}" if others else ""
