"""What an export has to show before anybody gets it: that it answers as the run's own network does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlab.nearest import Index

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-4  # the largest difference of any number; two ways to the same sum in fp32 differ by 1e-5
CHANGED = 0.01  # of the decisions, at most, that int8 may change
NEAREST = 10
QUERIES = 2000  # items whose nearest are compared, evenly chosen where there are more


@dataclass
class Gate:
    """Figures, each with the limit that it must keep.

    Attributes:
        figures: What was measured, by its name: what the card says.
        faults: Of those that were not kept, a sentence each.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def note(self, name: str, value: float | int | str) -> None:
        """Keep a figure that nothing depends on."""
        self.figures[name] = value

    def at_most(self, name: str, value: float, limit: float) -> None:
        """Keep a figure that may come to a limit; NaN does not."""
        self.figures[name] = float(value)
        if not value <= limit:
            self.faults.append(f"{name.replace('_', ' ')}: {value:.3g}, expected {limit:g} at most")

    def close(self, name: str, expected: NDArray[Any], found: NDArray[Any]) -> None:
        """Keep the largest difference of two arrays; infinite where their shapes differ."""
        same = expected.shape == found.shape
        largest = float(np.abs(expected - found).max(initial=0)) if same else float("inf")
        self.at_most(f"largest_difference_{name}", largest, TOLERANCE)

    def same_nearest(self, name: str, expected: NDArray[Any], found: NDArray[Any]) -> None:
        """Keep how many items have other ten nearest items than they should; [N, D] both.

        Two items whose distances to a third differ by less than the tolerance may change places: the one
        network's rounding decides that as well as the other's.
        """
        if expected.shape != found.shape or not np.isfinite(found).all():
            self.at_most(f"other_top_ten_{name}", len(expected), 0)
            return
        queries = _queries(len(expected))
        wanted, got = (_nearest(each, queries) for each in (expected, found))
        equal = (wanted == got).all(axis=1)
        apart = _distances(expected, queries, got) - _distances(expected, queries, wanted)
        same = int(equal.sum())
        ties = int((~equal & (np.abs(apart) <= TOLERANCE).all(axis=1)).sum())
        self.note(f"queries_{name}", len(queries))
        self.note(f"identical_top_ten_{name}", same)
        self.note(f"ties_in_top_ten_{name}", ties)
        self.at_most(f"other_top_ten_{name}", len(queries) - same - ties, 0)


def same_tens(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Return the share of items whose ten nearest are the same set by both arrays [N, D]."""
    queries = _queries(len(expected))
    wanted, got = (np.sort(_nearest(each, queries), axis=1) for each in (expected, found))
    return int((wanted == got).all(axis=1).sum()) / max(1, len(queries))


def _queries(count: int) -> NDArray[np.int64]:
    """Return which of so many items are asked about: all, or evenly chosen ones."""
    return np.unique(np.linspace(0, count - 1, min(QUERIES, count)).round().astype(np.int64))


def _nearest(vectors: NDArray[Any], queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows [Q, 10] of the vectors that are nearest to some of them, never itself."""
    rows = Index(vectors).nearest(vectors[queries].astype(np.float32), NEAREST + 1)[1]
    others = rows != queries[:, None]
    others[others.all(axis=1), -1] = False  # where more than ten others are the same vector
    return rows[others].reshape(len(queries), -1)


def _distances(
    vectors: NDArray[Any], queries: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the distances [Q, K] of some of the vectors to K others each."""
    asked = vectors[queries].astype(np.float64)
    return np.linalg.norm(vectors[rows] - asked[:, None], axis=2)
