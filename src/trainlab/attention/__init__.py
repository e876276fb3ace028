"""What the heads of a network attend to: BertViz's views without a network, and scores of every head.

study = look(AttentionConfig(run="last"))
study.head_view()
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.attention.config import AttentionConfig as AttentionConfig
    from trainlab.attention.study import Study as Study
    from trainlab.attention.study import look as look

__all__ = ["AttentionConfig", "Study", "look"]

_MODULES = {"AttentionConfig": "config", "Study": "study", "look": "study"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: the settings cost nothing, a network costs seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with warnings.catch_warnings():  # nothing here needs widgets
        warnings.filterwarnings("ignore", "IProgress not found")
        return getattr(import_module(f"trainlab.attention.{_MODULES[name]}"), name)
