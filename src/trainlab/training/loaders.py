"""How a Trainer takes the loaders that it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch.trainer.connectors.data_connector import _DataConnector
from lightning.pytorch.trainer.states import RunningStage

from trainlab.training.batches import OrderedLoader, ordered
from trainlab.training.workers import choose_workers, threads_for

if TYPE_CHECKING:
    import lightning


def take_loaders(trainer: lightning.Trainer, seed: int, workers: int | Literal["auto"] = 0) -> None:
    """Let a Trainer, once made, give its training loaders an order of our own (see `batches.ordered`).

    Those that have no workers get some: so many, or as many as are chosen for them, which is printed. A
    number leaves them their CPUs: torch takes fewer threads. A choice does not, since what is measured
    differs from time to time, and sums of floats by the number of threads.

    With several processes each validates and tests on the whole set: none is repeated or left out, and the
    metrics need no gathering. A training loader with an order of its own is shared out by Lightning, which
    gives each process whole batches.
    """
    connector = trainer._data_connector
    connector.__class__ = _Loaders  # what it knows by now, such as the data, stays as it is
    vars(connector).update(_seed=seed, _workers=workers, _loaded=0.0, _streams=0)


class _Loaders(_DataConnector):
    """Lightning's, which asks for each loader here; there is no public place where all of them pass."""

    _seed: int
    _workers: int | Literal["auto"]
    _loaded: float  # the epoch before which the loaders were asked for the last time
    _streams: int  # how many there were of them

    def _prepare_dataloader(self, dataloader: Any, shuffle: bool, mode: RunningStage) -> Any:
        if mode == RunningStage.TRAINING:
            order = {"seed": self._seed, "stream": self._stream()}
            world = {"rank": self.trainer.global_rank, "world": self.trainer.world_size}
            dataloader = ordered(dataloader, **order, **world)
            if isinstance(dataloader, OrderedLoader) and not dataloader.num_workers:
                dataloader.use_workers(self._count(dataloader))
        if mode in (RunningStage.TRAINING, RunningStage.PREDICTING):
            return super()._prepare_dataloader(dataloader, shuffle, mode)
        return dataloader

    def _stream(self) -> int:
        """Return the number of a loader among those that are asked for together, from 0."""
        loaded = self.trainer.fit_loop._last_train_dl_reload_epoch
        self._streams = self._streams + 1 if loaded == self._loaded else 0
        self._loaded = loaded
        return self._streams

    def _count(self, loader: OrderedLoader) -> int:
        """Return the number of workers for a loader; the first process chooses for all."""
        trainer = self.trainer
        if self._workers != "auto":
            torch.set_num_threads(threads_for(trainer.num_devices, self._workers))
            return self._workers
        choice = None
        if trainer.is_global_zero:
            on_cpu = trainer.strategy.root_device.type == "cpu"
            choice = choose_workers(loader, processes=trainer.num_devices, spare=int(on_cpu))
            print(choice, flush=True)
        return trainer.strategy.broadcast(choice and choice.workers) or 0
