"""Which run was better, and why: curves over each other, settings against a metric, cost, a report."""

from enum import StrEnum


class XAxis(StrEnum):
    """What curves are drawn over. It stands here because the command needs it before pandas."""

    step = "step"
    time = "time"
    epoch = "epoch"
    examples = "examples"


TITLES = {
    XAxis.step: "step",
    XAxis.time: "minutes running",
    XAxis.epoch: "epochs",
    XAxis.examples: "examples seen",
}
