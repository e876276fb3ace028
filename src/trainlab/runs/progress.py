"""How far a run at work is: what is shown of it until it has an end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainlab.run.record import Planned, Record
    from trainlab.runs.listing import Row


def text(row: Row) -> str:
    """Return 'step 340 of 2,000, epoch 2 of 5, about 3 min left', or as much of it as is known."""
    from trainlab.runs.display import duration

    if row.record is None:
        return ""
    step, planned = _step(row.record), row.record.planned
    if step is None:
        return ""
    if planned is None or planned.steps is None:
        return f"step {step:,}"
    parts = [f"step {min(step, planned.steps):,} of {planned.steps:,}"]
    if planned.epochs:
        parts.append(
            f"epoch {min(planned.epochs, 1 + step * planned.epochs // planned.steps)} of {planned.epochs}"
        )
    if (left := _left(step, planned)) is not None:
        parts.append(f"about {' '.join(duration(left).split()[:2])} left")
    return ", ".join(parts)


def _step(known: Record) -> int | None:
    """Return the last step that anything was logged at, None where nothing was."""
    return max((point.step for point in known.last.values()), default=None)


def _left(step: int, planned: Planned) -> float | None:
    """Return how many seconds the other steps will take, if they take as long as those since the start."""
    done = step - planned.step
    if not planned.steps or done <= 0 or step >= planned.steps:
        return None
    seconds = (datetime.now(UTC) - planned.at).total_seconds()
    return max(0.0, seconds) / done * (planned.steps - step)
