"""Dense descriptors: the same values of every patch of a regular grid, at several sizes of patch.

All three kinds pool maps of the image over bins of each patch, by triangular weights. The images are squares of one
size, so that pooling is a matrix on each axis.

Letters: B images, P patches, D values, S side in px, M maps, G patches on an axis, K bins on an axis of a patch.
"""

from functools import cached_property

import numpy as np

ORIENTATIONS = 8
BINS = {"sift": 4, "colour": 4, "patches": 6}
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FLAT = {"sift": 1.0, "patches": 3.0}  # levels of contrast below which a patch is taken as nearly flat
_CLIPPED = 0.2  # Lowe's: no orientation of a bin may dominate a descriptor


class Dense:
    """Descriptors of one kind, of images of one size.

    Attributes:
        centres_P2: Where each patch lies: y, x of its centre as shares of the side.
    """

    def __init__(self, kind: str, size_px: int, patches: tuple[float, ...], step: float):
        self.kind, self.size_px = kind, size_px
        starts = [_starts(size_px, patch * size_px, step * size_px) for patch in patches]
        self._scales = [(patch * size_px, starts_G) for patch, starts_G in zip(patches, starts, strict=True)]

    @cached_property
    def centres_P2(self) -> np.ndarray:
        found = []
        for patch_px, starts_G in self._scales:
            centres_G = (starts_G + patch_px / 2) / self.size_px
            found.append(np.stack(np.meshgrid(centres_G, centres_G, indexing="ij"), -1).reshape(-1, 2))
        return np.concatenate(found)

    @cached_property
    def _pooling(self) -> list[np.ndarray]:
        return [triangles(self.size_px, patch, starts, BINS[self.kind]) for patch, starts in self._scales]

    def __call__(self, images_BSSC: np.ndarray) -> np.ndarray:
        """float32 [B, P, D] of uint8 RGB images."""
        maps_MBSS = _MAPS[self.kind](images_BSSC)
        of_scales = [pooled(maps_MBSS, weights_GKS) for weights_GKS in self._pooling]
        return _FINISH[self.kind](np.concatenate(of_scales, 1))


def _starts(size_px: int, patch_px: float, step_px: float) -> np.ndarray:
    """Where patches begin: as many as fit, the margins on both sides alike."""
    count = int((size_px - patch_px) / step_px + 1e-6) + 1
    margin = (size_px - patch_px - (count - 1) * step_px) / 2
    return margin + step_px * np.arange(count)


def triangles(size_px: int, patch_px: float, starts_G: np.ndarray, num_bins: int) -> np.ndarray:
    """float32 [G, K, S]: weights of an axis's pixels in each bin; 1 in all, falling to 0 at the neighbours' centres."""
    bin_px = patch_px / num_bins
    centres_GK = starts_G[:, None] + bin_px * (np.arange(num_bins) + 0.5) - 0.5
    away_GKS = np.abs(np.arange(size_px) - centres_GK[..., None]) / max(bin_px, 1)
    weights_GKS = np.maximum(0, 1 - away_GKS)
    return (weights_GKS / weights_GKS.sum(-1, keepdims=True)).astype(np.float32)


def pooled(maps_MBSS: np.ndarray, weights_GKS: np.ndarray) -> np.ndarray:
    """float32 [B, G * G, K * K * M]: weighted means of maps in the bins of every patch."""
    G, K, S = weights_GKS.shape
    flat = weights_GKS.reshape(G * K, S)
    of_bins = flat @ maps_MBSS @ flat.T
    M, B = maps_MBSS.shape[:2]
    by_patch = of_bins.reshape(M, B, G, K, G, K).transpose(1, 2, 4, 3, 5, 0)
    return by_patch.reshape(B, G * G, K * K * M)


def orientation_maps(images_BSSC: np.ndarray) -> np.ndarray:
    """float32 [8, B, S, S]: the gradient's length, shared between the two orientations that are next to its own."""
    grey_BSS = images_BSSC.astype(np.float32) @ _LUMA
    padded = np.pad(grey_BSS, ((0, 0), (1, 1), (1, 1)), mode="edge")
    dx = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    dy = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    length, turn = np.hypot(dx, dy), np.arctan2(dy, dx) * (ORIENTATIONS / (2 * np.pi))  # -4 to 4
    lower = np.floor(turn)
    share, lower = turn - lower, lower.astype(np.int8) % ORIENTATIONS
    maps_MBSS = np.zeros((ORIENTATIONS, *grey_BSS.shape), np.float32)
    np.put_along_axis(maps_MBSS, lower[None].astype(np.intp), ((1 - share) * length)[None], 0)
    upper = (lower[None].astype(np.intp) + 1) % ORIENTATIONS
    np.put_along_axis(maps_MBSS, upper, (share * length)[None], 0)  # another map than the lower one's
    return maps_MBSS


def _colour_maps(images_BSSC: np.ndarray) -> np.ndarray:
    """[6, B, S, S]: the channels on about -2 to 2, and their squares."""
    channels = np.moveaxis(images_BSSC, 3, 0).astype(np.float32) / 64 - 2
    return np.concatenate([channels, channels**2])


def _channels(images_BSSC: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(images_BSSC, 3, 0), np.float32)


def _sift(values_BPD: np.ndarray) -> np.ndarray:
    """Of unit length, clipped, and the root of it (RootSIFT); of flat patches shorter."""
    length_BP1 = np.linalg.norm(values_BPD, axis=-1, keepdims=True)
    return np.sqrt(np.minimum(values_BPD / np.maximum(length_BP1, _FLAT["sift"]), _CLIPPED))


def _colour(values_BPD: np.ndarray) -> np.ndarray:
    """Means and standard deviations of the channels in each bin."""
    of_bins = values_BPD.reshape(*values_BPD.shape[:2], -1, 6)
    means, squares = of_bins[..., :3], of_bins[..., 3:]
    deviations = np.sqrt(np.maximum(squares - means**2, 0))
    return np.concatenate([means, deviations], -1).reshape(values_BPD.shape)


def _patches(values_BPD: np.ndarray) -> np.ndarray:
    """Brightness and contrast are taken out."""
    centred = values_BPD - values_BPD.mean(-1, keepdims=True)
    return centred / np.sqrt(centred.var(-1, keepdims=True) + _FLAT["patches"] ** 2)


_MAPS = {"sift": orientation_maps, "colour": _colour_maps, "patches": _channels}
_FINISH = {"sift": _sift, "colour": _colour, "patches": _patches}
