"""Fisher vectors: how an image's descriptors differ from a mixture of Gaussians (Sánchez, Perronnin and others, 2013).

For each Gaussian k with weight w, mean m and deviation s, and q the posterior of each descriptor x of a region:

    u_k = mean(q (x - m) / s) / sqrt(w)        v_k = mean(q ((x - m)^2 / s^2 - 1)) / sqrt(2 w)

Every region's vector takes its signed root and length 1; all regions together have length 1.

Letters: B images, P patches, D values of a descriptor, C components, K Gaussians, F values of the vector.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from pipelines.baselines.pyramid import unit_rows
from pipelines.baselines.specs import FisherSpec

_SMALLEST_VARIANCE = 1e-4  # of a Gaussian, as a share of all descriptors'
_ITERATIONS = 30  # of expectation and maximisation


@dataclass(frozen=True)
class FisherVocabulary:
    """What is learned from descriptors: their principal components, and a mixture of Gaussians of those."""

    mean_D: np.ndarray
    components_DC: np.ndarray
    weights_K: np.ndarray
    means_KC: np.ndarray
    variances_KC: np.ndarray

    @staticmethod
    def learn(descriptors_ND: np.ndarray, spec: FisherSpec) -> "FisherVocabulary":
        """ValueError where there are fewer descriptors than Gaussians."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        if len(descriptors_ND) < spec.gaussians:
            raise ValueError(f"{len(descriptors_ND)} descriptors are too few for fisher.gaussians={spec.gaussians}")
        mean_D, components_DC = principal(descriptors_ND, spec.components)
        reduced_NC = (descriptors_ND - mean_D) @ components_DC
        mixture = GaussianMixture(
            spec.gaussians,
            covariance_type="diag",
            max_iter=_ITERATIONS,
            init_params="k-means++",
            reg_covar=float(_SMALLEST_VARIANCE * reduced_NC.var() + 1e-9),
            random_state=spec.seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # so many iterations are enough
            mixture.fit(reduced_NC)
        learned = (mixture.weights_, mixture.means_, mixture.covariances_)
        return FisherVocabulary(mean_D, components_DC, *(values.astype(np.float32) for values in learned))

    def encode(self, descriptors_BPD: np.ndarray, regions: list[np.ndarray]) -> np.ndarray:
        """float32 [B, F], F = regions * K * 2 C."""
        reduced_BPC = (descriptors_BPD - self.mean_D) @ self.components_DC
        both_BPX = np.concatenate([reduced_BPC, reduced_BPC**2], -1)
        posteriors_BPK = self.posteriors(both_BPX)
        vectors = []
        for inside in regions:
            q_BKP = posteriors_BPK[:, inside].transpose(0, 2, 1)
            vectors.append(self._vectors(q_BKP.mean(-1), q_BKP @ both_BPX[:, inside] / len(inside)))
        return np.concatenate(vectors, 1) / np.float32(np.sqrt(len(regions)))

    def posteriors(self, both_BPX: np.ndarray) -> np.ndarray:
        """[B, P, K] of reduced descriptors and their squares, side by side."""
        precision_KC = 1 / self.variances_KC
        constant_K = np.log(self.weights_K) - 0.5 * (
            np.log(self.variances_KC).sum(1) + (self.means_KC**2 * precision_KC).sum(1)
        )
        slope_KX = np.concatenate([self.means_KC * precision_KC, -0.5 * precision_KC], 1)
        logs_BPK = both_BPX @ slope_KX.T + constant_K
        logs_BPK -= logs_BPK.max(-1, keepdims=True)
        np.exp(logs_BPK, out=logs_BPK)
        return logs_BPK / logs_BPK.sum(-1, keepdims=True)

    def _vectors(self, zeroth_BK: np.ndarray, both_BKX: np.ndarray) -> np.ndarray:
        """[B, K * 2 C] from the means of q, of q x and of q x^2."""
        first_BKC, second_BKC = np.split(both_BKX, 2, axis=-1)
        q_BK1, m, weights_K1 = zeroth_BK[..., None], self.means_KC, self.weights_K[:, None]
        u = (first_BKC - m * q_BK1) / np.sqrt(self.variances_KC * weights_K1)
        spread = second_BKC - 2 * m * first_BKC + (m**2 - self.variances_KC) * q_BK1
        v = spread / (self.variances_KC * np.sqrt(2 * weights_K1))
        raw_BX = np.concatenate([u, v], -1).reshape(len(u), -1)
        return unit_rows(np.sign(raw_BX) * np.sqrt(np.abs(raw_BX)))


def principal(descriptors_ND: np.ndarray, num_components: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean [D], and the directions of the largest variances [D, C]."""
    mean_D = descriptors_ND.mean(0)
    _, vectors_DD = np.linalg.eigh(np.cov((descriptors_ND - mean_D).T))
    return mean_D, np.ascontiguousarray(vectors_DD[:, ::-1][:, :num_components], np.float32)
