"""The nearest of many vectors by Euclidean distance, exactly: one search for training and serving.

A trained network's vectors vary along few directions. A narrow copy of them, turned to these, tells how near
a vector is at least; only those that may be among the nearest are measured in full. What the copy leaves out
is kept as one number a vector, its length (Cauchy-Schwarz). Where vectors vary along all directions alike,
the copy keeps them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

WIDTHS = (16, 32, 64, 128)  # directions that the copy may have, besides all
SAMPLE = 8192  # vectors that say which directions, and how many
ASKED = 32  # of these are queries for that
LIKELY = 10  # of how many nearest
SURVIVOR = 8  # a number of a vector that is measured in full costs so many of the copy's
GROUP = 64  # vectors whose least bound is looked at first
SPARE = 22  # vectors beyond k that are measured first
BLOCK = 1 << 23  # numbers that are worked on at once: 64 MB in double precision
FILLER = 1e30
FAR = 1e6  # of a query, in lengths of the longest vector: beyond it single precision tells nothing apart


class Index:
    """Vectors to search among."""

    def __init__(self, vectors: NDArray[Any]) -> None:
        """Prepare the search.

        Args:
            vectors: [N, D] of 16, 32 or 64 bits. They are kept, not copied, and must not change.

        Raises:
            UserError: One of them holds NaN or infinity.
        """
        for rows in _blocks(len(vectors), vectors.shape[1]):
            if not (finite := np.isfinite(vectors[rows]).all(axis=1)).all():
                row = rows.start + int(finite.argmin())
                raise UserError(
                    f"Vector {row} of {len(vectors):,} holds NaN or infinity. Did the training diverge?"
                )
        self._vectors = vectors
        self._centre, self._axes, lengths = _directions(vectors)
        self._scale = float(np.sqrt(lengths.max(initial=0))) or 1.0
        count = len(vectors)
        self._groups = -(-count // GROUP)
        self._copy = np.zeros((self._axes.shape[1] + 2, self._groups * GROUP), np.float32)
        self._copy[-1, count:] = FILLER  # what fills the last groups is nearest to nothing
        for rows in _blocks(count, vectors.shape[1]):
            turned, rest, squares = self._turned(vectors[rows])
            self._copy[:-2, rows], self._copy[-2, rows], self._copy[-1, rows] = turned.T, rest, squares

    def nearest(self, queries: NDArray[Any], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the k nearest vectors to each query, nearest first.

        Distances are taken and compared in double precision; equal ones rank by row.

        Args:
            queries: [Q, D].
            k: How many; with fewer vectors, all of them.

        Returns:
            Euclidean distances [Q, k], and rows [Q, k] of the vectors.

        Raises:
            UserError: A query holds NaN or infinity.
        """
        k = min(k, len(self._vectors))
        distances, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        if not np.isfinite(queries).all():
            raise UserError("A vector to search for holds NaN or infinity. Did the training diverge?")
        for part in _blocks(len(queries), self._copy.shape[1]) if k else ():
            for query, (squares, found) in enumerate(self._search(queries[part], k), part.start):
                distances[query], rows[query] = np.sqrt(squares), found
        return distances, rows

    def _search(self, queries: NDArray[Any], k: int) -> list[tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """Return each query's k least squared distances, and their rows.

        A bound is a sum of m + 2 products in single precision. Its rounding is at most m + 2 roundings, and
        some of the factors, of terms that come to 2|q||c| + |c|^2 (N. Higham, "Accuracy and Stability of
        Numerical Algorithms", 2002, section 3.1).
        """
        turned, rest, own = self._turned(queries)
        near = own <= FAR**2
        asked = np.concatenate([-2 * turned, -2 * rest[:, None], np.ones((len(queries), 1))], 1)
        bounds = np.where(near[:, None], asked, 0).astype(np.float32) @ self._copy
        grouped = bounds.reshape(len(queries), GROUP, self._groups)
        least = grouped.min(1)
        first = min(k + SPARE, self._groups)
        groups = np.argpartition(least, first - 1, axis=1)[:, :first]
        within = np.take_along_axis(grouped, groups[:, None], 2).argmin(1)
        likely = within * self._groups + groups
        rounding = 4 * len(self._copy) * np.finfo(np.float32).eps * (own + 1)
        found = []
        for query, vector in enumerate(queries):
            if near[query]:
                rows = likely[query] if k <= first else np.argpartition(bounds[query], k - 1)[:k]
                reach = np.partition(self._squares(vector, rows), k - 1)[k - 1] / self._scale**2
                rows = np.flatnonzero(bounds[query] <= reach - own[query] + rounding[query])
            else:
                rows = np.arange(len(self._vectors))
            squares = self._squares(vector, rows)
            order = squares.argsort(kind="stable")[:k]
            found.append((squares[order], rows[order]))
        return found

    def _turned(
        self, vectors: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return vectors along the copy's directions, the length of the rest, and the whole's squared length.

        The longest of the vectors that are searched has length 1.
        """
        centred = (vectors.astype(np.float64) - self._centre) / self._scale
        turned = centred @ self._axes
        squares = (centred * centred).sum(1)
        return turned, np.sqrt(np.maximum(squares - (turned * turned).sum(1), 0)), squares

    def _squares(self, query: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the squared distances of some of the vectors to a query, in double precision."""
        found = np.empty(len(rows))
        for part in _blocks(len(rows), self._vectors.shape[1]):
            apart = self._vectors[rows[part]] - query.astype(np.float64)
            found[part] = (apart * apart).sum(1)
        return found


def _directions(
    vectors: NDArray[Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the vectors' centre [D], the copy's directions [D, m], and squared distances from the centre.

    The directions are those of a sample along which it varies most. Of the widths, it is the one with which
    least is left to do: the copy's own numbers, and those of the vectors that it can't tell from the nearest.
    """
    count, width = vectors.shape
    sample = vectors[np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(int))].astype(np.float64)
    centre = sample.mean(0) if count else np.zeros(width)
    lengths = np.empty(count)
    for rows in _blocks(count, width):
        centred = vectors[rows].astype(np.float64) - centre
        lengths[rows] = (centred * centred).sum(1)
    sample -= centre
    axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1]  # by growing variance, turned round
    return centre, axes[:, : _width(sample @ axes)], lengths


def _width(turned: NDArray[np.float64]) -> int:
    """Return of how many numbers the copy is, for a sample [S, D] turned to its axes."""
    most = turned.shape[1]
    rows = np.linspace(0, len(turned) - 1, min(len(turned), ASKED)).astype(int)
    sums = np.cumsum(turned * turned, axis=1)

    def bounds(width: int) -> NDArray[np.float64]:
        rest = np.sqrt(np.maximum(sums[:, -1] - sums[:, width - 1], 0))
        products = turned[rows, :width] @ turned[:, :width].T + rest[rows, None] * rest
        return sums[rows, -1, None] + sums[:, -1] - 2 * products

    if len(turned) <= LIKELY:
        return most
    reach = np.partition(bounds(most), LIKELY, axis=1)[:, LIKELY, None]
    work = {most: float(most)}
    for width in WIDTHS:
        if width < most:
            work[width] = width + SURVIVOR * most * float((bounds(width) <= reach).mean())
    return min(work, key=work.__getitem__)


def _blocks(count: int, width: int) -> Iterator[slice]:
    """Yield parts of so many rows that are worked on at once."""
    step = max(1, BLOCK // max(1, width))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
