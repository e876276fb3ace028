"""What an export has to show before anybody gets it: that it answers as the run's own network does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-4  # the largest difference of any number; two ways to the same sum in fp32 differ by 1e-5
CHANGED = 0.01  # of the decisions, at most, that int8 may change
NEAREST = 10
QUERIES = 2000  # items whose nearest are compared, evenly chosen where there are more
ROWS = 256  # queries at once


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
        queries = _queries(len(expected))
        same = ties = 0
        for start in range(0, len(queries), ROWS):
            rows = queries[start : start + ROWS]
            true, other = _distances(expected, rows), _distances(found, rows)
            wanted, got = (np.argsort(each, axis=1, kind="stable")[:, :NEAREST] for each in (true, other))
            equal = (wanted == got).all(axis=1)
            apart = np.take_along_axis(true, got, 1) - np.take_along_axis(true, wanted, 1)
            same += int(equal.sum())
            ties += int((~equal & (np.abs(apart) <= TOLERANCE).all(axis=1)).sum())
        self.note(f"queries_{name}", len(queries))
        self.note(f"identical_top_ten_{name}", same)
        self.note(f"ties_in_top_ten_{name}", ties)
        self.at_most(f"other_top_ten_{name}", len(queries) - same - ties, 0)


def same_tens(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Return the share of items whose ten nearest are the same set by both arrays [N, D]."""
    queries = _queries(len(expected))
    same = 0
    for start in range(0, len(queries), ROWS):
        rows = queries[start : start + ROWS]
        both = (
            _distances(each, rows).argsort(axis=1, kind="stable")[:, :NEAREST] for each in (expected, found)
        )
        wanted, got = (np.sort(each, axis=1) for each in both)
        same += int((wanted == got).all(axis=1).sum())
    return same / max(1, len(queries))


def _queries(count: int) -> NDArray[np.int64]:
    """Return which of so many items are asked about: all, or evenly chosen ones."""
    return np.unique(np.linspace(0, count - 1, min(QUERIES, count)).round().astype(np.int64))


def _distances(vectors: NDArray[Any], rows: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the distances [Q, N] of some rows to all, infinite to themselves."""
    table = vectors.astype(np.float64)
    asked = table[rows]
    squares = (asked * asked).sum(1)[:, None] + (table * table).sum(1) - 2 * asked @ table.T
    found = np.sqrt(np.maximum(squares, 0))
    found[np.arange(len(rows)), rows] = np.inf
    return found
