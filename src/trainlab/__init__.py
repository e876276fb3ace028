"""trainlab: an experiment stack for deep learning.

with trainlab.Run("my-experiment", config) as run:
    run.log({"train/loss": loss}, step)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab import runs as runs
    from trainlab.run.run import Run as Run

__version__ = "0.1.0"
__all__ = ["Run", "runs"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that `import trainlab` costs nothing."""
    if name == "Run":
        from trainlab.run.run import Run

        return Run
    if name == "runs":
        import importlib

        return importlib.import_module("trainlab.runs")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
