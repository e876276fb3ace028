"""The trainings that kills.py kills: each tells what it does on a board that outlives it."""

from __future__ import annotations

import mmap
import os
import random
import struct
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trainlab import files
from trainlab.config import Config
from trainlab.run import checkpoint, record
from trainlab.run.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

PHASES = ("training", "saving", "evaluating", "writing run.json", "resuming")
TRAIN, SAVE, EVALUATE, RECORD, RESUME = range(len(PHASES))
STEPS, EVALUATE_EVERY, SAVE_EVERY, KEEP = 40, 5, 3, 2
BOARD = "KILLS_BOARD"  # the environment's name for the board's file


class Settings(Config):
    """Of the loop."""

    margin: float = 1.0
    resume: str = Field("", exclude=True)


class Board:
    """What a training tells of itself, in memory that outlives it: what it does, and what it has saved."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 16)

    @property
    def phase(self) -> int:
        """What is done now, one of PHASES."""
        return self._memory[0]

    @phase.setter
    def phase(self, phase: int) -> None:
        self._memory[0] = phase

    @property
    def saved(self) -> int:
        """Steps in the newest whole checkpoint."""
        return struct.unpack_from("q", self._memory, 8)[0]

    @saved.setter
    def saved(self, steps: int) -> None:
        struct.pack_into("q", self._memory, 8, steps)

    @contextmanager
    def during(self, phase: int) -> Iterator[None]:
        """Do this for a while."""
        before, self.phase = self.phase, phase
        yield
        self.phase = before


def watched() -> Board:
    """Return the board, having arranged that what is written is told there."""
    board = Board(Path(os.environ[BOARD]))
    board.phase = RESUME
    replacing = files.replacing

    @contextmanager
    def telling(path: Path) -> Iterator[Any]:
        with board.during(RECORD if path.name == record.FILE else SAVE), replacing(path) as file:
            yield file

    files.replacing = telling
    return board


def loop(logs: Path | None, resume: str, margin: float = 1.0) -> None:
    """Train by hand."""
    board, numbers = watched(), random.Random(0)
    config = Settings(margin=margin, resume=resume)
    with Run("loop", config, logs=logs, monitor=False) as run:
        first, weight = 0, 0.0
        if run.checkpoint is not None:
            state = checkpoint.load(run.checkpoint)
            first, weight, (version, words, rest) = state["step"], state["weight"], state["random"]
            numbers.setstate((version, tuple(words), rest))
            run.rewind(first, run.checkpoint)
        board.phase = TRAIN
        for step in range(first, STEPS):
            time.sleep(0.002)
            weight += numbers.gauss(margin, 1.0)
            run.log({"train/loss": weight}, step)
            if step % EVALUATE_EVERY == EVALUATE_EVERY - 1:
                with board.during(EVALUATE):
                    time.sleep(0.002)
                    run.log({"val/loss": weight * numbers.random()}, step)
                run.update(evaluated=step)
            if step % SAVE_EVERY == SAVE_EVERY - 1:
                version, words, rest = numbers.getstate()
                state = {"step": step + 1, "weight": weight, "random": [version, list(words), rest]}
                with board.during(SAVE):
                    path = run.checkpoints / f"{checkpoint.STEP}{step + 1:08}.ckpt"
                    checkpoint.save(state, path)
                    board.saved = step + 1
                    checkpoint.alias(path, checkpoint.LAST)
                    for old in sorted(run.checkpoints.glob(f"{checkpoint.STEP}*.ckpt"))[:-KEEP]:
                        checkpoint.remove(old)


def lightning(logs: Path | None, resume: str) -> None:
    """Train with our Trainer."""
    import lightning
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from trainlab.training.checkpoints import FullState
    from trainlab.training.config import TrainingConfig
    from trainlab.training.trainer import Trainer

    board, save = watched(), FullState._save

    class Line(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            layers = torch.nn.Linear(3, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
            self.layers = torch.nn.Sequential(*layers)

        def training_step(self, batch: Any) -> Any:
            board.phase = TRAIN
            loss = self.layers(batch[0]).square().mean() + random.random()
            self.log("train/loss", loss)
            return loss

        def validation_step(self, batch: Any) -> None:
            board.phase = EVALUATE
            self.log("val/loss", self.layers(batch[0]).square().mean() + random.random())

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.05)

    def telling(states: FullState, trainer: Any, *args: Any, **options: Any) -> None:
        save(states, trainer, *args, **options)
        board.saved = trainer.global_step

    FullState._save = telling  # type: ignore[method-assign]
    config = TrainingConfig(
        accelerator="cpu", num_workers=0, epochs=3, checkpoint_every="3", resume=resume, monitor="val/loss"
    )
    x = TensorDataset(torch.randn(40, 3, generator=torch.Generator().manual_seed(1)))
    with Run("lightning", config, logs=logs, monitor=False) as run:
        lightning.seed_everything(7, verbose=False)
        Trainer(run, config, log_every_n_steps=1).fit(
            Line(), DataLoader(x, batch_size=5, shuffle=True), DataLoader(x, batch_size=20)
        )
