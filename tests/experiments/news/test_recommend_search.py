from __future__ import annotations

import numpy as np
import pytest

from experiments.news import recommend


def brute(queries: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    near = np.linalg.norm(queries[:, None].astype(np.float64) - candidates[None], axis=2)
    rows = near.argsort(axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(near, rows, 1)


@pytest.mark.parametrize("count", [1, 5, 63, 64, 3_000, 5_003])
def test_the_nearest_are_those_of_all_distances(count: int) -> None:
    rng = np.random.default_rng(0)
    queries, candidates = rng.standard_normal((70, 16)), rng.standard_normal((count, 16))
    rows, near = recommend.nearest_rows(queries, candidates, 10)
    expected, distances = brute(queries, candidates, 10)
    assert (rows == expected).all()
    assert near == pytest.approx(distances)


def test_distances_that_single_precision_can_not_tell_apart_are_ranked_all_the_same() -> None:
    rng = np.random.default_rng(0)
    candidates = 1000 + 1e-6 * rng.standard_normal((5_000, 8))
    rows, _ = recommend.nearest_rows(candidates[:3], candidates, 10)
    assert (rows == brute(candidates[:3], candidates, 10)[0]).all()


def test_equal_distances_rank_by_row() -> None:
    candidates = np.ones((4_000, 3))
    rows, near = recommend.nearest_rows(np.zeros((1, 3)), candidates, 5)
    assert rows.tolist() == [[0, 1, 2, 3, 4]]
    assert near == pytest.approx(np.sqrt(3))


def test_no_query_has_no_answer() -> None:
    rows, near = recommend.nearest_rows(np.empty((0, 3)), np.ones((4, 3)), 2)
    assert rows.shape == near.shape == (0, 2)
