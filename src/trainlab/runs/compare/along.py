"""What curves are drawn over."""

from __future__ import annotations

from enum import StrEnum


class Along(StrEnum):
    """The x axis of a curve."""

    step = "step"
    time = "time"
    examples = "examples"


TITLES = {
    Along.step: "step",
    Along.time: "minutes at work",
    Along.examples: "examples seen",
}
