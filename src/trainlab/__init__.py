"""trainlab: an experiment stack for deep learning.

with trainlab.Run("my-experiment", config) as run:
    run.log({"train/loss": loss}, step)

trainlab.table()                # all runs as a pandas DataFrame
trainlab.scalars("last")        # one run's points
trainlab.find("margin5")        # its folder
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab import runs as runs
    from trainlab.run.find import find as find
    from trainlab.run.run import Run as Run
    from trainlab.runs.frames import scalars as scalars
    from trainlab.runs.frames import table as table

__version__ = "0.1.0"
__all__ = ["Run", "find", "runs", "scalars", "table"]

_MODULES = {"Run": "run", "find": "lookup", "scalars": "frames", "table": "frames"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that `import trainlab` costs nothing."""
    if name == "runs":
        return import_module("trainlab.runs")
    if name in _MODULES:
        return getattr(import_module(f"trainlab.runs.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
