"""The vocabulary that sources, shards and the loader share: the names of the splits."""

TRAIN, VAL, TEST = "train", "val", "test"
