"""Predictions of a trained network for image files, prepared as the training images were."""

import contextlib
import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.names import Views
from workflows.config import RunConfig, UsageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from model.export import Exported

TOP = 5
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Guess(NamedTuple):
    """A class that the network names."""

    name: str
    title: str
    probability: float


class Read(NamedTuple):
    """An image as training images were stored, uint8 [H, W, 3]; or why it could not be looked at."""

    path: str
    pixels_HWC: "np.ndarray | None"
    problem: str = ""


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
    exported, size_px = load_model(folder, config.net.kind)
    for image in read_images(paths, size_px, config.ingest.max_pixels):
        if image.problem:
            yield Predicted(image.path, (), image.problem)
            continue
        with _no_warnings():
            predicted = _predicted(exported, image)
        yield predicted


def read_images(paths: Iterable[str], size_px: int, max_pixels: int) -> Iterator[Read]:
    """Image files, and those in folders, each as a square of this size; what is no image is said so."""
    for path in paths:
        try:
            files = _files(path)
        except (OSError, ValueError) as error:
            yield Read(path, None, getattr(error, "strerror", None) or str(error))
            continue
        for file in files:
            with _no_warnings():
                image = _read(file, size_px, max_pixels)
            yield image


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Of libraries, about what they read all the same: odd metadata, a processor without some instruction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_model(folder: Path, kind: str) -> "tuple[Exported, int]":
    """An exported model, and the side of the squares that its images were stored as, px. UsageError: none is there."""
    from model.export import load_exported

    try:
        with _no_warnings():
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


def _read(path: str, size_px: int, max_pixels: int) -> Read:
    from pipelines.images import to_square
    from pipelines.whole import DamagedImage

    try:
        return Read(path, to_square(Path(path).read_bytes(), size_px, max_pixels).pixels_HWC)
    except DamagedImage as error:
        return Read(path, None, str(error))
    except OSError as error:
        return Read(path, None, error.strerror or str(error))


def _predicted(exported: "Exported", image: Read) -> Predicted:
    from model.step import predict

    likely = predict(exported.net, views_of_images([image], exported.net.spec.input_px, "ten"))[0]
    best = likely.topk(min(TOP, len(exported.class_names)))
    return Predicted(image.path, tuple(map(_guess, [exported] * TOP, best.indices.tolist(), best.values.tolist())))


def views_of_images(images: Sequence[Read], crop_px: int, kind: Views) -> "Tensor":
    """[B, V, C, crop, crop] of images that could be read."""
    import torch

    from pipelines.views import cut_views

    pixels_BHWC = torch.stack([torch.from_numpy(image.pixels_HWC) for image in images])
    return cut_views(pixels_BHWC.permute(0, 3, 1, 2).float(), crop_px, kind)


def _guess(exported: "Exported", label: int, probability: float) -> Guess:
    return Guess(exported.class_names[label], exported.class_titles[label], probability)
