"""The captions experiment: a network that looks at a picture and writes a sentence about it.

config = CaptionsConfig(epochs=4)
result = train(config)
caption(result.run, ["picture.jpg"])
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.captions.captioning import caption as caption
    from trainlab.captions.config import CaptionsConfig as CaptionsConfig
    from trainlab.captions.experiment import Result as Result
    from trainlab.captions.experiment import train as train

__all__ = ["CaptionsConfig", "Result", "caption", "train"]

_MODULES = {
    "CaptionsConfig": "config",
    "Result": "experiment",
    "caption": "captioning",
    "train": "experiment",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: the settings cost nothing, training costs seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with warnings.catch_warnings():  # our bars are plain text, and need no widgets
        warnings.filterwarnings("ignore", "IProgress not found")
        return getattr(import_module(f"trainlab.captions.{_MODULES[name]}"), name)
