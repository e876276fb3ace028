"""Training in several processes of this machine, each with its share of every batch (DDP).

They are started by the process that calls `fit` and end with it, whatever ends it. Lightning's own ways don't
serve: to run the script again means nothing in a notebook's kernel, a fork of a process with OpenMP threads
hangs, and its spawn loses what the callbacks know and how a process failed.
"""

from __future__ import annotations

import functools
import logging
import os
import pickle
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.multiprocessing import (
    _GlobalStateSnapshot,
    _MultiProcessingLauncher,
)
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.states import TrainerFn

from trainlab.run.run import Run
from trainlab.training.team import Team, pickled
from trainlab.training.workers import threads_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import lightning
    from lightning.pytorch.strategies import Strategy

    from trainlab.training.config import TrainingConfig

LOOPBACK = "lo"  # gloo would look up this host's name, which a container without a network lacks


def strategy_for(config: TrainingConfig) -> Strategy | str:
    """Return what Lightning's Trainer is to take as `strategy`: several devices are one process each.

    Under torchrun the processes are there already.
    """
    if config.devices == 1:
        return "auto"
    return DDPStrategy(**OPTIONS) if TorchElasticEnvironment.detect() else Processes()


# A backbone's part that the loss doesn't reach, such as a pooler, is no mistake on one device either.
OPTIONS: dict[str, Any] = {"find_unused_parameters": True}


def log_means(module: LightningModule) -> None:
    """Let what a module logs be the mean over all processes, as it is over the batch in one.

    Also for one process, where it changes nothing: a training may go on with more or fewer of them. A class
    with a `log` of its own decides for itself.
    """
    for name in ("log", "log_dict"):
        method = getattr(LightningModule, name)
        if getattr(type(module), name) is method:
            setattr(module, name, functools.partial(method, module, sync_dist=True))


class Processes(DDPStrategy):
    """DDP between new processes: over gloo on the CPU, over NCCL on GPUs."""

    def __init__(self) -> None:
        super().__init__(start_method="spawn", cluster_environment=LightningEnvironment(), **OPTIONS)

    def _configure_launcher(self) -> None:
        self._launcher = _Launcher(self)


class _Launcher(_MultiProcessingLauncher):
    """Sends the Trainer to the processes, and brings back what the first of them made of it."""

    @property
    def is_interactive_compatible(self) -> bool:
        return True  # no fork, and no second look at the notebook

    def launch(
        self,
        function: Callable[..., Any],
        *args: Any,
        trainer: lightning.Trainer | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a Trainer's `function` in each process; return what process 0 returned.

        Raises what the process that failed first raised; UserError for one that was killed, and for
        something that can't be sent.
        """
        assert trainer is not None, "a Trainer launches with itself"
        trainer.lightning_module.cpu()  # else each process would first load it into the same GPU
        work = _Work(trainer, function, args, kwargs)
        try:
            folder = trainer.run.folder  # type: ignore[attr-defined]
            with Team(trainer.num_devices, pickled(work), folder) as team:
                outcome = team.outcome()
        except BaseException:
            trainer.callbacks = []  # type: ignore[attr-defined] # each process has told its own of the exception
            raise
        finally:
            trainer.run.refresh()  # type: ignore[attr-defined]
        return _take_over(trainer, pickle.loads(outcome))


class _Work:
    """What each process does."""

    def __init__(
        self,
        trainer: lightning.Trainer,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.trainer, self.function, self.args, self.kwargs = trainer, function, args, kwargs
        self.state = _GlobalStateSnapshot.capture()

    def __call__(self, rank: int) -> bytes | None:
        """Do a process's share; return process 0's outcome."""
        self.state.restore()
        logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # which process has which rank
        torch.set_num_threads(threads_for(self.trainer.num_devices))
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
        if rank:
            self.trainer.run.__class__ = _Silent  # type: ignore[attr-defined] # the callbacks' run, too
        from trainlab.training.trainer import interruptible

        try:
            with interruptible():
                returned = self.function(*self.args, **self.kwargs)
        except BaseException as error:
            call._call_callback_hooks(self.trainer, "on_exception", error)
            raise
        return _outcome(self.trainer, returned) if rank == 0 else None


class _Silent(Run):
    """What a run's copy becomes in a process that leaves writing to the first one."""

    @property
    def _events(self) -> Any:
        """An event file that takes in nothing."""
        return _Nowhere()

    @property
    def writer(self) -> Any:
        """A writer that writes nothing, whatever it is asked to."""
        return _Nowhere()

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Do nothing."""

    def update(self, **fields: Any) -> None:
        """Do nothing."""

    def rewind(self, step: int, checkpoint: Path | None = None) -> None:
        """Do nothing."""


class _Nowhere:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _outcome(trainer: lightning.Trainer, returned: Any) -> bytes:
    known = {
        "returned": returned,
        "weights": trainer.lightning_module.state_dict() if _fitting(trainer) else None,
        "loops": trainer.fit_loop.state_dict(),
        "callbacks": call._call_callbacks_state_dict(trainer),
        "metrics": (trainer.callback_metrics, trainer.logged_metrics),
        "state": trainer.state,
    }
    return pickle.dumps(move_data_to_device(known, "cpu"))


def _take_over(trainer: lightning.Trainer, known: dict[str, Any]) -> Any:
    """Make the Trainer and its module what they would be had they trained here."""
    trainer.state = known["state"]
    if _fitting(trainer):
        trainer.lightning_module.load_state_dict(known["weights"])
        trainer.fit_loop.load_state_dict(known["loops"])
    call._call_callbacks_load_state_dict(trainer, {"callbacks": known["callbacks"]})
    callback_metrics, logged_metrics = known["metrics"]
    trainer.callback_metrics.update(callback_metrics)
    trainer.logged_metrics.update(logged_metrics)
    return known["returned"]


def _fitting(trainer: lightning.Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING
