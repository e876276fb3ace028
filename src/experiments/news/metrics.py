"""How well distances find related news. Vectors may be dense [N, D] arrays or sparse matrices.

Every item is a query once; its candidates are all other items given, never itself. A candidate is relevant
when it carries the query's label (category or subcategory). Queries without any relevant candidate are left
out: no model can answer them. Of more than `ALL` items a sample are queries, the same each time; candidates
are all items all the same, for among fewer ones fewer are relevant and the figures would be others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = Any  # NDArray or scipy.sparse matrix; both multiply with @ and slice by rows

ROWS = 1024  # queries at once, at most
DISTANCES = 1 << 21  # computed at once, 16 MB: memory does not grow with the square of the items
ALL = 10_000  # items that are all queries; with so many a measuring takes 10 s
SAMPLE = 5000  # queries of more items
CERTAIN = 1.96  # standard errors of a mean, 95 % of which are off by less


def distances(queries: Vectors, candidates: Vectors) -> NDArray[np.float64]:
    """Return the Euclidean distances [Q, N] of queries [Q, D] to candidates [N, D]."""
    products = queries @ candidates.T
    products = products.toarray() if hasattr(products, "toarray") else products
    squares = _squares(queries)[:, None] + _squares(candidates)[None, :] - 2 * products
    return np.sqrt(np.maximum(squares, 0))


def triplet_distances(
    vectors: Vectors, triplets: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances [T] of anchors to positives and to negatives; triplets [T, 3] are rows."""
    anchors = vectors[triplets[:, 0]]
    positive, negative = (np.sqrt(_squares(anchors - vectors[triplets[:, side]])) for side in (1, 2))
    return positive, negative


def triplet_metrics(vectors: Vectors, triplets: NDArray[np.integer], margin: float) -> dict[str, float]:
    """Return `loss`, the mean of max(0, ‖a-p‖ - ‖a-n‖ + margin), and `triplet_accuracy`.

    The latter is the share with ‖a-p‖ < ‖a-n‖; a tie counts one half, as in the area under a ROC curve.
    """
    positive, negative = triplet_distances(vectors, triplets)
    return {
        "loss": float(np.maximum(0, positive - negative + margin).mean()),
        "triplet_accuracy": float(((positive < negative) + 0.5 * (positive == negative)).mean()),
    }


def precision_at(vectors: Vectors, labels: NDArray[Any], k: int = 10) -> float:
    """Return the mean share of relevant items among the k nearest candidates.

    With fewer than k candidates, all of them count and the share is of that number. NaN where no query has
    a relevant candidate.
    """
    k = min(k, len(labels) - 1)
    shares = []
    for ranked, same in _queries(vectors, labels):
        nearest = np.argpartition(ranked, k - 1, axis=1)[:, :k] if k > 0 else np.empty((len(ranked), 0), int)
        shares.append(np.take_along_axis(same, nearest, axis=1).sum(axis=1)[same.any(axis=1)] / max(k, 1))
    return _mean(shares)


def mean_reciprocal_rank(vectors: Vectors, labels: NDArray[Any]) -> float:
    """Return the mean of 1 / (rank of the nearest relevant candidate); NaN where no query has one.

    Equal distances rank by row, as a stable sort would.
    """
    reciprocals = []
    for ranked, same in _queries(vectors, labels):
        relevant = np.where(same, ranked, np.inf)
        first = relevant.argmin(axis=1)[:, None]
        nearest = np.take_along_axis(relevant, first, axis=1)
        before = np.arange(len(labels)) < first
        ahead = (ranked < nearest) | ((ranked == nearest) & before)
        reciprocals.append(1 / (1 + ahead.sum(axis=1))[same.any(axis=1)])
    return _mean(reciprocals)


def mean_distances(vectors: Vectors, codes: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the mean distances [C, C] between items of each two groups, never of an item and itself.

    `codes` [N] say each item's group. NaN within a group of one. Of very many items
    those that are queries are measured, each to all.
    """
    members = np.eye(codes.max() + 1)[codes]  # [N, C]
    asked = _asked(len(codes))
    sums = np.zeros((members.shape[1], members.shape[1]))
    for rows in _blocks(asked, len(codes)):
        near = distances(vectors[rows], vectors)
        near[np.arange(len(rows)), rows] = 0
        sums += members[rows].T @ (near @ members)
    sizes = members[asked].sum(axis=0)
    with np.errstate(invalid="ignore"):
        return sums / (np.outer(sizes, members.sum(axis=0)) - np.diag(sizes))


def sampling(items: int) -> str:
    """Return a phrase about how many of the items are queries and what that costs; '' where all are.

    A figure between 0 and 1 has a standard deviation of 1/2 at most, and the mean of a sample of n out of N
    a standard error of that times √((1 - n/N) / n).
    """
    if items <= ALL:
        return ""
    error = CERTAIN * 0.5 * np.sqrt((1 - SAMPLE / items) / SAMPLE)
    return f", {SAMPLE:,} of them as queries: precision and MRR are exact to ±{error:.3f} (95 %)"


def _queries(
    vectors: Vectors, labels: NDArray[Any]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Yield some queries' distances [Q, N], infinite to themselves, and who is relevant to them [Q, N]."""
    for rows in _blocks(_asked(len(labels)), len(labels)):
        ranked = distances(vectors[rows], vectors)
        ranked[np.arange(len(rows)), rows] = np.inf
        same = labels[rows][:, None] == labels[None, :]
        same[np.arange(len(rows)), rows] = False
        yield ranked, same


def _asked(count: int) -> NDArray[np.int64]:
    """Return which of so many items are queries."""
    if count <= ALL:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, SAMPLE, replace=False))


def _blocks(rows: NDArray[np.int64], count: int) -> Iterator[NDArray[np.int64]]:
    """Yield some rows in turn, as many as may be compared with all `count` at once."""
    size = max(1, min(ROWS, DISTANCES // max(1, count)))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _squares(vectors: Vectors) -> NDArray[np.float64]:
    """Return the squared length [N] of each row."""
    squares = vectors.multiply(vectors) if hasattr(vectors, "multiply") else vectors * vectors
    return np.asarray(squares.sum(axis=1)).ravel()


def _mean(parts: list[NDArray[np.float64]]) -> float:
    values = np.concatenate(parts) if parts else np.empty(0)
    return float(values.mean()) if len(values) else float("nan")
