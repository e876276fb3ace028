"""The nearest, held against all distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trainlab.errors import UserError
from trainlab.nearest import Index

if TYPE_CHECKING:
    from numpy.typing import NDArray


def trained(rng: np.random.Generator, count: int, width: int = 256) -> NDArray[np.float32]:
    """Vectors as a trained network's: 85 % of the variance in 32 directions."""
    spread = np.sqrt(np.where(np.arange(width) < 32, 0.85 / 32, 0.15 / (width - 32)))
    turned = np.linalg.qr(rng.standard_normal((width, width)))[0]
    return ((rng.standard_normal((count, width)) * spread) @ turned).astype(np.float32)


def isotropic(rng: np.random.Generator, count: int, width: int = 256) -> NDArray[np.float32]:
    return rng.standard_normal((count, width), np.float32)


def all_distances(queries: NDArray, vectors: NDArray, k: int) -> tuple[NDArray, NDArray]:
    near = np.array([np.linalg.norm(vectors - query, axis=1) for query in queries.astype(np.float64)])
    rows = near.argsort(axis=1, kind="stable")[:, :k]
    return np.take_along_axis(near, rows, 1), rows


def check(queries: NDArray, vectors: NDArray, k: int) -> None:
    near, rows = Index(vectors).nearest(queries.astype(np.float32), k)
    expected, wanted = all_distances(queries, vectors.astype(np.float64), k)
    assert (near.dtype, rows.dtype) == (np.float32, np.int64)
    assert (rows == wanted).all()
    assert near == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("made", [trained, isotropic])
@pytest.mark.parametrize("count", [1, 5, 63, 64, 3_000, 10_003])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_the_nearest_are_those_of_all_distances(made, count, kind) -> None:
    rng = np.random.default_rng(0)
    check(made(rng, 10), made(rng, count).astype(kind), 10)


@pytest.mark.parametrize("made", [trained, isotropic])
def test_few_vectors_are_measured_in_full(made, monkeypatch) -> None:
    vectors = made(np.random.default_rng(0), 10_000)
    index, ranked, measured = Index(vectors), Index._ranked, []
    monkeypatch.setattr(Index, "_ranked", lambda *given: measured.append(len(given[2])) or ranked(*given))
    index.nearest(vectors[:50], 10)
    assert len(measured) == 50
    assert np.mean(measured) < 1_000


@pytest.mark.parametrize("k", [0, 1, 100, 3_000, 5_000])
def test_any_number_of_nearest_may_be_asked_for(k) -> None:
    rng = np.random.default_rng(0)
    vectors = trained(rng, 3_000)
    check(vectors[:5], vectors, k)


def test_equal_distances_rank_by_row() -> None:
    rng = np.random.default_rng(0)
    vectors = np.repeat(trained(rng, 50), 100, axis=0)
    near, rows = Index(vectors[rng.permutation(5_000)]).nearest(vectors[:1], 60)
    assert (np.diff(rows[0]) > 0).all()
    assert near.tolist() == [[0] * 60]


@pytest.mark.parametrize("length", [1e-30, 1e-15, 1e12, 1e30])
def test_vectors_may_have_any_length(length) -> None:
    rng = np.random.default_rng(0)
    vectors = (trained(rng, 3_000) * length).astype(np.float32)
    check(vectors[:3], vectors, 10)
    check(np.ones((1, 256), np.float32), vectors, 10)


def test_one_long_vector_hides_none_of_the_others() -> None:
    rng = np.random.default_rng(0)
    vectors = trained(rng, 3_000)
    vectors[7] *= 1e10
    check(vectors[5:9], vectors, 10)


def test_distances_that_single_precision_can_not_tell_apart_are_ranked_all_the_same() -> None:
    vectors = 1000 + 1e-4 * np.random.default_rng(0).integers(-9, 9, (5_000, 8)).astype(np.float32)
    check(vectors[:3], vectors, 10)
    check(np.ones((1, 8), np.float32), vectors, 10)


def test_vectors_that_are_all_the_same_have_an_answer() -> None:
    check(np.zeros((2, 3), np.float32), np.ones((4_000, 3), np.float32), 5)


def test_no_vector_and_no_query_have_no_answer() -> None:
    near, rows = Index(np.empty((0, 3), np.float32)).nearest(np.ones((2, 3), np.float32), 4)
    assert near.shape == rows.shape == (2, 0)
    near, rows = Index(np.ones((4, 3), np.float32)).nearest(np.empty((0, 3), np.float32), 2)
    assert near.shape == rows.shape == (0, 2)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_an_error(wrong) -> None:
    vectors = np.ones((9, 3), np.float32)
    index = Index(vectors.copy())
    vectors[4, 1] = wrong
    with pytest.raises(UserError, match="Vector 4 of 9 holds NaN or infinity"):
        Index(vectors)
    with pytest.raises(UserError, match="search for holds NaN"):
        index.nearest(vectors, 2)


@pytest.mark.slow
def test_a_million_vectors_are_searched_exactly() -> None:
    rng = np.random.default_rng(0)
    spread = (0.9 ** np.arange(64)).astype(np.float32)
    vectors = np.concatenate(
        [(rng.standard_normal((50_000, 64), np.float32) * spread).astype(np.float16) for _ in range(20)]
    )
    check(vectors[:4], vectors, 10)
