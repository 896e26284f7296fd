"""Sparse codes: descriptors, whitened and of length 1, by the few atoms of a dictionary that are like them.

The dictionary is learned by spherical k-means (orthogonal matching pursuit with one atom), and a code is what of each
product passes a threshold, one step of the solution with an L1 penalty: Coates and Ng, 2011, who find both as good as
exact sparse coding. Each region of the image keeps the largest code of each atom; the vector has length 1.

Letters: B images, P patches, D values of a descriptor, A atoms, N descriptors.
"""

from dataclasses import dataclass

import numpy as np

from pipelines.baselines.pyramid import unit_rows
from pipelines.baselines.specs import SparseSpec

_ITERATIONS = 10
_BLOCK = 4096  # descriptors whose products are held at once
_NOISE = 1e-2  # added to the variances before whitening, as a share of their mean


@dataclass(frozen=True)
class SparseVocabulary:
    """What is learned from descriptors: how they are whitened, and a dictionary of atoms of length 1."""

    mean_D: np.ndarray
    whitening_DD: np.ndarray
    atoms_AD: np.ndarray
    threshold: np.ndarray  # a single value

    @staticmethod
    def learn(descriptors_ND: np.ndarray, spec: SparseSpec) -> "SparseVocabulary":
        """ValueError where there are fewer descriptors than atoms."""
        if len(descriptors_ND) < spec.atoms:
            raise ValueError(f"{len(descriptors_ND)} descriptors are too few for sparse.atoms={spec.atoms}")
        mean_D, whitening_DD = whitening(descriptors_ND)
        whitened_ND = unit_rows((descriptors_ND - mean_D) @ whitening_DD)
        atoms_AD = dictionary(whitened_ND, spec.atoms, np.random.default_rng(spec.seed))
        return SparseVocabulary(mean_D, whitening_DD, atoms_AD, np.array(spec.threshold, np.float32))

    def encode(self, descriptors_BPD: np.ndarray, regions: list[np.ndarray]) -> np.ndarray:
        """float32 [B, regions * A]."""
        whitened_BPD = unit_rows((descriptors_BPD - self.mean_D) @ self.whitening_DD)
        products_BPA = whitened_BPD @ self.atoms_AD.T
        largest = [products_BPA[:, inside].max(1) for inside in regions]
        return unit_rows(np.maximum(np.concatenate(largest, 1) - self.threshold, 0))


def whitening(descriptors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [D], and the symmetric matrix [D, D] that makes large variances 1, and small ones no larger."""
    mean_D = descriptors_ND.mean(0)
    variances_D, vectors_DD = np.linalg.eigh(np.cov((descriptors_ND - mean_D).T))
    scale_D = 1 / np.sqrt(np.maximum(variances_D, 0) + _NOISE * variances_D.mean() + 1e-12)
    return mean_D, ((vectors_DD * scale_D) @ vectors_DD.T).astype(np.float32)


def dictionary(unit_ND: np.ndarray, num_atoms: int, random: np.random.Generator) -> np.ndarray:
    """float32 [A, D], rows of length 1: each the mean direction of the descriptors that are closest to it.

    An atom that no descriptor is closest to becomes one of the descriptors.
    """
    atoms_AD = unit_ND[random.choice(len(unit_ND), num_atoms, replace=False)]
    for _ in range(_ITERATIONS):
        sums_AD = np.zeros_like(atoms_AD)
        for start in range(0, len(unit_ND), _BLOCK):
            block_ND = unit_ND[start : start + _BLOCK]
            products_NA = block_ND @ atoms_AD.T
            nearest_N = np.abs(products_NA).argmax(1)
            codes_N = products_NA[np.arange(len(block_ND)), nearest_N]
            np.add.at(sums_AD, nearest_N, codes_N[:, None] * block_ND)
        unused = np.flatnonzero(np.linalg.norm(sums_AD, axis=1) < 1e-6)
        sums_AD[unused] = unit_ND[random.integers(len(unit_ND), size=len(unused))]
        atoms_AD = unit_rows(sums_AD)
    return atoms_AD.astype(np.float32)
