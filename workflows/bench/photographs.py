"""Generated photographs, where no real ones are given: JPEGs of ImageNet's sizes, spectrum and bytes."""

from pathlib import Path

import numpy as np

SIZES = ((500, 375), (375, 500), (500, 333), (500, 400), (640, 480), (500, 500), (333, 500), (300, 225))  # px
SHARES = (0.32, 0.10, 0.16, 0.08, 0.10, 0.08, 0.06, 0.10)
QUALITY = 92  # about 110 kB each, as ImageNet's mean


def write_photographs(folder: Path, count: int, seed: int = 0) -> None:
    """`count` JPEGs in a single class folder: a function of the seed."""
    import simplejpeg

    rng = np.random.default_rng(seed)
    target = folder / "photograph"
    target.mkdir(parents=True)
    for number in range(count):
        width, height = SIZES[rng.choice(len(SIZES), p=SHARES)]
        pixels = _natural(rng, height, width)
        (target / f"{number:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels, QUALITY, colorsubsampling="420"))


def _natural(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """uint8 H,W,3: noise whose amplitude falls as 1/frequency, mostly shared by the channels, as in photographs."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    shared = rng.standard_normal((height, width, 1))
    noise = np.fft.rfft2(shared + 0.4 * rng.standard_normal((height, width, 3)), axes=(0, 1))
    picture = np.fft.irfft2(noise / frequency[..., None], s=(height, width), axes=(0, 1))
    return (120 + 55 * picture / picture.std()).clip(0, 255).astype(np.uint8)
