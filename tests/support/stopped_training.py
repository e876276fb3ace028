"""Trainings that wait for SIGTERM at a chosen place; each line on standard input, `NAME FOLDER`, is one.

For each a child is forked, which saves the seconds of the imports: its number is printed, then its exit code.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

import trainlab
from noisy_training import Data, Noisy, settings
from trainlab.run import signals
from trainlab.training.trainer import Trainer

SHORT = 0.3  # seconds, in place of the patience of six


class Waiting(Noisy):
    """Waits in `place` when so many steps are made, having said so."""

    def __init__(self, logs: Path, place: str, step: int, wait: Any) -> None:
        super().__init__()
        self.hparams.clear()
        self.logs, self.place, self.step, self.wait = logs, place, step, wait

    def training_step(self, batch: Any) -> torch.Tensor:
        self.reach("step")
        return super().training_step(batch)

    def validation_step(self, batch: Any) -> None:
        self.reach("validation")
        super().validation_step(batch)

    def test_step(self, batch: Any) -> None:
        self.reach("test")

    def reach(self, place: str) -> None:
        if place == self.place and self.global_step == self.step:
            say_now(self.logs)
            self.wait()


def say_now(logs: Path) -> None:
    (logs / "now").touch()


def forever() -> None:
    time.sleep(1000)


def until_asked() -> None:
    """Be in the midst of a step when the signal comes, and end it."""
    time.sleep(0.5)


def train(logs: Path, place: str, step: int, wait: Any, **changes: Any) -> None:
    config = settings(**{"checkpoint_every": "1h"} | changes)
    with trainlab.Run("stopped", config, logs=logs) as run:
        trainer, module = Trainer(run, config), Waiting(logs, place, step, wait)
        trainer.fit(module, Data())
        trainer.test(module, Data().val_dataloader())


def fine_tune(logs: Path, place: str, step: int, wait: Any) -> None:
    """The same, with the Transformers Trainer."""
    from transformers import TrainerCallback

    import noisy_tuning

    class WaitingIn(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            self.reach("step", state)

        def on_prediction_step(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            self.reach("evaluation", state)

        def reach(self, here: str, state: Any) -> None:
            if (here, state.global_step) == (place, step):
                say_now(logs)
                wait()

    with trainlab.Run("stopped", logs=logs, metrics=["val/loss"]) as run:
        noisy_tuning.tune(run, WaitingIn())


def preparation(logs: Path) -> None:
    with trainlab.Run("stopped", settings(), logs=logs):
        say_now(logs)
        forever()


def impatient() -> None:
    signals.deferred = functools.partial(signals.deferred, SHORT)


def play(name: str, logs: Path) -> None:
    if name == "preparation":
        preparation(logs)
    elif name == "step":
        train(logs, "step", 3, until_asked)
    elif name == "hanging_step":
        impatient()
        train(logs, "step", 3, forever, checkpoint_every="2")
    elif name == "validation":
        train(logs, "validation", 5, forever)
    elif name == "evaluation":
        train(logs, "test", 15, forever)
    elif name == "workers":
        train(logs, "step", 3, forever, num_workers=2)
    elif name == "tuning":
        fine_tune(logs, "step", 4, until_asked)
    elif name == "tuning_evaluation":
        fine_tune(logs, "evaluation", 3, forever)


def main() -> None:
    for line in sys.stdin:
        name, logs = line.split()
        child = os.fork()
        if child == 0:
            said = os.open(Path(logs, "said"), os.O_WRONLY | os.O_CREAT)
            for stream in (1, 2):
                os.dup2(said, stream)
            play(name, Path(logs))
            return
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
