"""The settings: the parameters of the notebook, and KEY=VALUE of `trainlab run first`."""

from __future__ import annotations

from pydantic import Field

from trainlab.training.config import TrainingConfig


class SpiralsConfig(TrainingConfig):
    """Settings of the experiment; `TrainingConfig` adds epochs, seed, resume and others.

    Attributes:
        points: Points drawn, four fifths of them for training.
        noise: Standard deviation of the noise that is added to each coordinate.
        width: Units of each hidden layer.
        learning_rate: Of Adam.
    """

    points: int = Field(1000, ge=50)
    noise: float = Field(0.02, ge=0)
    width: int = Field(64, ge=1)
    batch_size: int = Field(40, ge=1)
    learning_rate: float = Field(0.02, gt=0)
    epochs: int = Field(15, ge=1)
    num_workers: int = Field(0, ge=0)  # the data lie in memory: there is nothing to prepare
