"""`fit`: Lightning's Trainer with this project's defaults, recorded in a run."""

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

LOG_EVERY = 10  # steps between two points of the running loss, at most
POINTS = 10  # of the running loss in an epoch, at least, where it has as many steps
CHECKPOINTS = "checkpoints"
UNHELPFUL = (
    ".*does not have many workers.*",  # tokens are ready before training: workers would only cost memory
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning's own business with torch
)


def fit(  # noqa: PLR0913
    module: lightning.LightningModule,
    data: lightning.LightningDataModule,
    run: Run,
    *,
    epochs: int,
    seed: int,
    device: str = "auto",
    precision: Any = "32-true",
    monitor: str = "val/loss",
    callbacks: Sequence[Callback] = (),
) -> lightning.Trainer:
    """Train a module, log and save into the run's folder, and return the Trainer.

    `checkpoints/best.ckpt` has the weights with the lowest `monitor` at an epoch's end,
    `checkpoints/last.ckpt` all that a resume needs. On the CPU the same seed gives the same curves.
    Raises KeyboardInterrupt when interrupted.
    """
    set_threads()
    lightning.seed_everything(seed, verbose=False)
    accelerator = accelerator_of(device)
    with _quiet(), _interruptible():
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,
            max_epochs=epochs,
            logger=RunLogger(run),
            callbacks=[*callbacks, Bars(), Speed(), *_checkpoints(run.folder / CHECKPOINTS, monitor)],
            plugins=[VerifiedCheckpoints()],
            deterministic=accelerator == "cpu",
            log_every_n_steps=_log_every(len(data.train_dataloader())),
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=False,  # Bars is ours
            default_root_dir=run.folder,
        )
        trainer.fit(module, datamodule=data)
    return trainer


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


def _log_every(batches: int) -> int:
    return max(1, min(LOG_EVERY, batches // POINTS))


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
