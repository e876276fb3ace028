"""Runs: recording one (`Run`), comparing many (`table`, `scalars`, `find`)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.runs.frames import scalars as scalars
    from trainlab.runs.frames import table as table
    from trainlab.runs.lookup import find as find
    from trainlab.runs.run import Run as Run

__all__ = ["Run", "find", "scalars", "table"]

_MODULES = {"Run": "run", "find": "lookup", "scalars": "frames", "table": "frames"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: pandas and torch cost seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"trainlab.runs.{_MODULES[name]}"), name)
