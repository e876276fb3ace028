"""The last and the best value of each metric."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainlab.runs.events import Curve

_FALLING = ("loss", "error", "perplexity", "seconds")


def lower_is_better(tag: str) -> bool:
    """Tell whether a metric improves by falling: 'val/loss' does, 'val/precision@10' does not."""
    return any(word in tag.rsplit("/", 1)[-1].lower() for word in _FALLING)


class Summary:
    """Keeps (value, step) of the last and of the best point of each tag; NaN is never the best."""

    def __init__(self) -> None:
        self.last: dict[str, dict[str, float]] = {}
        self.best: dict[str, dict[str, float]] = {}

    @classmethod
    def of(cls, curves: Mapping[str, Curve]) -> Self:
        """Return the summary of whole curves, {tag: curve}."""
        summary = cls()
        for tag, curve in curves.items():
            for step, value in zip(curve.steps, curve.values, strict=True):
                summary.add(tag, value, step)
        return summary

    def snapshot(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return `last` and `best` as they are now, whatever other threads add meanwhile."""
        return {"last": self.last.copy(), "best": self.best.copy()}

    def add(self, tag: str, value: float, step: int) -> None:
        """Take one more point into account."""
        point = {"value": value, "step": step}
        self.last[tag] = point
        if math.isnan(value):
            return
        best = self.best.get(tag)
        sign = -1 if lower_is_better(tag) else 1
        if best is None or sign * value > sign * best["value"]:
            self.best[tag] = point
