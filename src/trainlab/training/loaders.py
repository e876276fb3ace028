"""How a Trainer takes the loaders that it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.trainer.connectors.data_connector import _DataConnector
from lightning.pytorch.trainer.states import RunningStage

from trainlab.training.batches import ordered

if TYPE_CHECKING:
    import lightning


def take_loaders(trainer: lightning.Trainer, seed: int) -> None:
    """Let a Trainer, once made, give its training loaders an order of our own (see `batches.ordered`).

    With several processes each validates and tests on the whole set: none is repeated or left out, and the
    metrics need no gathering.
    """
    trainer._data_connector = _Loaders(trainer, seed)


class _Loaders(_DataConnector):
    """Lightning's, which asks for each loader here; there is no public place where all of them pass."""

    def __init__(self, trainer: lightning.Trainer, seed: int) -> None:
        super().__init__(trainer)
        self._seed = seed
        self._loaded = 0.0  # the epoch before which the loaders were asked for the last time
        self._streams = 0  # how many there were of them

    def _prepare_dataloader(self, dataloader: Any, shuffle: bool, mode: RunningStage) -> Any:
        if mode == RunningStage.TRAINING:
            order = {"seed": self._seed, "stream": self._stream()}
            world = {"rank": self.trainer.global_rank, "world": self.trainer.world_size}
            dataloader = ordered(dataloader, **order, **world)
        if mode in (RunningStage.TRAINING, RunningStage.PREDICTING):
            return super()._prepare_dataloader(dataloader, shuffle, mode)
        return dataloader

    def _stream(self) -> int:
        """Return the number of a loader among those that are asked for together, from 0."""
        loaded = self.trainer.fit_loop._last_train_dl_reload_epoch
        self._streams = self._streams + 1 if loaded == self._loaded else 0
        self._loaded = loaded
        return self._streams
