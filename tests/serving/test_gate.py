"""The gate: which exports it lets through."""

from __future__ import annotations

import numpy as np
import pytest

from trainlab.serving import gate
from trainlab.serving.gate import Gate


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((300, 16), np.float32)


def test_the_same_vectors_have_the_same_ten_nearest(vectors):
    kept = Gate()
    kept.same_nearest("x", vectors, vectors.copy())
    assert kept.figures == {
        "queries_x": 300,
        "identical_top_ten_x": 300,
        "ties_in_top_ten_x": 0,
        "other_top_ten_x": 0,
    }
    assert not kept.faults


def test_an_item_that_comes_nearer_to_others_is_a_fault(vectors):
    others = vectors.copy()
    others[7] = others[8] + 1e-3
    kept = Gate()
    kept.same_nearest("x", vectors, others)
    near, moved = (np.linalg.norm(each[:, None] - each[None], axis=2) for each in (vectors, others))
    for each in (near, moved):
        np.fill_diagonal(each, np.inf)
    tens = (each.argsort(axis=1, kind="stable")[:, :10] for each in (near, moved))
    changed = int(np.not_equal(*tens).any(axis=1).sum())
    assert (kept.figures["other_top_ten_x"], len(kept.faults)) == (changed, 1)
    assert kept.figures["identical_top_ten_x"] == 300 - changed
    assert gate.same_tens(vectors, others) == pytest.approx(1 - changed / 300, abs=0.02)  # as sets


def test_items_at_the_same_distance_may_change_places(vectors):
    vectors[5] = vectors[4] + np.float32(1e-6)
    others = vectors.copy()
    others[[4, 5]] = vectors[[5, 4]]
    kept = Gate()
    kept.same_nearest("x", vectors, others)
    assert not kept.faults
    assert kept.figures["ties_in_top_ten_x"] > 0


@pytest.mark.parametrize("count", [1, 2, 30])
def test_an_item_is_never_among_its_own_nearest_be_all_the_same(count):
    same = np.ones((count, 3), np.float32)
    kept = Gate()
    kept.same_nearest("x", same, same)
    assert kept.figures["identical_top_ten_x"] == count
    assert gate.same_tens(same, same.astype(np.float16)) == 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_a_fault_and_so_is_another_shape(vectors, wrong):
    others = vectors.copy()
    others[3, 3] = wrong
    for found in (others, vectors[:-1]):
        kept = Gate()
        kept.same_nearest("x", vectors, found)
        assert kept.faults == ["other top ten x: 300, expected 0 at most"]
