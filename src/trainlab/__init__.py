"""trainlab: an experiment stack for deep learning.

with trainlab.Run("my-experiment", vars(args)) as run:
    run.log({"train/loss": loss})
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab import runs as runs
    from trainlab.config import Config as Config
    from trainlab.run.find import find as find
    from trainlab.run.run import Run as Run
    from trainlab.training.transformers import RunCallback as RunCallback

__version__ = "0.1.0"
__all__ = ["Run", "RunCallback", "runs"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that `import trainlab` costs nothing."""
    if name == "Run":
        from trainlab.run.run import Run

        return Run
    if name == "RunCallback":
        from trainlab.training.transformers import RunCallback

        return RunCallback
    if name == "runs":
        return import_module("trainlab.runs")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
