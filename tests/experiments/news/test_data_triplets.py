from __future__ import annotations

import time

import numpy as np
import pytest

from experiments.news.data import draw_triplets

# MINDsmall's training set: the number of news in each of its 17 categories
MIND_SMALL = [
    *[15774, 14510, 3107, 2551, 2479, 2350, 2068, 2048, 1885],
    *[1639, 889, 769, 606, 587, 17, 2, 1],
]
PUBLISHED = {(30, 10): 4_372, (60, 20): 17_074, (100, 30): 42_274, (200, 50): 140_274}


def categories(sizes: list[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize(("setting", "expected"), PUBLISHED.items())
def test_mind_small_gives_the_known_counts(setting: tuple[int, int], expected: int) -> None:
    assert len(draw_triplets(categories(MIND_SMALL), *setting, seed=1)) == expected


def test_the_largest_setting_is_drawn_in_half_a_second() -> None:
    codes = categories(MIND_SMALL)
    started = time.process_time()
    draw_triplets(codes, 200, 50, seed=1)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("seed", range(20))
def test_every_triplet_keeps_the_rules(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 40, size=rng.integers(2, 8)).tolist()
    class_size, per_item = int(rng.integers(1, 45)), int(rng.integers(1, 20))
    codes = categories(sizes, seed)
    triplets = draw_triplets(codes, class_size, per_item, seed)
    anchor, positive, negative = triplets.T
    assert (codes[anchor] == codes[positive]).all()
    assert (anchor != positive).all()
    assert (codes[anchor] != codes[negative]).all()
    assert len(np.unique(triplets, axis=0)) == len(triplets)
    for code in range(len(sizes)):
        used = np.unique(triplets[codes[triplets] == code])
        assert len(used) <= class_size
    drawn = np.minimum(sizes, class_size)
    expected = np.concatenate([np.full(n, min(per_item, n - 1)) for n in drawn if n > 1] or [[]])
    assert sorted(np.unique(anchor, return_counts=True)[1]) == sorted(expected)


def test_a_small_category_gives_each_pair_once_and_a_single_item_none() -> None:
    codes = np.array([0] * 4 + [1])
    triplets = draw_triplets(codes, class_size=30, triplets_per_item=10, seed=0)
    pairs = {(a, p) for a, p, _ in triplets.tolist()}
    assert pairs == {(a, p) for a in range(4) for p in range(4) if a != p}
    assert len(triplets) == 12
    assert set(triplets[:, 2].tolist()) == {4}


def test_the_negatives_category_is_drawn_uniformly_whatever_its_size() -> None:
    codes = categories([200, 200, 5, 50])
    triplets = draw_triplets(codes, class_size=200, triplets_per_item=50, seed=3)
    of_first = triplets[codes[triplets[:, 0]] == 0]
    shares = np.bincount(codes[of_first[:, 2]], minlength=4)[1:] / len(of_first)
    assert np.allclose(shares, 1 / 3, atol=0.02)


def test_positives_are_drawn_uniformly() -> None:
    codes = np.array([0] * 5 + [1])
    draws = [draw_triplets(codes, 5, 2, seed)[:2, :2] for seed in range(2000)]
    offsets = np.concatenate(draws)
    counts = np.array([(offsets == value).sum() for value in range(5)])
    assert np.allclose(counts / counts.sum(), 1 / 5, atol=0.02)


def test_a_large_category_is_sampled_at_random_not_from_its_first_rows() -> None:
    codes = np.array([0] * 1000 + [1] * 10)
    anchors = draw_triplets(codes, class_size=100, triplets_per_item=1, seed=0)[:, 0]
    assert (anchors < 1000).sum() == 100
    assert 400 < anchors[anchors < 1000].mean() < 600


def test_one_seed_gives_one_drawing_and_another_seed_another() -> None:
    codes = categories([30, 30])
    first, again, other = (draw_triplets(codes, 20, 5, seed) for seed in (7, 7, 8))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("codes", [[], [3], [3, 3, 3]])
def test_fewer_than_two_categories_give_no_triplets(codes: list[int]) -> None:
    assert draw_triplets(np.array(codes, dtype=int), 10, 10, seed=0).shape == (0, 3)
