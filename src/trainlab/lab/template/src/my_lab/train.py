"""The training: a run, a trainer, and what `trainlab check my_lab.train:subject` asks its questions about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trainlab
from my_lab.config import SpiralsConfig
from my_lab.model import Network, Spirals
from trainlab.checks.subject import Subject


def train(config: SpiralsConfig) -> trainlab.Run:
    """Train once; return the run, whose folder holds curves, checkpoints and settings."""
    with trainlab.Run("my-lab", config) as run:
        trainlab.Trainer(run, config).fit(Network(config), Spirals(config))
    return run


def subject(settings: Mapping[str, Any]) -> Subject:
    """Return what the checks need to know: the network, its data, the number of classes."""
    config = SpiralsConfig.parse(settings)
    return Subject("my-lab", lambda: Network(config), lambda: Spirals(config), classes=2)
