"""What neighbours say of features: how many are of the right class, and how unlike they are as pixels.

Letters: Q queries, K neighbours, S queries of which the pixels are compared, U values of an image.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.neighbours import Share, chance, mean, right_class
from pipelines.pixels import Compared, PixelRows, side_px

SHOWN = 6  # neighbours whose distance in pixels is told: as many as the paper shows


def told(
    labels_Q: np.ndarray,
    features_QK: np.ndarray,
    by_pixels: Compared,
    queries: PixelRows,
    counts: dict[int, int],
    crop_px: int,
) -> dict[str, Any]:
    """The shares of neighbours of the right class, at 1, 6 and 50, and how far neighbours are from queries as pixels.

    Args:
        features_QK: Labels of the neighbours by features.
        by_pixels: The neighbours by pixels of some queries, and how far their `others` are.
        queries: These queries.
        counts: Training images by label.
    """
    by_chance = chance(labels_Q, counts)
    levels = np.sqrt(queries.pixels_NU.shape[1])
    of = {
        "feature_neighbours": by_pixels.distances_QM[:, :SHOWN],
        "pixel_neighbours": by_pixels.nearest.distances_QK[:, :SHOWN],
        "random_images": by_pixels.distances_QM[:, SHOWN:],
    }
    means = {name: mean((distances / levels).mean(axis=1)) for name, distances in of.items()}
    return {
        "right_class": {
            "features": _by_k(right_class(labels_Q, features_QK)),
            "pixels": _by_k(right_class(queries.labels_N, by_pixels.labels_QK)),
            "chance": by_chance and by_chance._asdict(),
        },
        "pixels": {
            "queries": len(queries.ids_N),
            "crop_px": crop_px,
            "side_px": side_px(crop_px),
            "rms_levels": {
                name: {"mean": found.share, "standard_error": found.standard_error} for name, found in means.items()
            },
        },
    }


def others(neighbours_QK: np.ndarray, train_ids_N: np.ndarray, own_Q: np.ndarray | None = None) -> np.ndarray:
    """Ids [Q, 12]: of the six nearest by features, then of six training images at random; none is the query's own."""
    random = np.random.default_rng([neighbours_QK.shape[0], len(train_ids_N)])
    drawn_Q6 = random.integers(0, len(train_ids_N), (len(neighbours_QK), SHOWN))
    if own_Q is not None:
        drawn_Q6 = np.where(train_ids_N[drawn_Q6] == own_Q[:, None], (drawn_Q6 + 1) % len(train_ids_N), drawn_Q6)
    return np.concatenate([neighbours_QK[:, :SHOWN], train_ids_N[drawn_Q6]], axis=1)


def percent(share: Share) -> str:
    """With its standard error."""
    error = "" if share.standard_error is None else f" ± {100 * share.standard_error:.1f}"
    return f"{100 * share.share:.1f}{error} %"


def _by_k(found: Mapping[int, Share]) -> dict[str, Any]:
    return {str(k): share._asdict() for k, share in found.items()}
