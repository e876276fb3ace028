"""`Trainer`: Lightning's Trainer with this project's defaults, recorded in a run."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from trainlab.limits import cpu_limit
from trainlab.training.progress import Bars, Speed
from trainlab.training.recording import RunLogger, VerifiedCheckpoints

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lightning.pytorch.callbacks import Callback

    from trainlab.runs.run import Run
    from trainlab.training.config import TrainingConfig

CHECKPOINTS = "checkpoints"
UNHELPFUL = (
    ".*does not have many workers.*",  # tokens are ready before training: workers would only cost memory
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning's own business with torch
)


class Trainer(lightning.Trainer):
    """Lightning's Trainer, recorded in a run.

    with trainlab.Run("mine", config) as run:
        Trainer(run, config).fit(module, data)

    `checkpoints/best.ckpt` has the weights with the lowest `config.monitor` at an epoch's end,
    `checkpoints/last.ckpt` all that a resume needs. On the CPU the same seed gives the same curves.
    `options` are Lightning's own and win over ours.
    """

    def __init__(
        self, run: Run, config: TrainingConfig, *, callbacks: Sequence[Callback] = (), **options: Any
    ) -> None:
        set_threads()
        self.run, self.config = run, config
        accelerator = accelerator_of(config.accelerator)
        defaults: dict[str, Any] = {
            "accelerator": accelerator,
            "devices": config.devices,
            "precision": config.precision,
            "max_epochs": config.epochs,
            "logger": RunLogger(run),
            "callbacks": [
                *callbacks,
                Bars(),
                Speed(),
                *_checkpoints(run.folder / CHECKPOINTS, config.monitor),
            ],
            "plugins": [VerifiedCheckpoints()],
            "deterministic": config.deterministic or accelerator == "cpu",
            "num_sanity_val_steps": 0,
            "enable_model_summary": False,
            "enable_progress_bar": False,  # Bars is ours
            "default_root_dir": run.folder,
        }
        with _quiet():
            super().__init__(**defaults | options)

    def fit(self, model: lightning.LightningModule, *args: Any, **kwargs: Any) -> None:
        """Train a module; see Lightning. Raises KeyboardInterrupt when interrupted."""
        lightning.seed_everything(self.config.seed, verbose=False)
        with _quiet(), _interruptible():
            super().fit(model, *args, **kwargs)


def accelerator_of(device: str) -> str:
    """Return 'cuda' or 'cpu' for a device that may be 'auto'."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def set_threads() -> int:
    """Give torch as many threads as this process may use CPUs, and return how many.

    A container sees all CPUs of the machine; more threads than its share slow each other many times over.
    OMP_NUM_THREADS may ask for fewer.
    """
    allowed = len(os.sched_getaffinity(0))
    threads = max(1, min(torch.get_num_threads(), allowed, math.ceil(cpu_limit() or allowed)))
    torch.set_num_threads(threads)
    return threads


def _checkpoints(folder: Path, monitor: str) -> list[ModelCheckpoint]:
    best = ModelCheckpoint(
        folder, "best", monitor=monitor, save_weights_only=True, enable_version_counter=False
    )
    last = ModelCheckpoint(folder, "last", enable_version_counter=False)
    return [best, last]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says about itself, and the warnings of `UNHELPFUL`; no others."""
    lightning_log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = lightning_log.level
    lightning_log.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in UNHELPFUL:
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            lightning_log.setLevel(level)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn Lightning's `sys.exit(1)` back into the KeyboardInterrupt it hides, and let Ctrl-C work again."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
