"""Runs: recording one (`Run`), comparing many (`table`, `scalars`, `find`)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.run.find import find as find
    from trainlab.run.run import Run as Run
    from trainlab.runs.frames import scalars as scalars
    from trainlab.runs.frames import table as table

__all__ = ["Run", "find", "scalars", "table"]

_MODULES = {
    "Run": "trainlab.run.run",
    "find": "trainlab.run.find",
    "scalars": "trainlab.runs.frames",
    "table": "trainlab.runs.frames",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: pandas and torch cost seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
