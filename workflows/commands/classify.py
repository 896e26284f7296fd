"""Predictions of a trained network for image files, prepared as the training images were."""

import contextlib
import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from workflows.config import RunConfig, UsageError

if TYPE_CHECKING:
    from model.export import Exported

TOP = 5
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Guess(NamedTuple):
    """A class that the network names."""

    name: str
    title: str
    probability: float


class Predicted(NamedTuple):
    """What an image is taken for, the likeliest first; or why it could not be looked at."""

    path: str
    guesses: tuple[Guess, ...]
    problem: str = ""


def predictions(folder: Path, paths: Iterable[str], config: RunConfig) -> Iterator[Predicted]:
    """The likeliest classes of each image, averaged over ten crops; what is no image is said so, and passed over.

    Args:
        folder: An exported model.
        paths: Image files, and folders of them.
        config: Images of more pixels than it allows are not decoded; a network of the user's own is made as it says.

    Raises:
        UsageError: No model there.
    """
    with _no_warnings():
        exported, size_px = _load(folder, config.net.kind)
    for path in paths:
        try:
            files = _files(path)
        except (OSError, ValueError) as error:
            yield Predicted(path, (), getattr(error, "strerror", None) or str(error))
            continue
        for file in files:
            with _no_warnings():
                predicted = _predicted(exported, file, size_px, config.ingest.max_pixels)
            yield predicted


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Of libraries, about what they read all the same: odd metadata, a processor without some instruction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load(folder: Path, kind: str) -> "tuple[Exported, int]":
    from model.export import load_exported

    try:
        exported = load_exported(folder, kind)
    except ValueError as error:
        raise UsageError(str(error)) from error
    size_px = exported.provenance.get("size_px")
    if not size_px:
        raise UsageError(f"{folder}: its card does not say of what size its images were (provenance.size_px)")
    return exported, size_px


def _files(path: str) -> list[str]:
    """The file itself, or all images below a folder, sorted. ValueError or OSError: there is nothing to look at."""
    from pipelines.names import IMAGE_NAME

    if _URL.match(path):
        raise ValueError("a URL is not opened: download it first")
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return [path]
    if not stat.S_ISDIR(mode):
        raise ValueError("neither a file nor a folder")
    found = [os.path.join(place, name) for place, _, names in os.walk(path) for name in names]
    if images := sorted(file for file in found if re.search(IMAGE_NAME, file)):
        return images
    raise ValueError("the folder holds no images")


def _predicted(exported: "Exported", path: str, size_px: int, max_pixels: int) -> Predicted:
    import torch

    from model.step import predict
    from pipelines.images import to_square
    from pipelines.views import cut_views
    from pipelines.whole import DamagedImage

    try:
        square = to_square(Path(path).read_bytes(), size_px, max_pixels)
    except DamagedImage as error:
        return Predicted(path, (), str(error))
    except OSError as error:
        return Predicted(path, (), error.strerror or str(error))
    pixels_BCHW = torch.from_numpy(square.pixels_HWC).permute(2, 0, 1)[None].float()
    likely = predict(exported.net, cut_views(pixels_BCHW, exported.net.spec.input_px, "ten"))[0]
    best = likely.topk(min(TOP, len(exported.class_names)))
    return Predicted(path, tuple(map(_guess, [exported] * TOP, best.indices.tolist(), best.values.tolist())))


def _guess(exported: "Exported", label: int, probability: float) -> Guess:
    return Guess(exported.class_names[label], exported.class_titles[label], probability)
