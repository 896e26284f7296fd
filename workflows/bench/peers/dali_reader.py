"""DALI's own TFRecord reader, random operators and PyTorch iterator, on our shards; the same normalisation.

It decodes as many images at once as our loader does, for which it is faster than by single batches.
"""

from collections.abc import Iterator
from typing import Any

import torch
from nvidia.dali import fn, pipeline_def, tfrecord, types
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from pipelines.batches import batches_per_run
from pipelines.names import Device
from workflows.bench.loader_setting import BATCH_SIZE, CROP_PX, BenchData


def batches(data: BenchData, threads: int, device: Device) -> Iterator[torch.Tensor]:
    on_gpu, steps = device == "cuda", batches_per_run(BATCH_SIZE)
    paths = sorted(map(str, data.tfrecord.glob("data/*.tfrecord")))
    pipe = _pipeline(
        paths, on_gpu, batch_size=steps * BATCH_SIZE, num_threads=threads, device_id=0 if on_gpu else None, seed=0
    )
    iterator = DALIGenericIterator(pipe, ["images", "labels"], reader_name="reader", auto_reset=True)
    while True:
        for (batch,) in iterator:
            yield from batch["images"].split(BATCH_SIZE)


@pipeline_def
def _pipeline(paths: list[str], on_gpu: bool):
    example: Any = fn.readers.tfrecord(  # a dictionary of nodes
        name="reader",
        path=paths,
        index_path=[f"{path}.idx" for path in paths],
        features={
            "image/encoded": tfrecord.FixedLenFeature([], tfrecord.string, ""),
            "image/class/label": tfrecord.FixedLenFeature([1], tfrecord.int64, -1),
        },
        random_shuffle=True,
        initial_fill=1024,
    )
    images = fn.decoders.image_crop(
        example["image/encoded"],
        device="mixed" if on_gpu else "cpu",
        crop=(CROP_PX, CROP_PX),
        crop_pos_x=fn.random.uniform(range=(0, 1)),
        crop_pos_y=fn.random.uniform(range=(0, 1)),
    )
    images = fn.crop_mirror_normalize(
        images,
        mirror=fn.random.coin_flip(),
        mean=[0.0] * 3,
        std=[1.0] * 3,
        dtype=types.DALIDataType.FLOAT,
        output_layout="CHW",
    )
    return images, example["image/class/label"]
