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
