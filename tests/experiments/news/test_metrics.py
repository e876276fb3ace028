from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from experiments.news import metrics


def ranked(vectors: np.ndarray, query: int) -> list[int]:
    """The other items, nearest first: the definition, in a loop."""
    others = [item for item in range(len(vectors)) if item != query]
    return sorted(others, key=lambda item: math.dist(vectors[query], vectors[item]))


def slow_precision(vectors: np.ndarray, labels: np.ndarray, k: int) -> float:
    shares = []
    for query in range(len(vectors)):
        hits = [labels[item] == labels[query] for item in ranked(vectors, query)]
        if any(hits):
            shares.append(sum(hits[:k]) / len(hits[:k]))
    return sum(shares) / len(shares)


def slow_reciprocal_rank(vectors: np.ndarray, labels: np.ndarray) -> float:
    reciprocals = []
    for query in range(len(vectors)):
        hits = [labels[item] == labels[query] for item in ranked(vectors, query)]
        if any(hits):
            reciprocals.append(1 / (1 + hits.index(True)))
    return sum(reciprocals) / len(reciprocals)


@pytest.fixture(params=range(5))
def items(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(request.param)
    count = int(rng.integers(15, 60))
    return rng.normal(size=(count, 4)), rng.integers(0, 9, size=count)


@pytest.mark.parametrize("rows", [1024, 7])
def test_ranking_metrics_equal_a_loop(
    items: tuple[np.ndarray, np.ndarray], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "ROWS", rows)
    vectors, labels = items
    assert metrics.precision_at(vectors, labels) == pytest.approx(slow_precision(vectors, labels, 10))
    assert metrics.mean_reciprocal_rank(vectors, labels) == pytest.approx(
        slow_reciprocal_rank(vectors, labels)
    )


def test_sparse_vectors_give_the_same_as_dense_ones(items: tuple[np.ndarray, np.ndarray]) -> None:
    dense, labels = np.maximum(items[0], 0), items[1]
    sparse = csr_matrix(dense)
    triplets = np.random.default_rng(0).integers(len(dense), size=(20, 3))
    near = metrics.distances(dense[:3], dense)
    assert np.allclose(metrics.distances(sparse[:3], sparse), near, atol=1e-6)
    assert metrics.precision_at(sparse, labels) == pytest.approx(metrics.precision_at(dense, labels))
    assert metrics.triplet_metrics(sparse, triplets, 1.0) == pytest.approx(
        metrics.triplet_metrics(dense, triplets, 1.0)
    )


def test_the_loss_equals_torchs_and_the_share_a_loop(items: tuple[np.ndarray, np.ndarray]) -> None:
    vectors = items[0]
    triplets = np.random.default_rng(0).integers(len(vectors), size=(50, 3))
    a, p, n = torch.from_numpy(vectors[triplets]).unbind(1)
    found = metrics.triplet_metrics(vectors, triplets, margin=2.0)
    assert found["loss"] == pytest.approx(
        torch.nn.functional.triplet_margin_loss(a, p, n, margin=2.0).item(), abs=1e-5
    )
    near = [math.dist(vectors[a], vectors[p]) - math.dist(vectors[a], vectors[n]) for a, p, n in triplets]
    right = sum(1.0 if each < 0 else 0.5 if each == 0 else 0.0 for each in near)
    assert found["triplet_accuracy"] == pytest.approx(right / len(near))


def test_an_item_is_not_its_own_neighbour() -> None:
    vectors, labels = np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 1, 0, 1])
    assert metrics.precision_at(vectors, labels, k=1) == 0
    assert metrics.mean_reciprocal_rank(vectors, labels) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_fewer_candidates_than_k_all_count() -> None:
    vectors, labels = np.array([[0.0], [1.0], [2.0]]), np.array([0, 0, 1])
    assert metrics.precision_at(vectors, labels, k=10) == pytest.approx(1 / 2)


def test_nothing_relevant_gives_no_figure() -> None:
    vectors = np.eye(3)
    assert math.isnan(metrics.precision_at(vectors, np.arange(3)))
    assert math.isnan(metrics.mean_reciprocal_rank(vectors, np.arange(3)))


def test_equal_distances_rank_by_row() -> None:
    vectors, labels = np.zeros((3, 2)), np.array([0, 1, 0])
    # item 0 meets 1 before 2, item 2 meets 0 first; item 1 has nobody alike
    assert metrics.mean_reciprocal_rank(vectors, labels) == pytest.approx((1 / 2 + 1) / 2)


def test_ties_count_one_half() -> None:
    vectors = np.zeros((3, 2))
    assert metrics.triplet_metrics(vectors, np.array([[0, 1, 2]]), 3.0) == {
        "loss": 3.0,
        "triplet_accuracy": 0.5,
    }


def test_of_very_many_items_a_sample_is_asked_among_all_and_its_error_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(400, 3)), rng.integers(4, size=400)
    vectors[:, 0] += labels  # so that neighbours are alike more often than not
    assert not metrics.sampling(len(labels)), "all are asked"
    exact = metrics.precision_at(vectors, labels), metrics.mean_reciprocal_rank(vectors, labels)
    monkeypatch.setattr(metrics, "ALL", 100)
    monkeypatch.setattr(metrics, "SAMPLE", 100)
    sampled = metrics.precision_at(vectors, labels), metrics.mean_reciprocal_rank(vectors, labels)
    said = float(metrics.sampling(len(labels)).partition("±")[2].split()[0])
    assert said == pytest.approx(1.96 * 0.5 * math.sqrt(0.75 / 100), abs=1e-3)
    for one, other in zip(exact, sampled, strict=True):
        assert 0 < abs(one - other) < said


def test_memory_does_not_grow_with_the_square_of_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "DISTANCES", 1000)
    asked = []
    measured = metrics.distances
    monkeypatch.setattr(
        metrics,
        "distances",
        lambda queries, all_: asked.append((len(queries), len(all_))) or measured(queries, all_),
    )
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(300, 3)), rng.integers(4, size=300)
    in_parts = metrics.precision_at(vectors, labels), metrics.mean_distances(vectors, labels)
    assert asked and all(some * among <= 1000 for some, among in asked)
    monkeypatch.undo()
    assert in_parts[0] == metrics.precision_at(vectors, labels)
    np.testing.assert_allclose(in_parts[1], metrics.mean_distances(vectors, labels))
