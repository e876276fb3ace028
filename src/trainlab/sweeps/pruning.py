"""Which trials are not worth going on with: by Optuna's pruners, by patience, by what is no number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainlab.run.metrics import Direction
    from trainlab.sweeps.trial import State

PRUNED = "pruned at validation"  # how the reason of each begins, and the reason itself where Optuna decides
PATIENCE = 3  # validations without a better value
_DENSE = 100  # validations that are all reported; of more, every tenth, from a thousand on every hundredth


def not_finite(tag: str, values: Sequence[float], seen: int = 0) -> str:
    """Return why a run is pruned whose goal is NaN or infinite, '' where it is not; the first are `seen`."""
    for place, each in enumerate(values[seen:], seen + 1):
        if not math.isfinite(each):
            return f"{PRUNED} {place}: {tag} is {'NaN' if math.isnan(each) else each}"
    return ""


def impatient(values: Sequence[float], mode: Direction, patience: int = PATIENCE) -> str:
    """Return why a run is pruned that has not become better for so many validations, '' where it has."""
    better = min if mode == "min" else max
    if len(values) > patience and better(values[:-patience]) == better(values):
        return f"{PRUNED} {len(values)}: no better value for {patience} validations"
    return ""


def counted(prune: str) -> tuple[State, ...]:
    """Return the states in which a trial has a value that counts.

    Patience ends a training that has come to its best; the other ways cut one short.
    """
    return ("finished", "pruned") if prune == "patience" else ("finished",)


def is_reported(ordinal: int) -> bool:
    """Tell whether a database is told of a validation, counted from 0.

    Of a curve of thousands of points each trial reports the same ones, so that they can be compared.
    """
    apart = 1
    while ordinal >= _DENSE * apart:
        apart *= 10
    return ordinal % apart == 0
