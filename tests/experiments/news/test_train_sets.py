from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from experiments.news.data import draw_triplets
from experiments.news.tokens import TokenTable
from experiments.news.train import GroupSet, TripletSet

LABELS = np.array([4, 0, 4, 4, 2, 4, 0, 4])
ITEMS = np.arange(8) + 10


@pytest.fixture
def groups() -> GroupSet:
    return GroupSet(TokenTable(np.arange(20), 1 + np.arange(20), 1, 0), ITEMS, LABELS, LABELS + 7, size=2)


def test_a_category_has_as_many_groups_as_its_items_fill(groups: GroupSet) -> None:
    assert groups.categories == [0, 1, 2, 2, 2]


def test_a_batch_holds_different_items_of_the_categories_asked_for(groups: GroupSet) -> None:
    batch = groups.__getitems__([0, 2])
    found = batch.tokens.ids.flatten().tolist()
    assert batch.labels.tolist() == [0, 0, 2, 2]
    assert set(found[:2]) == {11, 16}
    assert set(found[2:]) < {10, 12, 13, 15, 17}
    assert len(set(found)) == 4


def test_two_groups_of_one_category_share_no_item(groups: GroupSet) -> None:
    found = groups.__getitems__([2, 3, 4]).tokens.ids.flatten().tolist()
    assert sorted(found) == [10, 12, 13, 15, 17]


def test_each_item_brings_both_of_its_labels(groups: GroupSet) -> None:
    found, known = (
        groups.__getitems__([0, 1, 2]),
        dict(zip(ITEMS.tolist(), (LABELS + 7).tolist(), strict=True)),
    )
    assert found.finer.tolist() == [known[item] for item in found.tokens.ids.flatten().tolist()]


def test_a_category_of_one_item_is_a_group_of_one(groups: GroupSet) -> None:
    assert groups[1].labels.tolist() == [1]


def test_groups_follow_torchs_random_numbers(groups: GroupSet) -> None:
    def drawn(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return [item for _ in range(5) for item in groups.__getitems__([2]).tokens.ids.flatten().tolist()]

    assert drawn(1) == drawn(1) != drawn(2)


CLASSES = np.repeat(np.arange(9), 20)


@pytest.fixture
def triplets() -> TripletSet:
    rows = np.arange(len(CLASSES))
    drawn = draw_triplets(CLASSES, 20, 8, seed=0)
    return TripletSet(TokenTable(rows, 1 + rows, 1, 0), drawn, CLASSES)


def items(triplets: TripletSet, order: np.ndarray, size: int) -> float:
    """How many items a batch of that order holds, on the average."""
    batches = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    return float(np.mean([len(np.unique(triplets.triplets.numpy()[batch])) for batch in batches]))


def test_an_epoch_takes_each_triplet_once(triplets: TripletSet) -> None:
    order = triplets.shuffled(np.random.default_rng(0), 64)
    assert sorted(order.tolist()) == list(range(len(triplets)))


def test_triplets_of_a_batch_share_items(triplets: TripletSet) -> None:
    rng = np.random.default_rng(0)
    shared = items(triplets, triplets.shuffled(rng, 64), 64)
    assert shared < 0.75 * items(triplets, rng.permutation(len(triplets)), 64)


def test_each_epoch_has_other_batches_in_another_order(triplets: TripletSet) -> None:
    rng = np.random.default_rng(0)
    first, second = ({frozenset(batch) for batch in triplets.shuffled(rng, 60).reshape(-1, 60)} for _ in "ab")
    assert not first & second


def test_the_batches_follow_no_order_of_categories(triplets: TripletSet) -> None:
    order = triplets.shuffled(np.random.default_rng(0), 64)
    pairs = [tuple(sorted(set(CLASSES[triplets.triplets[order[i : i + 64], 0]]))) for i in range(0, 1440, 64)]
    assert any(not set(one) & set(other) for one, other in pairwise(pairs))


@pytest.mark.parametrize("size", [1, 50, 5000])
def test_any_batch_size_will_do(triplets: TripletSet, size: int) -> None:
    assert len(set(triplets.shuffled(np.random.default_rng(0), size).tolist())) == len(triplets)
