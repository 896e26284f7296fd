"""The augmentation again, slow and obvious: one image at a time, Pillow and float64."""

import io

import numpy as np
from PIL import Image


def decoded(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] of a JPEG's bytes, or of what is pixels already."""
    return image if image.ndim == 3 else np.asarray(Image.open(io.BytesIO(image.tobytes())).convert("RGB"))


def augmented(image: np.ndarray, y: int, x: int, mirror: int, shift_3: np.ndarray, crop_px: int) -> np.ndarray:
    """[3, crop, crop]: crop, then mirror, then lighting."""
    crop_HWC = decoded(image)[y : y + crop_px, x : x + crop_px].astype(np.float64)
    if mirror:
        crop_HWC = crop_HWC[:, ::-1]
    return (crop_HWC + shift_3.astype(np.float64)).transpose(2, 0, 1)


def views_one_by_one(image_CHW: np.ndarray, crop_px: int, kind: str) -> np.ndarray:
    """[V, C, crop, crop]: the views of an image in the order of `pipelines.views`, pixel by pixel."""
    last = image_CHW.shape[1] - crop_px
    middle = last // 2
    corners = {
        "ten": [(0, 0), (0, last), (middle, middle), (last, 0), (last, last)],
        "nine": [(y, x) for y in (0, middle, last) for x in (0, middle, last)],
        "one": [(middle, middle)],
    }[kind]
    views = []
    for is_mirrored in (False, True) if kind == "ten" else (False,):
        for y, x in corners:
            view_CHW = np.empty((len(image_CHW), crop_px, crop_px), image_CHW.dtype)
            for row in range(crop_px):
                for column in range(crop_px):
                    from_column = crop_px - 1 - column if is_mirrored else column
                    view_CHW[:, row, column] = image_CHW[:, y + row, x + from_column]
            views.append(view_CHW)
    return np.stack(views)
