from __future__ import annotations

import numpy as np
import pytest
import torch

from trainlab.news.dataset import GroupSet
from trainlab.news.model import Tokens

LABELS = np.array([4, 0, 4, 4, 2, 4, 0, 4])
ITEMS = np.arange(8) + 10


@pytest.fixture
def groups() -> GroupSet:
    ids = torch.arange(20).view(20, 1, 1)
    return GroupSet(Tokens(ids, torch.ones_like(ids)), ITEMS, LABELS, size=2)


def test_a_category_has_as_many_groups_as_its_items_fill(groups: GroupSet) -> None:
    assert groups.categories == [0, 1, 2, 2, 2]


def test_a_batch_holds_different_items_of_the_categories_asked_for(groups: GroupSet) -> None:
    batch = groups.__getitems__([0, 2])
    items = batch.tokens.ids.flatten().tolist()
    assert batch.labels.tolist() == [0, 0, 2, 2]
    assert set(items[:2]) == {11, 16}
    assert set(items[2:]) < {10, 12, 13, 15, 17}
    assert len(set(items)) == 4


def test_two_groups_of_one_category_share_no_item(groups: GroupSet) -> None:
    items = groups.__getitems__([2, 3, 4]).tokens.ids.flatten().tolist()
    assert sorted(items) == [10, 12, 13, 15, 17]


def test_a_category_of_one_item_is_a_group_of_one(groups: GroupSet) -> None:
    assert groups[1].labels.tolist() == [1]


def test_groups_follow_torchs_random_numbers(groups: GroupSet) -> None:
    def drawn(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return [item for _ in range(5) for item in groups.__getitems__([2]).tokens.ids.flatten().tolist()]

    assert drawn(1) == drawn(1) != drawn(2)
