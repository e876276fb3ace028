"""What a check found, and the register of all checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from trainlab.checks.harness import Bench

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """What one check came to; `curves` and `texts` go to TensorBoard, a value for each step or epoch."""

    passed: bool
    found: str
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """A check: its number in the recipe, what it demands, and what a failure usually means."""

    number: int
    name: str
    threshold: str
    means: str
    look: Callable[[Bench], Outcome]


@dataclass(frozen=True)
class Finding:
    """A check's outcome in words and figures, and how many seconds it took."""

    number: int
    name: str
    status: Status
    found: str
    threshold: str
    means: str
    seconds: float
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict, repr=False)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)


CHECKS: dict[int, Check] = {}  # filled by the modules that `runner` imports


def check(
    number: int, name: str, *, passes: str, means: str
) -> Callable[[Callable[[Bench], Outcome]], Callable[[Bench], Outcome]]:
    """Register a function as a check that passes when `passes`; a failure usually `means` that."""

    def register(look: Callable[[Bench], Outcome]) -> Callable[[Bench], Outcome]:
        CHECKS[number] = Check(number, name, passes, means, look)
        return look

    return register
