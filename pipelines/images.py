"""Encoded source bytes -> a square of RGB pixels: the only place where images are decoded for storing and resized.

Geometry (the 2012 preparation): the shorter side becomes exactly `size`, the other round(scale * side), and the
central square is kept, starting at floor((side - size) / 2). Filter, for shrinking and enlarging alike: the
antialiased triangle ("bilinear" of Pillow and of torch with antialias=True). EXIF orientation is ignored, as by every
published ImageNet number; gray is replicated; transparency is dropped; 16-bit samples keep their high byte.

Fast path: libjpeg-turbo, which always reads the entropy-coded data to their end and for which any warning is an error,
so that a truncated file never passes. Careful path: Pillow, for what the fast path refuses and only if nothing of the
image is missing (see `whole`). Both agree with Pillow's full decoding and resize: no pixel differs by more than 2
levels. Pictures of at least 4 * size px are decoded by libjpeg at 1/2 or less while the shorter side stays at least
2 * size; their pixels then differ by 1 level on average at most, by 16 in places.
"""

import io
import math
import re
import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import simplejpeg

from pipelines.whole import FOUR_INKS, DamagedImage, whole_file

if TYPE_CHECKING:
    import torch
    from PIL import Image

_PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
_REDUCING_GAP = 2
_MAX_ASPECT = 4  # of the fast resize, which computes the picture left of and above the square as well
_FOREIGN = {  # how files begin that people take for images, in lower case
    "a HEIC picture": rb".{4}ftyp(hei|hev|mif1|msf1)",
    "an AVIF picture": rb".{4}ftypavi",
    "a video": rb".{4}ftyp",
    "a JPEG XL picture": rb"\xff\x0a|\0\0\0\x0cjxl ",
    "an SVG drawing": rb"(\xef\xbb\xbf)?(<\?xml.*)?(<!--.*)?(<!doctype svg.*)?<svg",
    "a PDF": rb"%pdf",
    "a Photoshop file": rb"8bps",
}
_ORIENTATION = 0x0112  # of EXIF
_UNTURNED = {  # by what Pillow turned
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE",
    8: "ROTATE_270",
}  # fmt: skip
_SCRATCH_BYTES = 16 << 20
_thread = threading.local()


class Square(NamedTuple):
    pixels_HWC: np.ndarray  # uint8 RGB, size x size x 3, contiguous
    width: int  # of the original, px
    height: int
    format: str  # of the original: "jpeg", "png" ..
    mended: str = ""  # what was odd in a file that is complete all the same


def to_square(data: bytes, size: int, max_pixels: int) -> Square:
    """Decode, scale the shorter side to `size` and keep the central square; DamagedImage says why it cannot be."""
    if not data:
        raise DamagedImage("the file is empty")
    if data[:1].isspace() and (start := data.lstrip())[:2] == b"\xff\xd8":
        return to_square(start, size, max_pixels)._replace(mended="a JPEG with blanks before its start")
    if data[:2] == b"\xff\xd8":
        try:
            return _fast_square(data, size, max_pixels)
        except DamagedImage:
            raise
        except (ValueError, KeyError):  # a warning of libjpeg, or colours that it does not convert or name
            pass
    return _careful_square(data, size, max_pixels)


def encode_jpeg(pixels_HWC: np.ndarray, quality: int) -> bytes:
    return simplejpeg.encode_jpeg(pixels_HWC, quality=quality, colorsubsampling="420", fastdct=False)


def decode_jpeg(data) -> np.ndarray:
    """Pixels of a whole JPEG as uint8 RGB [H, W, 3]; ValueError at the first irregularity."""
    return simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False, fastupsample=False, strict=True)


class Geometry(NamedTuple):
    """Where the square lies in the scaled image: `width` x `height` px of it, starting at (x, y)."""

    width: int
    height: int
    x: int
    y: int


def scaled_geometry(width: int, height: int, size: int) -> Geometry:
    scaled_width = size if width <= height else round(width * size / height)
    scaled_height = size if height <= width else round(height * size / width)
    return Geometry(scaled_width, scaled_height, (scaled_width - size) // 2, (scaled_height - size) // 2)


def _fast_square(data: bytes, size: int, max_pixels: int) -> Square:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    _refuse_enormous(width, height, max_pixels)
    if colours in FOUR_INKS or max(width, height) > _MAX_ASPECT * min(width, height):
        raise ValueError("left to Pillow")
    shortest = size * _REDUCING_GAP
    reduction = {"min_height": shortest, "min_width": shortest, "min_factor": 2}
    rows, columns, _, _ = simplejpeg.decode_jpeg_header(data, **reduction)
    pixels = simplejpeg.decode_jpeg(
        data, colorspace="RGB", fastdct=False, fastupsample=False, buffer=_scratch(rows * columns * 3), **reduction
    )
    return Square(_resize_to_square(pixels, width, height, size), width, height, "jpeg")


def _scratch(num_bytes: int) -> np.ndarray | None:
    """Memory of this thread to decode into: fresh pages for every image cost a tenth of its decoding."""
    if num_bytes > _SCRATCH_BYTES:
        return None
    if not hasattr(_thread, "scratch"):
        _thread.scratch = np.empty(_SCRATCH_BYTES, np.uint8)
    return _thread.scratch


def _resize_to_square(pixels_HWC: np.ndarray, width: int, height: int, size: int) -> np.ndarray:
    """The central square of an image of width x height px, of which `pixels` may be a reduced decoding (by n/8)."""
    import torch

    scaled = scaled_geometry(width, height, size)
    rows, columns = pixels_HWC.shape[:2]
    step_x = width / scaled.width * round(8 * columns / width) / 8  # decoded px per px of the result
    step_y = height / scaled.height * round(8 * rows / height) / 8
    image_BCHW = torch.from_numpy(pixels_HWC)[None].permute(0, 3, 1, 2)  # whose strides say that channels are last
    image_BCHW = _resize_axis(image_BCHW, 2, scaled.y, size, step_y)  # the cheap direction first
    image_BCHW = _resize_axis(image_BCHW, 3, scaled.x, size, step_x)
    return np.ascontiguousarray(image_BCHW[0].permute(1, 2, 0).numpy())


def _resize_axis(image_BCHW: "torch.Tensor", axis: int, start: int, size: int, step: float) -> "torch.Tensor":
    """Pixels start .. start + size of a resized axis; nothing behind them is computed.

    The operator is that of torch.nn.functional.interpolate, which cannot be told the scale and the size independently.
    """
    import torch

    stop = start + size
    needed = min(image_BCHW.shape[axis], math.ceil(stop * step + max(step, 1)) + 1)
    if needed == stop and step != 1:
        stop += 1  # equal sizes would be copied, whatever the scale
    sizes, scales = list(image_BCHW.shape[2:]), [1.0, 1.0]
    sizes[axis - 2], scales[axis - 2] = stop, 1 / step
    part_BCHW = image_BCHW.narrow(axis, 0, needed)
    return torch.ops.aten._upsample_bilinear2d_aa(part_BCHW, sizes, False, *scales).narrow(axis, start, size)


def _careful_square(data: bytes, size: int, max_pixels: int) -> Square:
    """Through Pillow: CMYK, PNG whatever its name, palettes, 16 bits; and JPEGs with harmless extra bytes."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # max_pixels is the limit here
    try:
        with Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS) as image:
            _refuse_enormous(*image.size, max_pixels)
            format = "jpeg" if image.format in ("JPEG", "MPO") else str(image.format).lower()
        tidy, mended = whole_file(data, format)
        with Image.open(io.BytesIO(tidy), formats=_PILLOW_FORMATS) as image:
            stored = _as_stored(image)
            return Square(_pillow_square(stored, size), *stored.size, format, mended)
    except (DamagedImage, MemoryError):
        raise
    except UnidentifiedImageError as error:  # whose text holds a memory address
        raise DamagedImage(_foreign(data)) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error ..
        raise DamagedImage(f"{type(error).__name__}: {error}") from error


def _foreign(data: bytes) -> str:
    """What this is, which Pillow does not know."""
    start = data[:1024].lstrip().lower()
    for name, pattern in _FOREIGN.items():
        if re.match(pattern, start, re.DOTALL):
            return f"{name}, which is not read here: convert it to JPEG or PNG"
    if re.match(rb"(<!doctype html|<html)", start):
        return "a web page, not the image that it may have been named after: download that"
    return f"no image of a known format; it begins with {data[:8]!r}"


def _as_stored(image: "Image.Image") -> "Image.Image":
    """The decoded image, whatever its orientation, by which Pillow turns a TIFF while it decodes it."""
    from PIL import Image

    turn = _UNTURNED.get(image.getexif().get(_ORIENTATION, 1)) if image.format == "TIFF" else None
    image.load()
    return image.transpose(Image.Transpose[turn]) if turn else image


def _pillow_square(image: "Image.Image", size: int) -> np.ndarray:
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DamagedImage(f"samples of mode {image.mode!r} have no fixed range")
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    scaled = scaled_geometry(*image.size, size)
    step_x, step_y = image.width / scaled.width, image.height / scaled.height
    box = (scaled.x * step_x, scaled.y * step_y, (scaled.x + size) * step_x, (scaled.y + size) * step_y)
    box = (box[0], box[1], min(box[2], image.width), min(box[3], image.height))  # rounding may pass the edge
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=box).convert("RGB"))


def _refuse_enormous(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise DamagedImage(f"{width} x {height} px are more than ingest.max_pixels={max_pixels}; not decoded")
