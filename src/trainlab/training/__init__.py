"""What every experiment shares: Lightning's Trainer, and a callback for that of Transformers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.training.config import FineTuneConfig, TrainingConfig
    from trainlab.training.trainer import Trainer
    from trainlab.training.transformers import RunCallback

__all__ = ["FineTuneConfig", "RunCallback", "Trainer", "TrainingConfig"]


def __getattr__(name: str) -> Any:
    """Import a library only when it is asked for: the command line checks settings without it."""
    modules = {
        "Trainer": "trainer",
        "TrainingConfig": "config",
        "FineTuneConfig": "config",
        "RunCallback": "transformers",
    }
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{modules[name]}"), name)
