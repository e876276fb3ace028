"""The bar that an epoch shows while it trains."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

BAR = "{desc} {percentage:3.0f}% |{bar:25}| {n_fmt}/{total_fmt} batches [{elapsed}<{remaining}{postfix}]"
REDRAW = 0.5  # seconds; every redrawing stays in the notebook and the log


def epoch_bar(epoch: int, epochs: int | None, batches: int | None, done: int = 0) -> tqdm:
    """Return a bar of an epoch, counted from 1, of which so many batches are done.

    Plain text, the same in a terminal, a notebook and a log file; on standard output, because JupyterLab
    paints standard error red.
    """
    look: dict[str, Any] = {"bar_format": BAR, "mininterval": REDRAW, "file": sys.stdout}
    return tqdm(desc=f"epoch {epoch}/{epochs}", total=batches, initial=done, **look)
