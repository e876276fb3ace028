"""`Trainer`: Lightning's Trainer with this project's defaults, recorded in a run."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.core.mixins import HyperparametersMixin

from trainlab.run import checkpoint
from trainlab.training import loops
from trainlab.training.checkpoints import Best, States
from trainlab.training.ddp import log_means, strategy_for
from trainlab.training.keeping import BEST, check_plain
from trainlab.training.loaders import take_loaders
from trainlab.training.precision import precision_of
from trainlab.training.progress import LOG_EVERY, Bars, Plan, Speed
from trainlab.training.recording import RunLogger, VerifiedCheckpoints
from trainlab.training.workers import set_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning.pytorch.callbacks import Callback, Checkpoint

    from trainlab.run.run import Run
    from trainlab.training.config import TrainingConfig

UNHELPFUL = (
    ".*does not have many workers.*",  # tokens are ready before training: workers would only cost memory
    ".*smaller than the logging interval.*",  # Speed sets that
    ".*module\\(s\\) in eval mode.*",  # frozen layers, which are to be so
    ".*configured with multiple `ModelCheckpoint`.*",  # see `Trainer.checkpoint_callback`
    ".*Checkpoint directory .* exists and is not empty.*",  # a run keeps its own there
    ".*requested to overfit but enabled.*",  # it turns shuffling off itself
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning's own business with torch
)


class Trainer(lightning.Trainer):
    """Lightning's Trainer, recorded in a run.

    with trainlab.Run("mine", config) as run:
        Trainer(run, config).fit(module, data)

    Logs and checkpoints (see `States` and `Best`) go into the run's folder. In a resumed run `fit` goes on
    from the newest undamaged checkpoint: on the CPU with the weights and losses that it would have had
    without the stop. On the CPU the same seed gives the same curves. `options` are Lightning's own and win
    over ours.

    A ModelCheckpoint of yours without a `dirpath` writes into `checkpoints/` too; into `checkpoints/own/`
    where its `filename` would be one of ours. `ckpt_path="best"` means your first one with a `monitor`,
    otherwise `best_checkpoint`.

    Raises UserError where nobody has said whether less or more of `config.monitor` is better.
    """

    fast_dev_run: bool | int  # set by Lightning

    def __init__(
        self, run: Run, config: TrainingConfig, *, callbacks: Sequence[Callback] = (), **options: Any
    ) -> None:
        set_threads()
        self.run, self.config = run, config
        self.checkpoints = States(run, config)
        self.resumed_from = run.checkpoint
        self._best = Best(run, config)
        ours = [Bars(), Plan(run), Speed(), self._best, self.checkpoints]
        for callback in callbacks:
            _keep_apart(callback, run)
        defaults = _defaults(run, config) | {"callbacks": [*callbacks, *ours]}
        with _quiet():
            super().__init__(**defaults | options)
        loops.install(self)
        take_loaders(self, config.seed, config.num_workers)

    @property
    def best_checkpoint(self) -> Path | None:
        """`checkpoints/best.ckpt`, the weights with the best `config.monitor`, if there is one."""
        best = self.run.checkpoints / BEST
        return best if best.is_file() and not self.fast_dev_run else None

    @property
    def checkpoint_callback(self) -> Checkpoint | None:
        """Whose best weights `ckpt_path="best"` means."""
        chosen = (each for each in self.checkpoint_callbacks if getattr(each, "monitor", None))
        return next(chosen, self._best)

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self.run.folder)

    def fit(self, model: lightning.LightningModule, *args: Any, **kwargs: Any) -> None:
        """Train a module; see Lightning. SIGTERM and Ctrl-C save a checkpoint after the step at work.

        Raises KeyboardInterrupt or `Terminated` then, and UserError for hyperparameters that no checkpoint
        can hold, or for a checkpoint that can't be written.
        """
        for each in (model, *args, *kwargs.values()):
            check_hyperparameters(each)
        log_means(model)
        lightning.seed_everything(self.config.seed, verbose=False)
        if self.resumed_from is not None:
            kwargs = {"ckpt_path": self.resumed_from} | kwargs
        with self.at_work():
            super().fit(model, *args, **{"weights_only": True} | kwargs)
        self.run.checkpoint = self.resumed_from = None  # a second fit is another training

    def validate(self, *args: Any, **kwargs: Any) -> Any:
        """Measure a module on the validation set; see Lightning."""
        with self.at_work():
            return super().validate(*args, **{"weights_only": True} | kwargs)

    def test(self, *args: Any, **kwargs: Any) -> Any:
        """Measure a module on the test set; see Lightning, and this class for `ckpt_path="best"`."""
        with self.at_work():
            return super().test(*args, **{"weights_only": True} | kwargs)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let Lightning work quietly, and KeyboardInterrupt leave it as what it is."""
        with _quiet(), interruptible():
            yield


def accelerator_of(device: str) -> str:
    """Return 'cuda' or 'cpu' for a device that may be 'auto'."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def check_hyperparameters(owner: Any) -> None:
    """Check that what a module's or a data module's `save_hyperparameters()` keeps can be loaded again.

    Raises UserError otherwise.
    """
    kept = owner.hparams if isinstance(owner, HyperparametersMixin) else {}
    check_plain(kept, type(owner).__name__, "leave it out by save_hyperparameters(ignore=[{name!r}])")


def _keep_apart(callback: Callback, run: Run) -> None:
    """Let a ModelCheckpoint that chose no folder overwrite, and later delete, none of our own files."""
    if not isinstance(callback, ModelCheckpoint) or callback.dirpath is not None:
        return
    name = callback.filename or ""
    if name == Path(BEST).stem or name.startswith((checkpoint.STEP, f"best-{checkpoint.STEP}")):
        callback.dirpath = str(run.checkpoints / "own")


def _defaults(run: Run, config: TrainingConfig) -> dict[str, Any]:
    accelerator = accelerator_of(config.accelerator)
    return {
        "accelerator": accelerator,
        "devices": config.devices,
        "strategy": strategy_for(config),
        "precision": precision_of(run, config),
        "max_epochs": config.epochs,
        "fast_dev_run": config.fast_dev_run,
        "limit_train_batches": config.limit_train_batches,
        "limit_val_batches": config.limit_val_batches,
        "limit_test_batches": config.limit_test_batches,
        "overfit_batches": config.overfit_batches,
        "accumulate_grad_batches": config.accumulate_grad_batches,
        "logger": RunLogger(run),
        "log_every_n_steps": LOG_EVERY,
        "plugins": [VerifiedCheckpoints()],
        "deterministic": config.deterministic or accelerator == "cpu",
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "enable_progress_bar": False,  # Bars is ours
        "default_root_dir": run.folder,
    }


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
def interruptible() -> Iterator[None]:
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
