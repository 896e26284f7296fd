"""The spatial pyramid: which patches lie in which part of the image."""

import numpy as np


def regions(centres_P2: np.ndarray, grids: tuple[int, ...]) -> list[np.ndarray]:
    """Indices of the patches of each cell: of each grid n x n, row by row.

    Args:
        centres_P2: y, x as shares of the side.

    Raises:
        ValueError: A cell holds no patch.
    """
    found = []
    for grid in grids:
        cells_P2 = np.minimum((centres_P2 * grid).astype(int), grid - 1)
        cells_P = cells_P2[:, 0] * grid + cells_P2[:, 1]
        found += [np.flatnonzero(cells_P == cell) for cell in range(grid * grid)]
    if not all(len(inside) for inside in found):
        raise ValueError(f"grids={','.join(map(str, grids))}: a part of the image has no patch; use smaller grids")
    return found


def unit_rows(values_BD: np.ndarray) -> np.ndarray:
    """Rows of length 1; of zeros they stay."""
    return values_BD / np.maximum(np.linalg.norm(values_BD, axis=-1, keepdims=True), 1e-12)
