"""One trial in a slot of ours: its runs are started, watched by their folders, and asked to end.

A run is known by its folder alone (its locks, `run.json`, event files), so that a process that leads the
sweep later can go on with it as it is.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from trainlab.errors import UserError, some
from trainlab.run import grace, lock, record, stopping
from trainlab.run.signals import PATIENCE
from trainlab.sweeps import objective, pruning, space
from trainlab.sweeps.starting import NOT_BEGUN, Order, Start
from trainlab.sweeps.trial import KILLED, seed_named

if TYPE_CHECKING:
    import subprocess

    from trainlab.sweeps.definition import Definition
    from trainlab.sweeps.queue import Trial
    from trainlab.sweeps.slots import Slot

SWEEP_STOPPED = "its sweep was stopped"
OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class End:
    """What a trial's run has come to: `lost` was killed, `stopped` is to go on later.

    One that had not begun is none of the trial's `attempts`: whoever was to start it has ended.
    """

    kind: Literal["finished", "failed", "pruned", "lost", "stopped"]
    value: float | None = None
    reason: str = ""
    begun: bool = True


class Attempt:
    """A trial in one of our slots.

    Attributes: `folder` of its present run, None before there is one; `remark`, what its reason is to say
    beside; `asked`, why its run was asked to end; `unreported`, what the pruner is yet to be told.
    """

    def __init__(self, definition: Definition, trial: Trial, slot: Slot, logs: Path) -> None:
        self.definition, self.trial, self.slot = definition, trial, slot
        self.folder: Path | None = None
        self.remark = self.asked = ""
        self._logs = logs
        self._seed = 0  # which of the definition's seeds
        self._start: Start | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: grace.Deadline | None = None
        self._goal: objective.Goal | None = None
        self._read = 0  # values
        self._over = False
        self.unreported: list[tuple[int, float]] = []
        self._known = {self._seed_of(logs / run): logs / run for run in trial.runs}

    def _seed_of(self, folder: Path) -> int:
        with suppress(record.RecordError):
            known = record.read(folder).sweep
            if known is not None and known.seed is not None:
                return known.seed - self.definition.seed
        named = seed_named(folder.name) if self.definition.seeds > 1 else None  # of a run that was deleted
        return named or 0

    @property
    def idle(self) -> bool:
        """Whether the run of the present seed is yet to be begun."""
        return self.folder is None and self._start is None

    def begin(self) -> None:
        """Go on with the run of the present seed where there is one, or make a new one ready.

        A run that somebody executes still, or that has ended, is left as it is: `look` tells.

        Raises:
            UserError: The run can't be.
        """
        folder = self._known.get(self._seed)
        if folder is not None and (lock.alive(folder) or not _to_resume(folder)):
            self._watch(folder)
            return
        self._start = Start(self._order(folder), self.slot.environment)

    def adopt(self) -> None:
        """Go on with the trial's last run as it is: `look` tells whether it runs, has ended, or was lost."""
        folder = self._logs / self.trial.runs[-1]
        self._seed = self._seed_of(folder)
        self._watch(folder)

    def _order(self, resume: Path | None) -> Order:
        definition, number = self.definition, self.trial.number
        values = {name: space.text(value) for name, value in self.trial.settings.items()}
        values = definition.fixed | values
        sweep = {"name": definition.name, "trial": number, "attempts": self.trial.attempts}
        sweep["settings"] = {name: space.text(value) for name, value in self.trial.settings.items()}
        name = f"{definition.name}-{number:03}"
        if definition.seeds > 1:
            sweep["seed"] = definition.seed + self._seed
            values["seed"] = str(sweep["seed"])
            name += f"-s{self._seed}"
        return Order(
            definition.program,
            definition.module,
            tuple(f"{name}={text}" for name, text in values.items()),
            tuple(definition.arguments),
            name,
            sweep,
            str(resume) if resume is not None else "",
            definition.working_folder,
        )

    @property
    def waits(self) -> str:
        """The run that is ready to start, 'experiment/run', to be written down before `go`; '' elsewhere.

        Raises:
            UserError: The run can't be.
        """
        if self._start is None or not self._start.ready():
            return ""
        assert self._start.folder is not None, "it is ready"
        return self._start.folder.relative_to(self._logs).as_posix()

    def go(self) -> None:
        """Start the run that is ready."""
        assert self._start is not None and self._start.folder is not None, "asked after `waits`"
        process = self._start.go()
        self.remark = self._start.remark or self.remark
        self._watch(self._start.folder)
        self._start, self._process = None, process

    def drop(self) -> None:
        """Let a run that has not begun be."""
        if self._start is not None:
            self._start.drop()
            self._start = None

    def _watch(self, folder: Path) -> None:
        self.folder = self._known[self._seed] = folder
        self._goal = objective.Goal(folder, self.definition.goal)
        self._read, self._deadline, self.asked, self._over = 0, None, "", False

    def read(self) -> None:
        """Read what the goal has come to, and ask a run to end that is not worth going on with.

        `unreported` grows by the new values, with their ordinals from 0. Of a trial's several seeds the first
        one's are compared with other trials'.
        """
        if self._goal is None:
            return
        try:
            values = self._goal.values()
        except OSError:  # somebody has deleted the run: its end will show
            return
        new = [*enumerate(values)][min(self._read, len(values)) :]
        self._read = len(values)
        if new and not self.asked and not self._over:
            why = pruning.not_finite(self.definition.goal, values)
            if not why and self.definition.prune == "patience":
                why = pruning.impatient(values, self.definition.mode)
            if why:
                self.end(why)
        if self._seed == 0 and self.definition.prune != "none":
            self.unreported += [(place, each) for place, each in new if pruning.is_reported(place)]

    def end(self, why: str) -> None:
        """Ask the run to save a checkpoint and end, and write down why; insist later."""
        if self.folder is None or self.asked:
            return
        self.asked = why
        stopping.tell_why(self.folder, why)
        self._deadline = grace.Deadline(self.folder, PATIENCE + stopping.MARGIN + grace.for_step(self.folder))
        self.signal(signal.SIGTERM)

    def signal(self, what: signal.Signals) -> None:
        """Send a signal to the run's runner: with its end the code's processes end, too."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(what)
        elif self.folder is not None:
            number = next(lock.holders(self.folder), None)
            if number is not None:
                stopping.signalled(self.folder, number, what)

    @property
    def alive(self) -> bool:
        """Whether the run is being executed, by whomever."""
        if self._process is not None and self._process.poll() is None:
            return True
        return self.folder is not None and lock.alive(self.folder)

    def look(self) -> End | None:
        """Return what the trial has come to, None while it goes on."""
        if self.folder is None or self._start is not None:
            return None
        if self.alive:
            if self._deadline is not None and self._deadline.over():
                self.signal(signal.SIGKILL)
            return None
        self._over = True
        self.read()
        end = self._ended(self.folder)
        if end.kind == "finished" and self._seed + 1 < self.definition.seeds:
            self._seed += 1
            self.folder = self._process = self._goal = None
            return None
        if end.kind == "finished" and self.definition.seeds > 1:
            folders = [self._known[seed] for seed in range(self.definition.seeds) if seed in self._known]
            values = [objective.value(each, self.definition.goal, self.definition.mode) for each in folders]
            if None in values or len(values) < self.definition.seeds:
                return End("failed", reason="the run of one of its seeds has no value any more")
            return End("finished", fmean(each for each in values if each is not None))
        return end

    def _ended(self, folder: Path) -> End:
        """Return what a run that nobody executes any more has come to; write down what it could not."""
        try:
            known = record.read(folder)
        except record.RecordError as error:
            gone = not folder.is_dir()
            return End("failed", reason=f"its run {folder.name} was deleted" if gone else str(error))
        values = objective.Goal(folder, self.definition.goal).values()
        if known.status == "finished":
            return self._finished(folder, values)
        died, asked = known.status == "running", _asked(known)
        reason = record.crash_reason(known.home, known.oom_kills) if died else known.reason or ""
        if reason == NOT_BEGUN or (died and known.sweep and known.pid == known.sweep.ready_by):
            end = End("stopped", reason="whoever was to start its run has ended", begun=False)
        elif reason.startswith(OUT_OF_MEMORY):
            end = End("failed", reason=reason)
        elif asked.startswith(pruning.PRUNED) and known.status != "failed":
            end = End("pruned", objective.best(values, self.definition.mode), asked)
        elif asked == stopping.BY_HAND and known.status != "failed":
            end = End("failed", reason=asked)
        elif known.status == "interrupted" or (died and asked == SWEEP_STOPPED):
            end = End("stopped", reason=asked or reason, begun=asked != SWEEP_STOPPED)
        elif died or KILLED.search(reason):
            end = End("lost", reason="its run was killed")
        else:
            end = End("failed", reason=reason)
        if died and end.kind in ("failed", "pruned"):
            with suppress(OSError, UserError):
                record.write_end(folder, "failed" if end.kind == "failed" else "interrupted", end.reason)
        return end

    def _finished(self, folder: Path, values: list[float]) -> End:
        goal, mode = self.definition.goal, self.definition.mode
        if values and (why := pruning.not_finite(goal, values, len(values) - 1)):
            return End("pruned", objective.best(values, mode), why)
        value = objective.value(folder, goal, mode)
        if value is None:
            return End("failed", reason=f"it has logged no {goal}, but: {some(objective.logged(folder))}")
        return End("finished", value)


def _asked(known: record.Record) -> str:
    """Return why a run was asked to end, '' where it was not."""
    return (known.sweep.stopped if known.sweep else None) or ""


def _to_resume(folder: Path) -> bool:
    """Tell whether a run that nobody executes is to go on: it was interrupted, or died."""
    try:
        known = record.read(folder)
    except record.RecordError:
        return True  # as far as can be: a new one, elsewhere
    if (asked := _asked(known)).startswith(pruning.PRUNED) or asked == stopping.BY_HAND:
        return False
    killed = known.status == "failed" and KILLED.search(known.reason or "")
    return known.status in ("running", "interrupted") or bool(killed)
