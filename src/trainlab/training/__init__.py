"""What every experiment shares: Lightning's Trainer, and that of Transformers, that record into a run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.training.config import TrainingConfig
    from trainlab.training.finetuning import FineTuner
    from trainlab.training.finetuning_config import FineTuneConfig
    from trainlab.training.trainer import Trainer

__all__ = ["FineTuneConfig", "FineTuner", "Trainer", "TrainingConfig"]


def __getattr__(name: str) -> Any:
    """Import a library only when it is asked for: the command line checks settings without it."""
    modules = {
        "Trainer": "trainer",
        "TrainingConfig": "config",
        "FineTuner": "finetuning",
        "FineTuneConfig": "finetuning_config",
    }
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{modules[name]}"), name)
