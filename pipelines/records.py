"""The vocabulary that sources, shards and the loader share: what a split and a record are."""

from typing import NamedTuple

TRAIN, VAL, TEST = "train", "val", "test"


class Record(NamedTuple):
    """One image as its source holds it."""

    key: str  # stable and readable, unique in its split: "n01440764/n01440764_10026.JPEG"
    label: int  # index into the source's class_names; -1 where unknown
    data: bytes  # the encoded image
