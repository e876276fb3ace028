"""Checks of the network before its first step."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from trainlab.checks.finding import Outcome, check
from trainlab.checks.subject import MissingFactError, NotApplicableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainlab.checks.harness import Bench

TOLERANCE = 0.1  # share of the expected loss
BATCHES = 4  # that the first loss is the mean of, at most


@check(
    3,
    "loss at initialisation",
    passes="within 10 % of ln(classes), or of the prior's entropy; triplet loss of the margin",
    means="a sum in place of a mean, a factor, softmax or logarithm twice, another margin, or first weights "
    "far too large",
)
def initial_loss(bench: Bench) -> Outcome:
    """Hold the untrained network's loss against the one that a network without knowledge has."""
    expected = [bench.subject.initial_loss()]
    with suppress(MissingFactError):
        expected.append((_entropy(bench), "the prior's entropy"))
    loss = _loss(bench, bench.subject.neutral)
    words = " or ".join(f"{value:.3f}, {reason}" for value, reason in expected)
    return Outcome(any(_near(loss, value) for value, _ in expected), f"{loss:.3f}; expected {words}")


@check(
    4,
    "bias at the class prior",
    passes="the first loss is within 10 % of the prior's entropy",
    means="the final bias starts at 0: the first steps only learn how frequent the classes are. Set it to "
    "the logarithm of their shares",
)
def prior_bias(bench: Bench) -> Outcome:
    """Hold the first loss against the entropy of the classes' shares."""
    if bench.subject.classes is None and bench.subject.margin is not None:
        raise NotApplicableError("a triplet loss has no classes that a bias could be set to")
    entropy = _entropy(bench)
    loss = _loss(bench, lambda batch: batch)
    return Outcome(_near(loss, entropy), f"{loss:.3f}; expected {entropy:.3f}, the prior's entropy")


def _first(bench: Bench) -> list[Any]:
    """Return the first batches of training, always the same ones."""
    bench.reseed()
    return list(islice(bench.loader(), BATCHES))


def _entropy(bench: Bench) -> float:
    """Return the prior's entropy over the first batches: the mean of -ln(share) of their targets.

    Over all of training it would be the same but for the chance of the draw, which the loss shares here.
    """
    shares = bench.subject.prior(bench.data)
    targets = torch.cat([bench.subject.targets(batch).flatten() for batch in _first(bench)])
    return float(-shares.log()[targets[targets >= 0]].mean())


def _loss(bench: Bench, change: Callable[[Any], Any]) -> float:
    """Return the mean loss of a fresh network, in training mode, over the first batches."""
    batches = [change(batch) for batch in _first(bench)]
    losses = bench.train(bench.module(), batches, still=True).losses
    return sum(losses) / len(losses)


def _near(loss: float, expected: float) -> bool:
    return math.isclose(loss, expected, rel_tol=0, abs_tol=TOLERANCE * expected)
