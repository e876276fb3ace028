"""Lightning's logs go where a run keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainlab.run.run import Run


class RunLogger(Logger):
    """Gives every number that a module logs to the run, under its own tag."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self.resumed_at = 0  # steps of the checkpoint that was gone on from

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self._run.experiment

    @property
    def version(self) -> str:
        """The run's name."""
        return self._run.name

    @property
    def save_dir(self) -> str:
        """The folder of all experiments: Lightning itself adds name and version to it."""
        return str(self._run.folder.parents[1])

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self._run.folder)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars at a global step; Lightning's own counter of epochs is no metric.

        What a resume repeats, the validation that followed its checkpoint, is not logged again.
        """
        at = int(step or 0)
        repeated = at < self.resumed_at
        new = {tag for tag in metrics if tag != "epoch" and not (repeated and self._run.has(tag, at))}
        self._run.log({tag: metrics[tag] for tag in metrics if tag in new}, at)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run wrote its settings when it started."""
