"""How far a run at work is: what is shown of it until it has an end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainlab.runs.listing import Row


def text(row: Row) -> str:
    """Return 'step 340 of 2,000, epoch 2 of 5, about 3 min left', or as much of it as is known."""
    from trainlab.runs.display import duration

    if row.record is None:
        return ""
    planned = row.record.planned
    step = max((point.step for point in row.record.last.values()), default=None)  # the last one logged
    if step is None:
        return ""
    if planned is None or planned.steps is None:
        return f"step {step:,}"
    parts = [f"step {min(step, planned.steps):,} of {planned.steps:,}"]
    if planned.epochs:
        parts.append(
            f"epoch {min(planned.epochs, 1 + step * planned.epochs // planned.steps)} of {planned.epochs}"
        )
    if planned.step < step < planned.steps:  # the others will take as long as those since the start
        seconds = max(0.0, (datetime.now(UTC) - planned.at).total_seconds())
        left = duration(seconds / (step - planned.step) * (planned.steps - step))
        parts.append(f"about {' '.join(left.split()[:2])} left")
    return ", ".join(parts)
