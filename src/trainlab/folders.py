"""Where things lie: one project folder, and in it `logs/`, `data/` and `notebooks/`."""

from __future__ import annotations

import os
from pathlib import Path


def root() -> Path:
    """Return the project folder: TRAINLAB_ROOT, or the folder that holds `src/`."""
    return Path(os.environ.get("TRAINLAB_ROOT") or Path(__file__).parents[2])


def logs() -> Path:
    """Return the folder of all runs, the one that TensorBoard serves."""
    return Path(os.environ.get("TRAINLAB_LOGS") or root() / "logs")


def data() -> Path:
    """Return the folder of data sets and of the hub cache."""
    return Path(os.environ.get("TRAINLAB_DATA") or root() / "data")


def notebooks() -> Path:
    """Return the folder of the notebooks that `trainlab run NAME` looks in."""
    return Path(os.environ.get("TRAINLAB_NOTEBOOKS") or root() / "notebooks")
