"""What `FineTuner` keeps on the disk, and when; it goes with it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from trainlab.errors import UserError, nearest
from trainlab.run import checkpoint, record, signals
from trainlab.run.checkpoint import STEP
from trainlab.training.checkpoints import (
    BEST,
    KEY,
    SHORT_STEP,
    check_epochs,
    check_plain,
    one_name,
    undirected,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from trainlab.run.run import Run
    from trainlab.run.signals import Deferral
    from trainlab.training.config import CommonConfig

__all__ = ["BEST", "KEY", "Keeper", "Ranking", "check_epochs", "check_plain"]


class Keeper:
    """Keeps `step-00000240.ckpt`, all that a resume needs, and `last.ckpt`, the newest of them.

    Whoever trains asks by `is_due` whether it is time, writes to `path` and calls `written`; the `keep`
    newest stay. `deferral` says whether somebody wants to stop the training.
    """

    deferral: Deferral

    def __init__(self, run: Run, config: CommonConfig) -> None:
        self._run, self._config = run, config
        self._saved = -1  # the step of the newest file
        self._since = time.monotonic()
        self._pending: dict[str, Any] | None = None  # what `rescue` is to write
        self._step_since: float | None = None

    def start(self, step: int | None) -> None:
        """Start the clock of `checkpoint_every`; `step` is that of the checkpoint that is gone on from."""
        self._since, self._saved = time.monotonic(), -1 if step is None else step

    def rewind(self, step: int, path: Path) -> None:
        """Take the run's curves back to the checkpoint that is gone on from, and say so."""
        self._run.rewind(step, path)
        print(f"going on from step {step}: {path}", flush=True)

    def before_step(self) -> None:
        """Forget the step before: its weights are about to change."""
        self._pending = None
        self.deferral.at_once = False
        if self._step_since is None:  # of several batches the first
            self._step_since = time.monotonic()

    def measure_step(self) -> None:
        """Take down how long a step may take, now that one is made: a stop waits for it (`runs.grace`)."""
        if self._step_since is None:
            return
        seconds, self._step_since = time.monotonic() - self._step_since, None
        if seconds > max(SHORT_STEP, 1.2 * self.deferral.longest_step):
            self.deferral.longest_step = seconds
            self._run.update(longest_step=round(seconds, 1))

    def is_due(self, step: int) -> bool:
        """Tell whether the interval is over after so many steps, or somebody wants to stop."""
        if self.deferral.requested:
            return True
        if steps := self._config.checkpoint_steps:
            return step % steps == 0
        return time.monotonic() - self._since >= (self._config.checkpoint_seconds or math.inf)

    def path(self, step: int) -> Path:
        """Return the file of a step."""
        return self._run.checkpoints / f"{STEP}{step:08d}.ckpt"

    def written(self, step: int, *, first_process: bool = True) -> None:
        """Take the file of a step, now whole, into account."""
        self._saved, self._pending, self._since = step, None, time.monotonic()
        if first_process:
            checkpoint.alias(self.path(step), checkpoint.LAST)
            self._tidy(step)

    def rescue(self, write: Callable[[dict[str, Any]], None]) -> None:
        """Save the last whole step of an interrupted training, if it is at hand and not yet on the disk."""
        if self._pending is None:
            return
        try:
            write(self._pending)
        except checkpoint.CheckpointError as error:
            print(f"warning: {error}", flush=True)

    def _tidy(self, step: int) -> None:
        """Delete all but the newest; later ones are damaged, or of a training that was taken back."""
        found = {path: path.stem.removeprefix(STEP) for path in self._run.checkpoints.glob(f"{STEP}*.ckpt")}
        steps = {int(number): path for path, number in found.items() if number.isdigit()}
        kept = sorted(each for each in steps if each <= step)[-self._config.keep :]
        for each in steps.keys() - set(kept):
            checkpoint.remove(steps[each])


class Ranking:
    """Keeps `best.ckpt`, the weights with the best value of a metric so far, and names it in `run.json`.

    With a `most` of more than 1 the others lie beside it, as `best-step-00000240.ckpt`, with -1 all of them;
    with 0 nothing is kept. `values` are those of the kept ones, by step. `mode` says which way the metric
    improves: 'min', 'max', or 'auto' where the run or a well-known name does.

    Raises UserError where nobody says so: the others' weights would be deleted by a guess.
    """

    def __init__(self, run: Run, monitor: str, most: int = 1, *, mode: str, setting: str = "monitor") -> None:
        self.values: dict[int, float] = {}
        self._run, self._monitor, self._most = run, monitor, most
        self._direction = run.direction(monitor, mode)
        if self._direction is None and most:
            raise UserError(undirected(monitor, setting))
        self._sign = 1 if self._direction == "min" else -1
        self._told = False

    @property
    def best(self) -> Path | None:
        """The file, if there is one."""
        path = self._run.checkpoints / BEST
        return path if path.is_file() else None

    def resume(self) -> None:
        """Take a file into account that is newer than the state that is gone on from."""
        known = record.read(self._run.folder).model_dump().get("best_checkpoint") or {}
        if one_name(known.get("monitor", "")) == one_name(self._monitor) and self.best:
            self.values.setdefault(known["step"], float(known["value"]))

    def logged(self, metrics: Mapping[str, Any]) -> float | None:
        """Return the metric's value, None where it was not logged; 'val_loss' is 'val/loss'."""
        if self._monitor not in metrics:
            alike = [tag for tag in metrics if one_name(tag) == one_name(self._monitor)]
            if len(alike) != 1:
                return None
            (self._monitor,) = alike
            if self._direction is not None:
                self._run.direction(self._monitor, self._direction)
        return float(metrics[self._monitor])

    @property
    def monitor(self) -> str:
        """The metric's name, as it is logged once it was."""
        return self._monitor

    def wants(self, step: int, value: float) -> bool:
        """Tell whether a step's weights are among the best so far; NaN is worse than anything."""
        better = self._most < 0 or len(self.values) < self._most or self._rank(value) < self._worst()
        return better and step not in self.values

    @signals.held()
    def add(
        self, step: int, value: float, save: Callable[[Path], None], *, first_process: bool = True
    ) -> None:
        """Keep a step's weights, which `save` writes, and delete those that they displace."""
        self.values[step] = value
        ranked = sorted(self.values, key=lambda each: (self._rank(self.values[each]), each))
        kept = ranked if self._most < 0 else ranked[: self._most]
        path = self._path(step)
        save(path)
        if kept[0] == step and first_process:
            self._name(path, step)
        self.values = {each: self.values[each] for each in kept}
        if first_process:
            self._tidy()

    def warn(self, known: Iterable[str]) -> None:
        """Say, once, that the metric is not among those that were logged."""
        if not self._told:
            self._told = True
            print(_unknown(self._monitor, list(known)), flush=True)

    def _name(self, path: Path, step: int) -> None:
        if path.name != BEST:
            checkpoint.alias(path, BEST)
        told = {"monitor": self._monitor, "value": self.values[step], "step": step}
        relative = (self._run.checkpoints / BEST).relative_to(self._run.folder)
        self._run.update(best_checkpoint={"path": str(relative), **told})

    def _path(self, step: int) -> Path:
        return self._run.checkpoints / (BEST if self._most == 1 else f"best-step-{step:08d}.ckpt")

    def _tidy(self) -> None:
        kept = {self._path(step) for step in self.values}
        for path in self._run.checkpoints.glob("best-step-*.ckpt"):
            if path not in kept:
                checkpoint.remove(path)

    def _rank(self, value: float) -> float:
        """Return the value, or its opposite, so that less is better; NaN is worse than anything."""
        return math.inf if math.isnan(value) else self._sign * value

    def _worst(self) -> float:
        return max(map(self._rank, self.values.values()), default=-math.inf)


def _unknown(monitor: str, known: list[str]) -> str:
    return (
        f"warning: monitor={monitor}: nothing of that name was logged, and without it there is no best.ckpt. "
        f"Logged: {', '.join(sorted(known)) or 'nothing'}.{nearest(monitor, known)}"
    )
