"""The sentiment experiment: a transformer fine-tuned to tell whether a review praises or pans a film.

config = SentimentConfig(epochs=3)
result = train(config)
predict(result.run, ["A warm, funny film."])
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.sentiment.config import SentimentConfig as SentimentConfig
    from trainlab.sentiment.experiment import Result as Result
    from trainlab.sentiment.experiment import train as train
    from trainlab.sentiment.predicting import predict as predict

__all__ = ["Result", "SentimentConfig", "predict", "train"]

_MODULES = {
    "Result": "experiment",
    "SentimentConfig": "config",
    "predict": "predicting",
    "train": "experiment",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: the settings cost nothing, training costs seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with warnings.catch_warnings():  # our bars are plain text, and need no widgets
        warnings.filterwarnings("ignore", "IProgress not found")
        return getattr(import_module(f"trainlab.sentiment.{_MODULES[name]}"), name)
