"""Triplets (anchor, positive, negative) for the siamese network, drawn by category."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def draw_triplets(
    categories: NDArray[np.integer],
    class_size: int,
    triplets_per_item: int,
    seed: int,
) -> NDArray[np.int64]:
    """Draw triplets of rows; the same arguments give the same triplets.

    The rule (V. Visheratin, "Deep learning with containers", part 1, 2021): of every category at most
    `class_size` items, drawn at random; each of them is the anchor of `triplets_per_item` triplets, with a
    positive from its own category and a negative whose category is drawn uniformly from the others. An
    anchor meets each positive once at most, so no triplet comes twice; a category with fewer others gives
    each (anchor, positive) pair once, and one with a single item serves as a negative only.

    `categories` [N] holds each item's category as a code. Returns [T, 3] row numbers; T is 0 where there are
    fewer than two categories.
    """
    rng = np.random.default_rng(seed)
    pools = _pools(categories, class_size, rng)
    if len(pools) < 2:
        return np.empty((0, 3), dtype=np.int64)
    sizes = np.array([len(pool) for pool in pools])
    pairs = [_pairs(pool, triplets_per_item, rng) for pool in pools]
    own = np.repeat(np.arange(len(pools)), [len(pair) for pair in pairs])
    other = rng.integers(len(pools) - 1, size=len(own))
    other += other >= own
    starts = np.cumsum(sizes) - sizes
    negatives = np.concatenate(pools)[starts[other] + rng.integers(sizes[other])]
    return np.column_stack([np.concatenate(pairs), negatives])


def triplet_count(sizes: NDArray[np.integer], class_size: int, triplets_per_item: int) -> int:
    """Return how many triplets categories of these sizes give: n·min(triplets_per_item, n-1) for each."""
    drawn = np.minimum(np.asarray(sizes), class_size)
    return int((drawn * np.minimum(triplets_per_item, drawn - 1)).sum())


def _pools(
    categories: NDArray[np.integer], class_size: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Return the rows that take part, one array for each category."""
    order = np.argsort(categories, kind="stable")
    _, starts = np.unique(categories[order], return_index=True)
    groups = np.split(order, starts[1:]) if len(order) else []
    return [rng.permutation(group)[:class_size] for group in groups]


def _pairs(pool: NDArray[np.int64], per_item: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return [len(pool)·min(per_item, len(pool)-1), 2] different (anchor, positive) pairs."""
    others = len(pool) - 1
    anchors = np.arange(len(pool))[:, None]
    positives = _distinct(len(pool), others, min(per_item, others), rng)
    positives += positives >= anchors  # steps over the anchor itself
    anchors = np.broadcast_to(anchors, positives.shape)
    return pool[np.stack([anchors, positives], axis=-1).reshape(-1, 2)]


def _distinct(rows: int, population: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return [rows, size] numbers below `population`, none twice in a row of the array.

    R. W. Floyd's sampling without replacement ("A sample of brilliance", CACM 30(9), 1987), all rows at once:
    needs no [rows, population] matrix.
    """
    drawn = np.empty((rows, size), dtype=np.int64)
    for column, last in enumerate(range(population - size, population)):
        candidate = rng.integers(last, size=rows, endpoint=True)
        taken = (drawn[:, :column] == candidate[:, None]).any(axis=1)
        drawn[:, column] = np.where(taken, last, candidate)
    return drawn
