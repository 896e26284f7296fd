"""Where a network looks at an image when it is tested: the paper's ten views, cuda-convnet's nine, or the centre.

Letters: B batch, V views, C channels, H, W.
"""

from typing import TYPE_CHECKING, NamedTuple

from pipelines.names import Views

if TYPE_CHECKING:
    from torch import Tensor

CENTRE = "middle middle"
CORNERS_AND_CENTRE = ("upper left", "upper right", CENTRE, "lower left", "lower right")


class View(NamedTuple):
    """A crop's upper left corner, px; whether its pixels are mirrored."""

    y: int
    x: int
    mirrored: bool = False


def views_of(kind: Views, slack_px: int) -> dict[str, View]:
    """By name, in the order in which they are cut.

    ten: four corners and the centre in the order of the 2012 code, then their mirrors; nine: a grid of three by three,
    without mirrors, as cuda-convnet tested its CIFAR-10 networks; one: the centre. Where nothing has to be cut off, all
    crops are the whole image, which is looked at once (and once mirrored).

    Args:
        slack_px: By how much the image is larger than the crop.
    """
    middle = slack_px // 2
    grid = {
        f"{row} {column}": View(y, x)
        for row, y in {"upper": 0, "middle": middle, "lower": slack_px}.items()
        for column, x in {"left": 0, "middle": middle, "right": slack_px}.items()
    }
    names = {"ten": CORNERS_AND_CENTRE, "nine": tuple(grid), "one": (CENTRE,)}[kind] if slack_px else (CENTRE,)
    views = {name: grid[name] for name in names}
    if kind == "ten":
        views |= {f"{name}, mirrored": view._replace(mirrored=True) for name, view in views.items()}
    return views


def place_of_centre(kind: Views, slack_px: int) -> int:
    """Which of the views is the centre."""
    return list(views_of(kind, slack_px)).index(CENTRE)


def cut_views(images_BCHW: "Tensor", crop_px: int, kind: Views) -> "Tensor":
    """[B, V, C, crop, crop] of square images."""
    import torch

    crops = []
    for y, x, mirrored in views_of(kind, images_BCHW.shape[-1] - crop_px).values():
        crop_BCHW = images_BCHW[..., y : y + crop_px, x : x + crop_px]
        crops.append(crop_BCHW.flip(3) if mirrored else crop_BCHW)
    return torch.stack(crops, dim=1)
