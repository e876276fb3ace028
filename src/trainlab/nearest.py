"""The rows of a table that are nearest to some vectors, exactly, in NumPy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Index:
    """Vectors [N, D] to search in, by Euclidean distance."""

    def __init__(self, vectors: NDArray[Any]) -> None:
        self._vectors = np.ascontiguousarray(vectors, np.float32)
        self._lengths = (self._vectors * self._vectors).sum(1)

    def nearest(self, queries: NDArray[Any], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return distances and rows [Q, k] of the vectors nearest to queries [Q, D], ties by row."""
        asked = np.asarray(queries, np.float32)
        squares = self._lengths - 2 * asked @ self._vectors.T + (asked * asked).sum(1)[:, None]
        rows = np.argsort(squares, axis=1, kind="stable")[:, : min(k, len(self._vectors))]
        near = np.sqrt(np.maximum(np.take_along_axis(squares, rows, 1), 0))
        return near.astype(np.float32), rows.astype(np.int64)
