"""Runs: recording one (`Run`), comparing many (`table`, `scalars`, `find`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.runs.find import find as find
    from trainlab.runs.run import Run as Run
    from trainlab.runs.table import scalars as scalars
    from trainlab.runs.table import table as table

__all__ = ["Run", "find", "scalars", "table"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: pandas and torch cost seconds."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"trainlab.runs.{'table' if name == 'scalars' else name.lower()}")
    value = getattr(module, name)
    globals()[name] = value  # the function, where importing has put the module of the same name
    return value
