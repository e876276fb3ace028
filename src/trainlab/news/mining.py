"""Triplet losses over every triplet that a batch contains, without ever listing them.

Two of a batch's items with the same label and one with another are a triplet (after A. Hermans, L. Beyer and
B. Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017: batch all, batch hard). N items
hold up to N³ of them; memory here grows with N² alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


def batch_all(vectors: Tensor, labels: Tensor, margin: float, average: str = "all") -> Tensor:
    """Return the mean of max(0, ‖a-p‖ - ‖a-n‖ + margin) over all triplets of the batch.

    `vectors` [N, D], `labels` [N]. With `average="violating"` the mean is over those triplets alone that do
    not yet keep the margin. 0 where there is no triplet.

    For an anchor a positive at distance d meets the k negatives nearer than d + margin; its losses come to
    k·(d + margin) less the sum of these k distances. With the negatives sorted, k is a search and the sum
    a running one, so no loss is computed twice and none is stored.
    """
    distances, positive, negative = _pairs(vectors, labels)
    count = negative.sum(1)  # [N], of an anchor's negatives
    ranked = distances.masked_fill(~negative, torch.inf).sort(1).values
    there = torch.arange(len(labels), device=labels.device) < count[:, None]
    sums = torch.where(there, ranked, 0).cumsum(1)
    sums = torch.cat([sums.new_zeros(len(labels), 1), sums], 1)  # of the k nearest, k from 0 to N
    limits = distances + margin
    nearer = torch.searchsorted(ranked.detach(), limits.detach())
    losses = torch.where(positive, nearer * limits - sums.gather(1, nearer), 0)
    violating, triplets = (nearer * positive).sum(), (positive.sum(1) * count).sum()
    return losses.sum() / (violating if average == "violating" else triplets).clamp(min=1)


def batch_hard(vectors: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Return the mean over anchors of max(0, farthest positive - nearest negative + margin).

    `vectors` [N, D], `labels` [N]. Items without a positive or a negative are no anchors; 0 without any.
    """
    distances, positive, negative = _pairs(vectors, labels)
    anchors = positive.any(1) & negative.any(1)
    farthest = distances.masked_fill(~positive, -torch.inf).amax(1)[anchors]
    nearest = distances.masked_fill(~negative, torch.inf).amin(1)[anchors]
    return (farthest - nearest + margin).clamp(min=0).sum() / anchors.sum().clamp(min=1)


def _pairs(vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances in fp32, who is whose positive and who whose negative, all [N, N].

    Differences are taken one by one: the shorter way over products loses the digits of small distances.
    """
    distances = torch.cdist(vectors.float(), vectors.float(), compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels[None, :]
    return distances, same.clone().fill_diagonal_(False), ~same
