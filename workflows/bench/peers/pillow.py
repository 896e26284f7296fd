"""What the peers without a decoder of their own do to an image, with Pillow and torch."""

import io

import numpy as np
import torch
from PIL import Image

from workflows.bench.loader_setting import CROP_PX


def augmented(image: Image.Image) -> torch.Tensor:
    """float32 [3, crop, crop], 0..255: a random crop, mirrored half of the time."""
    image = image.convert("RGB")
    x = int(torch.randint(0, image.width - CROP_PX + 1, ()))
    y = int(torch.randint(0, image.height - CROP_PX + 1, ()))
    image = image.crop((x, y, x + CROP_PX, y + CROP_PX))
    if torch.rand(()) < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels_HWC = torch.from_numpy(np.array(image))
    return pixels_HWC.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))
