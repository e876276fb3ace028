"""The news experiment: a siamese network under which related news lie close together.

config = NewsConfig(margin=5)
result = train(config)
recommend(result.run, ["Ten easy pasta dinners"])
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.news.config import NewsConfig as NewsConfig
    from trainlab.news.experiment import Result as Result
    from trainlab.news.experiment import train as train
    from trainlab.news.neighbours import recommend as recommend

__all__ = ["NewsConfig", "Result", "recommend", "train"]

_MODULES = {"NewsConfig": "config", "Result": "experiment", "recommend": "neighbours", "train": "experiment"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: the settings cost nothing, training costs seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with warnings.catch_warnings():  # our bars are plain text, and need no widgets
        warnings.filterwarnings("ignore", "IProgress not found")
        return getattr(import_module(f"trainlab.news.{_MODULES[name]}"), name)
