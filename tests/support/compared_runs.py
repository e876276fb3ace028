"""Rows and runs for the tests of comparing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import trainlab
from trainlab.runs.listing import Row


def row(name="a", experiment="news", loss=None, folder=None, **fields):
    """Return a row as the listing would, with a best val/loss where one is given."""
    best = {} if loss is None else {"val/loss": loss}
    known = {"best": best, "last": best, "status": "finished"} | fields
    return Row(folder or Path(f"/nowhere/{name}"), experiment, name, **known)


def random_rows(count, seed=0):
    """Return rows of which the learning rate decides most, the seed nothing."""
    random = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        rate, start = float(10 ** random.uniform(-5, -2)), int(random.integers(5))
        backbone = str(random.choice(["minilm", "bert"]))
        config = {"learning_rate": rate, "seed": start, "backbone": backbone}
        loss = np.log10(rate) ** 2 + 0.1 * random.normal()
        rows.append(row(f"r{index}", loss=float(loss), config=config))
    return rows


def record(logs, name, config, losses, experiment="news"):
    """Record a run with losses, {step: value} or a list, and return its folder."""
    points = dict(enumerate(losses)) if isinstance(losses, list) else losses
    with trainlab.Run(experiment, config, name=name, metrics=["val/loss"], logs=logs, monitor=False) as run:
        for step, value in points.items():
            run.log({"val/loss": value, "train/loss": value / 2}, step)
    return run.folder


def record_foreign(folder, losses):
    """Write event files without a record, as somebody else's program would."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(folder) as writer:
        for step, value in enumerate(losses):
            writer.add_scalar("val/loss", value, step)
