"""The nearest of many vectors by Euclidean distance, exactly: one search for training and serving.

A trained network's vectors vary along few directions. A narrow copy of them, turned to these, tells how near
a vector is at least; only those that may be among the nearest are measured in full. What the copy leaves out
is kept as one number a vector, its length: two vectors are as far apart there as their lengths, or farther.
Where vectors vary along all directions alike, the copy keeps all.
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
LIKELY = 10  # nearest of each
MEASURED = 10  # a number of a vector that is measured in full costs as much as so many of the copy's
GROUP = 64  # vectors whose least bound is looked at first
SPARE = 22  # vectors beyond k that are measured first
BLOCK = 1 << 18  # numbers that are worked on at once: 2 MB in double precision, which a core's cache holds
BOUNDS = 1 << 23  # numbers of a step through the copy, for all queries that are asked at once: 32 MB
FAR = 1e6  # of a query, in lengths of the longest vector: single precision tells nothing apart from there
NOTHING = 1e30  # a bound that no vector has
SINGLE = np.finfo(np.float32)


class Index:
    """Vectors to search among."""

    def __init__(self, vectors: NDArray[np.float16] | NDArray[np.float32]) -> None:
        """Prepare the search.

        Args:
            vectors: [N, D]. They are kept, not copied, and must not change.

        Raises:
            UserError: One of them holds NaN or infinity.
        """
        count, width = vectors.shape
        for rows in _blocks(count, width):
            if not (finite := np.isfinite(vectors[rows]).all(axis=1)).all():
                row = rows.start + int(finite.argmin())
                raise UserError(f"Vector {row} of {count:,} holds NaN or infinity. Did the training diverge?")
        self._vectors, self._scale = vectors, 1.0
        self._centre, self._axes = _directions(vectors)
        longest = [_squares(self._centred(vectors[rows])).max() for rows in _blocks(count, width)]
        self._scale = float(np.sqrt(max(longest, default=0))) or 1.0
        self._groups = -(-count // GROUP)
        self._copy = np.zeros((self._axes.shape[1] + 2, self._groups * GROUP), np.float32)
        self._copy[-1, count:] = NOTHING  # what fills the last groups
        for rows in _blocks(count, width):
            turned, rest, squares = self._turned(vectors[rows])
            self._copy[:-2, rows], self._copy[-2, rows], self._copy[-1, rows] = turned.T, rest, squares

    def nearest(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the k nearest vectors to each query, nearest first.

        Distances are compared in double precision; equal ones rank by row.

        Args:
            queries: [Q, D].
            k: How many; with fewer vectors, all of them.

        Returns:
            Euclidean distances [Q, k], and rows [Q, k] of the vectors.

        Raises:
            UserError: A query holds NaN or infinity.
        """
        if not np.isfinite(queries).all():
            raise UserError("A vector to search for holds NaN or infinity. Did the training diverge?")
        k = min(k, len(self._vectors))
        distances, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for part in _blocks(len(queries), self._copy.shape[1], BOUNDS) if k else ():
            for place, (query, likely) in enumerate(self._likely(queries[part], k), part.start):
                distances[place], rows[place] = self._ranked(query, likely, k)
        return distances, rows

    def _likely(
        self, queries: NDArray[np.float32], k: int
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Yield each query with the rows, by their number, among which its k nearest are.

        A bound is a sum of m + 2 products in single precision. Its rounding is at most m + 2 roundings, and
        two of the factors, of terms that come to 2|q||c| + |c|^2 (N. Higham, "Accuracy and Stability of
        Numerical Algorithms", 2002, section 3.1).
        """
        turned, rest, own = self._turned(queries)
        near = own < FAR**2
        asked = np.concatenate([-2 * turned, -2 * rest[:, None], np.ones((len(queries), 1))], 1)
        asked[~near] = 0
        bounds = asked.astype(np.float32) @ self._copy  # squared distances at least, less the query's length
        grouped = bounds.reshape(len(queries), GROUP, self._groups)
        first = min(k + SPARE, self._groups)
        groups = np.argpartition(grouped.min(1), first - 1, axis=1)[:, :first]
        likely = np.take_along_axis(grouped, groups[:, None], 2).argmin(1) * self._groups + groups
        rounding = 4 * len(self._copy) * SINGLE.eps * (own + 1)
        for place, query in enumerate(queries):
            if near[place]:
                some = likely[place] if k <= first else bounds[place].argpartition(k - 1)[:k]
                reach = np.partition(self._apart(query.astype(np.float64), some), k - 1)[k - 1]
                limit = reach / self._scale**2 - own[place] + rounding[place]
                yield query, np.flatnonzero(bounds[place] <= limit)
            else:
                yield query, np.arange(len(self._vectors))

    def _ranked(
        self, query: NDArray[np.float32], likely: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return a query's k least distances to some rows, and which these are.

        A squared distance in single precision is wrong by D + 2 roundings of itself at most, for it is a sum
        of squares, or by D of the smallest numbers there are.
        """
        rough, width = self._apart(query, likely), len(query)
        farthest = np.partition(rough, k - 1)[k - 1]
        rows = likely[rough <= farthest * (1 + 4 * (width + 4) * SINGLE.eps) + 4 * width * SINGLE.tiny]
        squares = self._apart(query.astype(np.float64), rows)
        order = squares.argsort(kind="stable")[:k]
        return np.sqrt(squares[order]), rows[order]

    def _turned(
        self, vectors: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return vectors along the copy's directions, the length of the rest, and the whole's squared length.

        The longest of the vectors that are searched has length 1.
        """
        centred = self._centred(vectors)
        squares = _squares(centred)
        if self._axes.shape[1] == len(self._centre):
            return centred, np.zeros(len(centred)), squares
        turned = centred @ self._axes
        return turned, np.sqrt(np.maximum(squares - _squares(turned), 0)), squares

    def _centred(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """Return vectors from the centre on, in lengths of the longest."""
        centred = vectors.astype(np.float64)
        centred -= self._centre
        centred /= self._scale
        return centred

    def _apart(self, query: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the squared distances of some of the vectors to a query, in the query's precision."""
        found = np.empty(len(rows), query.dtype)
        with np.errstate(over="ignore"):  # to infinity, which is compared as well
            for part in _blocks(len(rows), self._vectors.shape[1]):
                found[part] = _squares(self._vectors[rows[part]] - query)
        return found


def _directions(vectors: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a centre [D] of the vectors, and the directions [D, m] of the copy, along which they vary most.

    The width m is the one with which least is left to do: the copy's own numbers, and those of the vectors
    that it can't tell from the nearest. A sample says so.
    """
    count, width = vectors.shape
    if count <= LIKELY:
        return np.zeros(width), np.eye(width)
    sample = vectors[np.linspace(0, count - 1, min(count, SAMPLE)).astype(int)].astype(np.float64)
    centre = sample.mean(0)
    sample -= centre
    axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1]  # the most varying first
    turned = sample @ axes
    asked = turned[np.linspace(0, len(turned) - 1, min(len(turned), ASKED)).astype(int)]
    sums, own = np.cumsum(turned * turned, axis=1), np.cumsum(asked * asked, axis=1)

    def bounds(most: int) -> NDArray[np.float64]:
        rest, its = (np.sqrt(np.maximum(each[:, -1] - each[:, most - 1], 0)) for each in (sums, own))
        products = asked[:, :most] @ turned[:, :most].T + its[:, None] * rest
        return own[:, -1:] + sums[:, -1] - 2 * products

    reach = np.partition(bounds(width), LIKELY, axis=1)[:, LIKELY, None]
    work = {width: float(width)}
    for most in WIDTHS:
        if most < width:
            work[most] = most + MEASURED * width * float((bounds(most) <= reach).mean())
    least = min(work, key=work.__getitem__)
    return centre, np.eye(width) if least == width else axes[:, :least]


def _squares(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the squared length [N] of each vector [N, D]."""
    return np.einsum("ij,ij->i", vectors, vectors)


def _blocks(count: int, width: int, numbers: int = BLOCK) -> Iterator[slice]:
    """Yield parts of so many rows of a width, each of so many numbers that are worked on at once."""
    step = max(1, numbers // max(1, width))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
