"""What neighbours say of features: how many are of the right class, and how unlike they are as pixels.

Letters: Q queries, K neighbours, S queries of which the pixels are compared, U values of an image.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.neighbours import AT, Share, chance, mean, right_class

SHOWN = 6  # neighbours of which the distance in pixels is told, as many as the paper shows


def shares(
    labels_Q: np.ndarray, features_QK: np.ndarray, labels_S: np.ndarray, pixels_SK: np.ndarray, counts: dict[int, int]
) -> dict[str, Any]:
    """Of the right class at 1, 6 and 50: among neighbours by features and by pixels (their labels), and by chance."""
    by_chance = chance(labels_Q, counts)
    return {
        "features": _by_k(right_class(labels_Q, features_QK)),
        "pixels": _by_k(right_class(labels_S, pixels_SK)),
        "chance": by_chance and by_chance._asdict(),
    }


def in_pixels(features_S6: np.ndarray, pixels_S6: np.ndarray, random_S6: np.ndarray, values: int) -> dict[str, Any]:
    """How far from the query: root mean squares over the `values` of an image, in levels of 0 to 255."""
    of = {"feature_neighbours": features_S6, "pixel_neighbours": pixels_S6, "random_images": random_S6}
    means = {name: mean((distances_S6 / np.sqrt(values)).mean(axis=1)) for name, distances_S6 in of.items()}
    return {name: {"mean": found.share, "standard_error": found.standard_error} for name, found in means.items()}


def others(neighbours_QK: np.ndarray, train_ids_N: np.ndarray, own_Q: np.ndarray | None) -> np.ndarray:
    """Ids [Q, 12]: of the six nearest by features, then of six training images at random; none is the query's own."""
    random = np.random.default_rng([neighbours_QK.shape[0], len(train_ids_N)])
    drawn_Q6 = random.integers(0, len(train_ids_N), (len(neighbours_QK), SHOWN))
    if own_Q is not None:
        drawn_Q6 = np.where(train_ids_N[drawn_Q6] == own_Q[:, None], (drawn_Q6 + 1) % len(train_ids_N), drawn_Q6)
    return np.concatenate([neighbours_QK[:, :SHOWN], train_ids_N[drawn_Q6]], axis=1)


def lines(found: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The shares as they are told: what was compared, and its share in % with its error for 1, 6 and 50."""
    told = []
    for name in ("features", "pixels"):
        known = found[name]
        told.append((name, [percent(Share(**known[str(k)])) if str(k) in known else "" for k in AT]))
    by_chance = percent(Share(**found["chance"])) if found["chance"] else ""
    return [*told, ("chance", [by_chance] * len(AT))]


def percent(share: Share) -> str:
    """With its standard error."""
    return f"{100 * share.share:.1f} ± {100 * share.standard_error:.1f} %"


def _by_k(found: Mapping[int, Share]) -> dict[str, Any]:
    return {str(k): share._asdict() for k, share in found.items()}
