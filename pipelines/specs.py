"""What can be configured about the data: frozen dataclasses, standard library only.

A field's `Annotated` text is its help on the command line (meaning and unit); the default stands beside it.
"""

from dataclasses import dataclass
from typing import Annotated, Literal


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class IngestSpec:
    """From a source of images to shards of size x size squares."""

    source: Annotated[str, "folder, archive or URL of the images; 'demo' draws a data set"] = "demo"
    labels: Annotated[
        Literal["wnid", "devkit"], "order of ImageNet label ids: sorted wnids, or the development kit's"
    ] = "wnid"
    check_md5: Annotated[bool, "check the published MD5 sums of the ILSVRC archives first"] = False
    limit: Annotated[int, "images to take from each split after shuffling; 0 takes all"] = 0
    val_fraction: Annotated[float, "share of images set aside as val where the source has no such split; by key"] = 0.1
    val_from: Annotated[
        Literal["source", "train"], "val is the source's own where it has one (else its test), or a share of train"
    ] = "source"
    seed: Annotated[int, "seed of the order in which samples are stored"] = 0
    size: Annotated[int, "side of the stored square, px"] = 256
    format: Annotated[Literal["parquet", "tfrecord"], "file format of the shards"] = "tfrecord"
    encoding: Annotated[Literal["jpeg", "raw"], "how a stored image is encoded"] = "jpeg"
    quality: Annotated[int, "JPEG quality, 1 to 100, for encoding=jpeg"] = 95
    rows_per_shard: Annotated[int, "listed rows in a shard"] = 1024
    max_bad: Annotated[
        float,
        "largest fraction of damaged images, also of a split or class (one image may be)",
    ] = 0.01
    mixed_versions: Annotated[
        bool, "go on among shards that other versions of the libraries wrote, which may be other bytes"
    ] = True
    max_pixels: Annotated[int, "images of more pixels than this are set aside undecoded"] = 100_000_000

    def __post_init__(self):
        _require(bool(self.source), "ingest.source is empty; name a folder, an archive, a URL or 'demo'")
        _require(self.limit >= 0, f"ingest.limit is {self.limit}; use 0 (all) or more")
        _require(0 <= self.val_fraction < 1, f"ingest.val_fraction is {self.val_fraction}; use 0 to below 1")
        _require(self.size >= 8, f"ingest.size is {self.size}; use 8 px or more")
        _require(1 <= self.quality <= 100, f"ingest.quality is {self.quality}; use 1 to 100")
        _require(self.rows_per_shard >= 1, f"ingest.rows_per_shard is {self.rows_per_shard}; use 1 or more")
        _require(0 <= self.seed < 2**32, f"ingest.seed is {self.seed}; use 0 to 2**32 - 1")
        _require(self.max_pixels >= 1, f"ingest.max_pixels is {self.max_pixels}; use 1 or more")
        _require(0 <= self.max_bad <= 1, f"ingest.max_bad is {self.max_bad}; use a fraction, 0 to 1")


@dataclass(frozen=True)
class LoaderSpec:
    """From shards to batches: order, augmentation, and how many threads decode."""

    seed: Annotated[int, "seed of the order, the crops, the flips and the lighting"] = 0
    threads: Annotated[int, "DALI's CPU threads per worker; 0 takes the worker's share of the cores"] = 0
    reshuffle: Annotated[bool, "a new order every epoch; false keeps one order, as the original run did"] = True
    window_shards: Annotated[int, "shards held in memory and mixed with each other"] = 8
    offsets: Annotated[int, "crop offsets on each axis; 0: all that fit (33 of 256 px at 224), 1: the centre"] = 0
    flip: Annotated[bool, "mirror half of the training images"] = True
    crop_chunk: Annotated[int, "consecutive images that share crop and flip; 1 draws for each image"] = 1
    lighting: Annotated[
        Literal["sigma", "eigenvalue", "off"],
        "PCA lighting: by standard deviation and / 1.1 as the 2012 code, the paper's formula on 0..1, or none",
    ] = "sigma"
    lighting_coeff: Annotated[float, "standard deviation of the lighting draws; train.schedule may change it"] = 0.1

    def __post_init__(self):
        _require(0 <= self.seed < 2**32, f"loader.seed is {self.seed}; use 0 to 2**32 - 1")
        _require(self.threads >= 0, f"loader.threads is {self.threads}; use 0 (the worker's cores) or more")
        _require(self.window_shards >= 1, f"loader.window_shards is {self.window_shards}; use 1 or more")
        _require(self.offsets >= 0, f"loader.offsets is {self.offsets}; use 0 (all) or more")
        _require(self.crop_chunk >= 1, f"loader.crop_chunk is {self.crop_chunk}; use 1 or more")
        _require(self.lighting_coeff >= 0, f"loader.lighting_coeff is {self.lighting_coeff}; use 0 or more")
