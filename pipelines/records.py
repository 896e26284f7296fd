"""The vocabulary that sources, shards and the loader share: the names of the splits, and of devices."""

from typing import Literal

TRAIN, VAL, TEST = "train", "val", "test"
Device = Literal["cpu", "cuda"]
