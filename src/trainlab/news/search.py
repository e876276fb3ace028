"""The nearest rows of a table of vectors, exactly, without a distance to every one of them in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

AT_ONCE = 256  # queries: 160 MB of scores at 160,000 candidates
GROUP = 64  # candidates whose least score is looked at first
SPARE = 6  # candidates beyond k that are measured again in double precision


def nearest_rows(
    queries: NDArray[Any], candidates: NDArray[Any], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each query's k nearest candidates, nearest first: rows [Q, k], Euclidean distances [Q, k].

    `queries` [Q, D], `candidates` [N, D]; k is at most N. Equal distances rank by row.

    Single precision finds a few more than k, double precision ranks these. Where single precision might have
    missed one, by the bound on its rounding, the query is ranked among all candidates.
    """
    k = min(k, len(candidates))
    table = torch.from_numpy(np.ascontiguousarray(candidates, np.float32))
    lengths = (table * table).sum(1)
    found = [
        _ranked(queries[start : start + AT_ONCE], candidates, k, table, lengths)
        for start in range(0, len(queries), AT_ONCE)
    ]
    rows, near = zip(*found, strict=True) if found else ([np.empty((0, k), np.int64)], [np.empty((0, k))])
    return np.concatenate(rows), np.concatenate(near)


def _ranked(
    queries: NDArray[Any], candidates: NDArray[Any], k: int, table: Tensor, lengths: Tensor
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    asked = torch.from_numpy(np.ascontiguousarray(queries, np.float32))
    scores = torch.addmm(lengths, asked, table.T, alpha=-2)  # squared distance less the query's own length
    least, likely = _least(scores, min(k + SPARE, len(candidates)))
    rows = np.sort(likely.numpy(), axis=1)
    near = np.linalg.norm(candidates[rows] - queries[:, None], axis=2)
    order = near.argsort(axis=1, kind="stable")[:, :k]
    rows, near = np.take_along_axis(rows, order, 1), np.take_along_axis(near, order, 1)
    if least.shape[1] < len(candidates):
        own = (asked * asked).sum(1)
        reach = (least[:, -1] + own - _rounding(own, lengths, table.shape[1])).numpy()
        for query in np.flatnonzero(near[:, -1] ** 2 >= reach):
            rows[query], near[query] = _among_all(queries[query], candidates, k)
    return rows, near


def _least(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the least scores of each row, and where they are. A group's least stands for it at first."""
    groups = scores.shape[1] // GROUP
    if groups <= count:
        return torch.topk(scores, count, largest=False)
    whole = scores[:, : groups * GROUP].view(len(scores), groups, GROUP)
    chosen = torch.topk(whole.amin(2), count, largest=False).indices
    places = (chosen[:, :, None] * GROUP + torch.arange(GROUP)).flatten(1)
    rest = torch.arange(groups * GROUP, scores.shape[1]).expand(len(scores), -1)
    places = torch.cat([places, rest], 1)
    least, which = torch.topk(scores.gather(1, places), count, largest=False)
    return least, places.gather(1, which)


def _rounding(own: Tensor, lengths: Tensor, width: int) -> Tensor:
    """Return how far a squared distance in single precision can be off: a sum of D products, each rounded.

    N. Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1: D roundings of terms that
    come to at most |q||c|, twice, and as many of each length.
    """
    return 4 * width * torch.finfo(torch.float32).eps * (own + lengths.max())


def _among_all(
    query: NDArray[Any], candidates: NDArray[Any], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    near = np.linalg.norm(candidates - query, axis=1)
    rows = near.argsort(kind="stable")[:k]
    return rows, near[rows]
