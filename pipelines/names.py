"""The names that sources, shards and the loader share: of splits, of image files, of devices, of views."""

import re
from typing import Literal

TRAIN, VAL, TEST = SPLITS = "train", "val", "test"
Device = Literal["cpu", "cuda"]
Views = Literal["ten", "nine", "one"]  # of an image that is tested: `pipelines.views`

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}
_ENDS_AS_SPLIT = re.compile(r"_(train|val)$")  # such as ILSVRC2012_img_train
EXTENSIONS = ("jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp", "tif", "tiff")  # what `images` decodes
IMAGE_NAME = rf"(?i)(^|/)[^./][^/]*\.({'|'.join(EXTENSIONS)})$"
JUNK_FOLDER = r"(^|/)(\.[^./][^/]*|@eaDir|__MACOSX|__pycache__|\$RECYCLE\.BIN|lost\+found)/"  # of systems and tools


def split_of(name: str) -> str | None:
    """The split that a folder or file of this name holds, without regard to case; None for other names."""
    name = name.lower()
    ends = _ENDS_AS_SPLIT.search(name)
    return SPLIT_WORDS.get(name) or (SPLIT_WORDS[ends[1]] if ends else None)
