from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from experiments.news.metrics import contrastive_loss
from experiments.news.model import batch_all, batch_hard, contrastive

MARGIN = 2.0
LOSSES = [batch_all, partial(batch_all, average="violating"), batch_hard]


def batch(size: int, labels: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    vectors = torch.randn(size, 5, generator=random, requires_grad=True)
    return vectors, torch.randint(labels, (size,), generator=random)


def triplets(labels: Tensor) -> Iterator[tuple[int, int, int]]:
    rows = range(len(labels))
    for anchor in rows:
        for positive in rows:
            for negative in rows:
                if anchor != positive and labels[anchor] == labels[positive] != labels[negative]:
                    yield anchor, positive, negative


def listed(vectors: Tensor, labels: Tensor) -> Tensor:
    """The losses of all triplets, one by one."""
    losses = [
        (vectors[a] - vectors[p]).norm() - (vectors[a] - vectors[n]).norm() + MARGIN
        for a, p, n in triplets(labels)
    ]
    return torch.stack(losses).clamp(min=0)


def gradient(loss: Tensor, vectors: Tensor) -> Tensor:
    return torch.autograd.grad(loss, vectors, retain_graph=True)[0]


@pytest.mark.parametrize("seed", range(4))
def test_all_triplets_give_the_mean_of_each_computed_alone(seed: int) -> None:
    vectors, labels = batch(14, 3, seed)
    losses = listed(vectors, labels)
    for average, expected in (("all", losses.mean()), ("violating", losses[losses > 0].mean())):
        found = batch_all(vectors, labels, MARGIN, average)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradient(found, vectors), gradient(expected, vectors))


def test_the_hardest_triplet_of_each_anchor_is_its_farthest_positive_and_nearest_negative() -> None:
    vectors, labels = batch(14, 3)
    losses = listed(vectors, labels)
    anchors = torch.tensor([anchor for anchor, _, _ in triplets(labels)])
    expected = torch.stack([losses[anchors == anchor].max() for anchor in anchors.unique()]).mean()
    found = batch_hard(vectors, labels, MARGIN)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, vectors), gradient(expected, vectors))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0]], ids=["one label", "no pair", "one item"])
def test_a_batch_without_a_triplet_costs_nothing_and_pulls_nowhere(
    loss: Callable[..., Tensor], labels: list[int]
) -> None:
    vectors = torch.randn(len(labels), 4, requires_grad=True)
    found = loss(vectors, torch.tensor(labels), MARGIN)
    assert found.item() == 0
    assert not gradient(found, vectors).any()


@pytest.mark.parametrize("loss", LOSSES)
def test_items_at_the_same_place_leave_gradients_finite(loss: Callable[..., Tensor]) -> None:
    vectors = torch.zeros(6, 4, requires_grad=True)
    found = loss(vectors, torch.tensor([0, 0, 0, 1, 1, 1]), MARGIN)
    assert found.item() == MARGIN
    assert gradient(found, vectors).isfinite().all()


def test_the_memory_of_a_batch_of_two_thousand_items_is_far_from_a_cube_s() -> None:
    vectors, labels = batch(2000, 10)  # the cube would take 32 GB
    assert gradient(batch_all(vectors, labels, MARGIN), vectors).isfinite().all()


def test_the_contrastive_loss_is_the_mean_of_each_pairs_computed_alone() -> None:
    vectors, labels = batch(14, 3)
    scaled = vectors / vectors.norm(dim=1, keepdim=True)
    means = []
    for anchor in range(14):
        others = [each for each in range(14) if each != anchor]
        scores = (scaled[others] @ scaled[anchor] / 0.2).exp()
        shares = [
            -(score / scores.sum()).log()
            for each, score in zip(others, scores, strict=True)
            if labels[each] == labels[anchor]
        ]
        means.append(torch.stack(shares).mean())
    found, expected = contrastive(scaled, labels, 0.2), torch.stack(means).mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, vectors), gradient(expected, vectors))
    measured = contrastive_loss(scaled.detach().double().numpy(), labels.numpy(), 0.2)
    assert measured == pytest.approx(found.item(), rel=1e-5)


def test_an_item_alone_in_its_category_is_only_pushed_away() -> None:
    vectors, labels = batch(4, 1)
    labels = torch.tensor([0, 0, 0, 1])
    scaled = vectors / vectors.norm(dim=1, keepdim=True)
    loss = contrastive(scaled, labels, 0.2)
    assert gradient(loss, vectors)[3].abs().sum() > 0
    assert contrastive(scaled[2:], labels[2:], 0.2) == 0
    assert gradient(contrastive(scaled[:1], labels[:1], 0.2), vectors).isfinite().all()
