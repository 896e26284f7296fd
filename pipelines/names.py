"""The names that sources, shards and the loader share: of splits, of image files, of devices."""

from typing import Literal

TRAIN, VAL, TEST = "train", "val", "test"
SPLIT_FOLDERS = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
IMAGE_NAME = r"(?i)(^|/)[^./][^/]*\.(jpe?g|png|bmp|gif|webp|tiff?|ppm|pgm)$"
Device = Literal["cpu", "cuda"]
