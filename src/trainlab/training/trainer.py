"""`Trainer`: Lightning's Trainer with this project's defaults, recorded in a run; and its parts."""

from __future__ import annotations

import functools
import math
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
from lightning import LightningModule
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.core.mixins import HyperparametersMixin

from trainlab.run import checkpoint
from trainlab.training import loops
from trainlab.training.checkpoints import (
    BEST,
    Best,
    FullState,
    Patience,
    VerifiedCheckpoints,
    check_plain,
)
from trainlab.training.config import TrainingConfig
from trainlab.training.distributed import process_warning, processes_of
from trainlab.training.logger import EpochBar, RunLogger, Speed, quiet
from trainlab.training.seed import precision_of
from trainlab.training.workers import set_threads, take_loaders

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning.pytorch.callbacks import Checkpoint

    from trainlab.run.run import Run


LOG_EVERY = 10  # steps between two points of the running loss, at most
SHARED = (  # settings that Lightning's Trainer has by the same names
    *("fast_dev_run", "limit_train_batches", "limit_val_batches", "limit_test_batches"),
    *("overfit_batches", "accumulate_grad_batches"),
)


class Trainer(lightning.Trainer):
    """Lightning's Trainer with `callbacks`, RunLogger and EpochBar, and with a config's settings.

    with trainlab.Run("mine", config) as run:
        Trainer(run, config).fit(module, data)

    Logs and checkpoints (see `FullState` and `Best`) go into the run's folder. In a resumed run `fit` goes on
    from the newest undamaged checkpoint: on the CPU with the weights and losses that it would have had
    without the stop. On the CPU the same seed gives the same curves. `ckpt_path="best"` means your first
    ModelCheckpoint with a `monitor`, otherwise `best_checkpoint`.

    Args:
        run: Where all of it is recorded.
        config: The settings.
        callbacks: Callbacks of your own; a ProgressBar among them takes the place of EpochBar.
        **options: Lightning's own, which win over those that follow from the settings.

    Raises:
        UserError: where it is unknown whether less or more of `config.monitor` is better.
    """

    fast_dev_run: bool | int  # set by Lightning

    def __init__(
        self, run: Run, config: TrainingConfig, *, callbacks: Sequence[Callback] = (), **options: Any
    ) -> None:
        set_threads()
        self.run, self.config = run, config
        theirs = any(isinstance(each, ProgressBar) for each in callbacks)
        bar = [] if theirs or options.get("enable_progress_bar") is False else [EpochBar()]
        accelerator = config.device if config.accelerator == "auto" else config.accelerator
        defaults = {name: getattr(config, name) for name in SHARED} | {
            "accelerator": accelerator,
            **processes_of(config),
            "precision": precision_of(run, config),
            "max_epochs": config.epochs,
            "callbacks": [*callbacks, *bar, *callbacks_of(run, config)],
            "logger": RunLogger(run),
            "log_every_n_steps": LOG_EVERY,
            "deterministic": config.deterministic or accelerator == "cpu",
            "num_sanity_val_steps": 1,  # says before the training what is wrong with the validation
            "enable_model_summary": False,
            "default_root_dir": run.folder,
        }
        with quiet():
            super().__init__(**defaults | options)

    @property
    def best_checkpoint(self) -> Path | None:
        """`checkpoints/best.ckpt`, the weights with the best `config.monitor`, if there is one."""
        best = self.run.checkpoints / BEST
        return best if best.is_file() and not self.fast_dev_run else None

    @property
    def checkpoint_callback(self) -> Checkpoint | None:
        """Whose best weights `ckpt_path="best"` means."""
        return next((each for each in self.checkpoint_callbacks if getattr(each, "monitor", None)), None)

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self.run.folder)

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train a module; see Lightning. SIGTERM and Ctrl-C save a checkpoint after the current step.

        Raises:
            KeyboardInterrupt, Terminated: after such a signal.
            UserError: for hyperparameters that no checkpoint can hold, a checkpoint that can't be written,
                and a process of several that was killed.
        """
        lightning.seed_everything(self.config.seed, verbose=False)
        with quiet(), interruptible():
            super().fit(*args, **kwargs)
        self.run.checkpoint = None  # a second fit is another training

    def validate(self, *args: Any, **kwargs: Any) -> Any:
        """Measure a module on the validation set; see Lightning."""
        with quiet(), interruptible():
            return super().validate(*args, **kwargs)

    def test(self, *args: Any, **kwargs: Any) -> Any:
        """Measure a module on the test set; see Lightning, and this class for `ckpt_path="best"`."""
        with quiet(), interruptible():
            return super().test(*args, **kwargs)


class Connection(Callback):
    """Joins a Trainer of Lightning's to a run, once Lightning has got it ready.

    Its loops save where nothing is lost, its training loaders have an order that a resume continues, its
    checkpoints have digests, and in a resumed run `fit` starts at `run.checkpoint`. A ModelCheckpoint
    without a `dirpath` writes into the run's `checkpoints/`, and into `checkpoints/own/` where its `filename`
    would be one of ours.
    """

    _handler: Any = None  # of Ctrl-C

    def __init__(self, run: Run, config: TrainingConfig, states: FullState) -> None:
        self._run, self._config, self._states = run, config, states

    def setup(self, trainer: Any, module: LightningModule, stage: str) -> None:
        """Join them; raise UserError for hyperparameters that could not be loaded again."""
        if warning := process_warning(trainer):
            print(f"warning: {warning}", flush=True)
        for owner in (module, trainer.datamodule):
            kept = owner.hparams if isinstance(owner, HyperparametersMixin) else {}
            advice = "leave it out by save_hyperparameters(ignore=[{name!r}])"
            check_plain(kept, type(owner).__name__, advice)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                name = callback.filename or ""
                ours = name == Path(BEST).stem or name.startswith(
                    (checkpoint.STEP, f"best-{checkpoint.STEP}")
                )
                callback.dirpath = str(self._run.checkpoints / "own" if ours else self._run.checkpoints)
        self._handler = signal.getsignal(signal.SIGINT)
        trainer.strategy.checkpoint_io = VerifiedCheckpoints()
        # What a module logs is the mean over all processes, as it is over the batch in one; with one process
        # too, where it changes nothing: a training may go on with more. A `log` of its own stays as it is.
        for name in ("log", "log_dict"):
            method = getattr(LightningModule, name)
            if getattr(type(module), name) is method:
                setattr(module, name, functools.partial(method, module, sync_dist=True))
        take_loaders(trainer, self._config.seed, self._config.num_workers)
        if stage == "fit":
            loops.install(trainer, self._states)
            start = trainer._checkpoint_connector.resume_start
            trainer._checkpoint_connector.resume_start = lambda path=None, weights_only=None: start(
                path or (self._run.checkpoint if trainer.state.fn == "fit" else None), weights_only
            )

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        """Write how far the training is to go, once loaders and, after a resume, the steps done are known."""
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        found, epochs = trainer.estimated_stepping_batches, trainer.max_epochs
        steps = int(found) if math.isfinite(found) and found > 0 else None
        if steps == trainer.max_steps or epochs == -1:  # it ends in the midst of an epoch, or never
            epochs = None
        self._run.plan(steps, epochs, trainer.global_step)

    def on_exception(self, *_: Any) -> None:
        """Let Ctrl-C work again: Lightning switches it off for the rest of the process."""
        if self._handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handler)

    def teardown(self, trainer: Any, _: Any, stage: str) -> None:
        """Let a second fit be another training."""
        if stage == "fit":
            self._run.checkpoint = None
            vars(trainer._checkpoint_connector).pop("resume_start")


def callbacks_of(run: Run, config: TrainingConfig) -> list[Callback]:
    """Return what records a training of any Lightning Trainer in a run (see `Run.callbacks`)."""
    states = FullState(run, config)
    patience = [] if config.patience is None else [Patience(run, config, config.patience)]
    return [Connection(run, config, states), Speed(), *patience, Best(run, config), states]


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
