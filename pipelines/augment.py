"""The augmentation: parameters that are a function of (seed, epoch, sample), and one DALI graph that applies them.

The graph holds no random operator and no reader; it takes encoded (or raw) images and their parameters, so that what
comes out for a sample does not depend on threads, workers, batches or restarts. One definition serves CPU and GPU.
What it hands on are crops of bytes: the lighting's shift is added with the mean, in one step on the training device.
Crop: offsets y and x uniform over 0..size-crop inclusive; flip with probability 1/2. With `crop_chunk=32` as in 2012,
32 consecutive positions of the epoch share crop and flip. Lighting adds one RGB shift per image (grey levels):
"sigma" coeff * V (sqrt(lambda) * z), of the 2012 code; "eigenvalue" the paper's 255 * coeff * V (lambda / 255^2 * z).
"""

from typing import NamedTuple

import numpy as np

from pipelines.philox import integers, normals, words
from pipelines.specs import LoaderSpec

CROP, CHUNK_CROP, LIGHTING = 16, 17, 18  # what the random numbers are for; the order has purposes of its own
HALF = np.uint64(1 << 31)
Light = tuple[tuple[int, float], ...]


class Parameters(NamedTuple):
    """What happens to each image: the crop's upper left corner, whether it is mirrored, and what is added (RGB)."""

    y_B: np.ndarray  # int64, px
    x_B: np.ndarray
    mirror_B: np.ndarray  # int32, 0 or 1
    shift_B3: np.ndarray  # float32, grey levels


class Augmentation:
    """Draws parameters as a LoaderSpec says, for squares of `size_px` cut to `crop_px`.

    Args:
        light: epochs, counted from 0, from which on the lighting's coefficient is another than the spec's.
    """

    def __init__(
        self,
        spec: LoaderSpec,
        size_px: int,
        crop_px: int,
        eigenvalues: np.ndarray | None = None,
        eigenvectors: np.ndarray | None = None,
        light: Light = (),
    ):
        if not 0 < crop_px <= size_px:
            raise ValueError(f"a crop of {crop_px} px does not fit the stored {size_px} px; use 1 to {size_px}")
        fitting = size_px - crop_px + 1
        if spec.offsets > fitting:
            raise ValueError(f"loader.offsets is {spec.offsets}; {crop_px} px of {size_px} px have {fitting} offsets")
        self.spec, self.light = spec, light
        self.num_offsets = spec.offsets or fitting
        self._first_offset = (fitting - 1) // 2 if spec.offsets == 1 else 0
        self.lighting_33 = _lighting(spec, eigenvalues, eigenvectors)

    def coefficient(self, epoch: int) -> float:
        """Of the lighting in an epoch; 0 where it is off."""
        if self.spec.lighting == "off":
            return 0.0
        return next((value for start, value in reversed(self.light) if start <= epoch), self.spec.lighting_coeff)

    def input_scale(self, epoch: int) -> float:
        """What the 2012 code multiplies (pixel + noise - mean) by: 1 / 1.1 while its noise of 0.1 is on."""
        return 1 / (1 + self.coefficient(epoch)) if self.spec.lighting == "sigma" else 1.0

    def draw(self, epoch: int, ids_B: np.ndarray, positions_B: np.ndarray) -> Parameters:
        """The parameters of samples, given their ids and, for `crop_chunk`, their positions in the epoch."""
        spec = self.spec
        if spec.crop_chunk == 1:
            word = words((spec.seed, epoch), CROP, ids_B)
        else:
            word = words((spec.seed, epoch), CHUNK_CROP, np.asarray(positions_B) // spec.crop_chunk)
        mirror = (word[2] < HALF) if spec.flip else np.zeros(len(ids_B))
        return Parameters(
            y_B=self._first_offset + integers(word[0], self.num_offsets),
            x_B=self._first_offset + integers(word[1], self.num_offsets),
            mirror_B=mirror.astype(np.int32),
            shift_B3=self._draw_shift(epoch, ids_B),
        )

    def _draw_shift(self, epoch: int, ids_B: np.ndarray) -> np.ndarray:
        coefficient = self.coefficient(epoch)
        if not coefficient:
            return np.zeros((len(ids_B), 3), np.float32)
        word = words((self.spec.seed, epoch), LIGHTING, ids_B)
        z_3B = [*normals(word[:2]), normals(word[2:])[0]]
        # One product and sum after another: a matrix product may round differently with the number of samples.
        rows = coefficient * self.lighting_33
        shift_3B = [sum(row[k] * z_3B[k] for k in range(3)) for row in rows]
        return np.stack(shift_3B, axis=1).astype(np.float32)


def _lighting(spec: LoaderSpec, eigenvalues: np.ndarray | None, eigenvectors: np.ndarray | None) -> np.ndarray:
    """[3, 3] from normal draws to an RGB shift in grey levels, while the coefficient is 1."""
    if spec.lighting == "off":
        return np.zeros((3, 3))
    if eigenvalues is None or eigenvectors is None:
        raise ValueError(
            f"loader.lighting={spec.lighting} needs the eigenvalues and eigenvectors of the training pixels, which "
            "`Statistics` has; give both, or set it to off"
        )
    return np.asarray(eigenvectors) * component_levels(spec.lighting, 1.0, np.asarray(eigenvalues))


def component_levels(lighting: str, coefficient: float, eigenvalues: np.ndarray) -> np.ndarray:
    """[3] how far a draw of 1 moves a pixel along each principal component, grey levels (as the eigenvalues' roots)."""
    return coefficient * (np.sqrt(eigenvalues) if lighting == "sigma" else eigenvalues / 255)


def augment(images, y, x, mirror, *, crop_px: int, is_jpeg: bool, on_gpu: bool):
    """DALI graph: JPEGs, or raw [H, W, 3], to uint8 [crop, crop, 3], RGB.

    `y` and `x` are fractions of (size - crop), as DALI wants them; it rounds back to whole pixels.
    Decoding only the region gives the very pixels of decoding everything and cutting (on the CPU; tested).
    On a GPU all JPEGs go to its engine, whole: by default DALI gives the engine 65 % of each run and decodes the others
    otherwise, so that pixels would depend on an image's place in its run; and of regions nvImageCodec 0.9 dies (its
    issue 55).
    """
    from nvidia.dali import fn, types

    where = {"crop": (crop_px, crop_px), "crop_pos_y": y, "crop_pos_x": x}
    if is_jpeg and on_gpu:
        images = fn.decoders.image(images, device="mixed", hw_decoder_load=1.0, jpeg_fancy_upsampling=True)
    elif is_jpeg:
        images, where = fn.decoders.image_crop(images, device="cpu", jpeg_fancy_upsampling=True, **where), {}
    elif on_gpu:
        images, where = fn.crop(images, **where).gpu(), {}  # so that only the crop crosses the bus
    # Which normalises nothing unless it is told a mean.
    return fn.crop_mirror_normalize(images, mirror=mirror, dtype=types.DALIDataType.UINT8, output_layout="HWC", **where)
