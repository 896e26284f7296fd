"""What is the same for all compared loaders; imports nothing heavy."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

NUM_IMAGES, ROWS_PER_SHARD, CROP_PX, BATCH_SIZE = 8192, 1024, 224, 128
WINDOW_SHARDS = 2  # of 8 shards, so that every epoch reads every shard again
# Of ImageNet's pixels, as published with the successor of the 2012 code; any others would cost the same.
EIGENVALUES = np.array([121.78006, 37.09389, 19.72083]) ** 2
EIGENVECTORS = np.array([[-0.56351, -0.71258, 0.41796], [-0.57618, -0.02354, -0.81698], [-0.59200, 0.70120, 0.39731]])


class BenchData(NamedTuple):
    """Folders of the same images."""

    tfrecord: Path  # our shards of JPEGs, which DALI's own reader reads as well
    raw: Path  # our shards of pixels
    parquet: Path  # our shards of JPEGs, for Ray Data
    tars: Path  # WebDataset's shards
    files: Path  # one JPEG a file, "LABEL/ID.jpg"
