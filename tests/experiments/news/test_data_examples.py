from __future__ import annotations

import numpy as np
import pytest

from experiments.news.config import NewsConfig
from experiments.news.data import draw
from trainlab.errors import UserError


def as_set(triplets: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, triplets.tolist()))


def test_with_a_split_by_item_nothing_measured_was_trained_on() -> None:
    drawn = draw(NewsConfig())
    parts = [np.unique(drawn.training), drawn.unseen, drawn.held("test").items]
    assert np.unique(np.concatenate(parts)).size == sum(map(len, parts))
    assert [len(part) for part in parts[1:]] == [172, 171]
    for held in (drawn.validation, drawn.held("test")):
        assert held.triplets.max() < len(held.items)


def test_no_seed_chooses_by_what_another_seed_reports() -> None:
    first, second = draw(NewsConfig()), draw(NewsConfig(seed=1))
    assert np.array_equal(first.held("test").items, second.held("test").items)
    assert np.array_equal(first.held("test").triplets, second.held("test").triplets)
    assert not np.array_equal(first.unseen, second.unseen)


def test_without_a_test_part_two_are_left() -> None:
    drawn = draw(NewsConfig(test=0))
    assert drawn.test is None
    assert len(drawn.unseen) == 171
    assert "the test" not in drawn.summary()


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(UserError, match=r"validation=0.5 test=0.5: nothing is left to train on"):
        draw(NewsConfig(validation=0.5, test=0.5))


def test_with_a_split_by_triplet_the_counts_are_the_articles() -> None:
    drawn = draw(NewsConfig(split="triplet", class_size=60, triplets_per_item=20, validation=0.1))
    held = drawn.unseen[drawn.validation.triplets]
    assert drawn.test is None
    assert len(drawn.training) + len(held) == 17_074
    assert len(held) == 1_707
    assert as_set(drawn.training).isdisjoint(as_set(held))
    assert np.intersect1d(drawn.training, drawn.unseen).size > 0  # the original's defect, kept on request


def test_validation_triplets_keep_the_rules_among_unseen_items() -> None:
    drawn = draw(NewsConfig())
    codes = drawn.news.codes("category")[drawn.unseen]
    anchor, positive, negative = codes[drawn.validation.triplets].T
    assert (anchor == positive).all()
    assert (anchor != negative).all()


def test_small_categories_are_left_out_on_request() -> None:
    drawn = draw(NewsConfig(min_class_items=18))
    used = np.concatenate([drawn.training.ravel(), drawn.unseen])
    assert set(drawn.news.table["category"].iloc[used]).isdisjoint({"kids", "middleeast", "northamerica"})
    assert "kids" in set(drawn.news.table["category"].iloc[draw(NewsConfig()).training.ravel()])


@pytest.mark.parametrize(
    ("settings", "side"),
    [
        ({"validation": 0.001}, "validation"),
        ({"min_class_items": 61}, "training"),
        ({"class_size": 1}, "training"),
    ],
)
def test_settings_that_leave_nothing_are_refused(settings: dict, side: str) -> None:
    with pytest.raises(UserError, match=f"no triplets are left for {side}.*Expected"):
        draw(NewsConfig(**settings))


def test_metrics_that_are_not_defined_are_left_out(tiny: NewsConfig) -> None:
    drawn = draw(tiny)
    drawn.news.table["subcategory"] = drawn.news.table.index.astype(str)
    measured = drawn.measure(np.random.default_rng(0).normal(size=(len(drawn.unseen), 3)), tiny)
    assert list(measured) == ["loss", "triplet_accuracy", "precision_at_10", "mrr"]
