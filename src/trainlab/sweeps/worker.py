"""The loop that fills slots with a sweep's trials: `lead` behind `trainlab sweep`, `join` behind `worker`.

One thread does everything: what it waits for is other processes and files. A second one, the fence, stops the
runs of a host that the database does not hear any more, before another host takes them over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainlab import paths
from trainlab.errors import UserError
from trainlab.run import find, lock, record
from trainlab.run.signals import STOPS
from trainlab.sweeps import definition, owners, pruning, storage
from trainlab.sweeps.queue import Owner, Queue, QueueError, Trial
from trainlab.sweeps.starting import StartError
from trainlab.sweeps.trials import SWEEP_STOPPED, Attempt, End

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from trainlab.sweeps.definition import Definition
    from trainlab.sweeps.slots import Slot, Slots

LEADER = ".leader.lock"  # in the sweep's folder: held by the process that leads it
MOST_ATTEMPTS = 4  # of a trial whose runs or workers are killed
TICK = 0.1  # seconds between two looks at the runs
IDLE = 1.0  # seconds between two looks for a trial that waits
BEATS = 6  # in a grace: every 10 s of 60
FENCE = 0.7  # of the grace without a beat: the runs are asked to end, and
INSISTS = 1 / 6  # of the grace later they are killed, 10 s of 60, so that nobody else takes them alive
AFTER_STOP = 5.0  # seconds until a trial is begun after somebody else has stopped a run: the machine, perhaps
REFRESH = 5.0  # seconds between two looks for new sweeps


def lead(
    ordered: Definition,
    *,
    slots: Slots,
    at: str | None = None,
    logs: Path | None = None,
    show: Callable[[Queue, bool], None] | None = None,
) -> int:
    """Work through a sweep until each trial has ended: create or open its queue, fill slots, adopt, requeue.

    The sweep's folder must be there (`definition.create`). A second call after any end goes on with it.

    Args:
        ordered: The sweep, as `definition.load` returns it.
        slots: Where its trials run: `slots.find(count, per_gpu=..., wait=...)`.
        at: The database's address with its password, where the definition's has none.
        logs: The folder of runs; by default `logs/`.
        show: Called with the queue, and whether this is the last time: each second, and once at the end.

    Returns:
        0 where a trial has finished, 1 where none has; 130 and 143 after Ctrl-C and SIGTERM.

    Raises:
        UserError: Another process leads the sweep; nothing was started then.
    """
    logs = _logs(logs)
    with leading(ordered, at, logs) as queue:
        worker = Worker(slots, logs, [queue], show and (lambda last: show(queue, last)))
        return worker.run(until_empty=True) or outcome(queue)


@contextlib.contextmanager
def leading(ordered: Definition, at: str | None, logs: Path) -> Iterator[Queue]:
    """Be the one process that leads a sweep; yield its queue, which is made where the sweep has not begun."""
    held = lock.hold(definition.folder(ordered.name, logs), LEADER)
    if held is None:
        number = leader(ordered.name, logs)
        who = f"process {number}" if number else "a process out of reach"
        raise UserError(
            f"The sweep {ordered.name} is led by {who} already. Stop that first: trainlab sweep stop "
            f"{ordered.name}. Or run its trials beside it: trainlab worker {ordered.name}"
            + (f" --join {ordered.at}" if ordered.at else "")
        )
    try:
        yield _queue(ordered, at, logs)
    finally:
        held.release()


def outcome(queue: Queue) -> int:
    """Return the exit code of a sweep that has ended: 0 where a trial has finished, 1 where none has."""
    counted = pruning.counted(queue.definition.prune)
    return int(all(each.state not in counted or each.value is None for each in queue.trials()))


def leader(name: str, logs: Path | None = None) -> int | None:
    """Return the process that leads a sweep, None where none does, or none that can be seen from here."""
    return next(lock.holders(definition.folder(name, logs), [LEADER]), None)


def join(
    at: str | None = None,
    *,
    slots: Slots,
    names: Sequence[str] = (),
    until_empty: bool = False,
    logs: Path | None = None,
) -> int:
    """Take trials of the sweeps at an address, and run them here, beside whoever leads them.

    Args:
        at: The database's address; None for the sweeps that have none, whose queue lies in `logs/.sweeps`.
        slots: Where trials run here.
        names: Of sweeps; all of them by default, those made later too.
        until_empty: Whether to end when no trial waits or runs anywhere, as before a sweep has begun.
        logs: The folder of runs; by default `logs/`.

    Returns:
        0, or 130 and 143 after Ctrl-C and SIGTERM.

    Raises:
        UserError: There is no sweep of one of the names, or the database does not answer at the start.
    """
    logs = _logs(logs)
    queues: dict[str, Queue] = {}

    def refresh() -> list[Queue]:
        found = names or [
            path.parent.name for path in (logs / definition.SWEEPS).glob(f"*/{definition.FILE}")
        ]
        for name in found:
            with contextlib.nullcontext() if names else contextlib.suppress(UserError):
                known = definition.load(name, logs)
                # the head may have another address here than where the sweep was begun: what it keeps decides
                if name not in queues and (known.at is None) == (at is None):
                    queues[name] = Queue.open(known, at, logs)
        return [*queues.values()]

    if at is not None:
        storage.check_shared(at, logs)
    return Worker(slots, logs, refresh(), refresh=refresh).run(until_empty=until_empty)


def _logs(logs: Path | None) -> Path:
    """Return the folder of runs, where this process and those that it starts look for it."""
    found = (logs or paths.logs()).resolve()
    os.environ["TRAINLAB_LOGS"] = str(found)
    return found


def _queue(ordered: Definition, at: str | None, logs: Path) -> Queue:
    """Open a sweep's queue, or make it where the sweep has not begun."""
    try:
        return Queue.open(ordered, at, logs)
    except QueueError as error:
        if error.passing or _has_begun(ordered.name, logs):
            raise
    return Queue.create(ordered, at, logs)


def _has_begun(name: str, logs: Path) -> bool:
    for folder, reason in find.run_folders(logs):
        if reason is None and f"-{name}-" in folder.name:
            with contextlib.suppress(record.RecordError):
                known = record.read(folder).sweep
                if known is not None and known.name == name:
                    return True
    return False


@dataclass
class Job:
    """A trial in a slot, of one of the queues, and what it has come to: until the database was told."""

    queue: Queue
    attempt: Attempt
    owner: Owner
    end: End | None = None
    fenced: float | None = None  # since when its run is asked to end by the fence

    @property
    def number(self) -> int:
        """The trial's."""
        return self.attempt.trial.number


class Worker:
    """This process's slots, and the trials in them."""

    def __init__(
        self,
        slots: Slots,
        logs: Path,
        queues: list[Queue],
        show: Callable[[bool], None] | None = None,
        refresh: Callable[[], list[Queue]] | None = None,
    ) -> None:
        self.slots, self.logs, self.queues = slots, logs, queues
        self.jobs: list[Job] = []
        self.empty = False  # whether nothing waited or ran anywhere at the last look
        self._show, self._refresh = show, refresh
        self._token, self._grace = owners.token(), owners.grace()
        self._silence = owners.Silence(self._grace)
        self._programs = definition.Programs(logs, self._say)
        self._stops: list[int] = []
        self._stopping = False
        self._next: dict[str, float] = {}
        self._gone_since: float | None = None  # that the database does not answer
        self.beaten = time.monotonic()

    def run(self, *, until_empty: bool) -> int:
        """Work until a signal, or until all trials have ended; return the exit code."""
        over = threading.Event()
        fence = threading.Thread(target=self._fence, args=(over,), daemon=True)
        fence.start()
        try:
            with self._signals():
                while not self._stopped():
                    self._tick()
                    names = {queue.definition.name for queue in self.queues}
                    if until_empty and not self.jobs and names and names <= self._programs.remarks.keys():
                        return UserError.exit_code
                    if until_empty and self.empty and not self._stopping:
                        break
                    time.sleep(TICK)
        finally:
            over.set()
            for job in self.jobs:  # an error of ours: the runs go on, and are adopted by whoever comes next
                job.attempt.drop()
            if self._show:
                with contextlib.suppress(QueueError):
                    self._show(True)
        return 128 + self._stops[0] if self._stopping else 0

    def _stopped(self) -> bool:
        """Tell whether a stop is complete; a database that is gone learns it from whoever comes next."""
        told = not self.jobs or (
            self._gone_since is not None and not any(job.attempt.alive for job in self.jobs)
        )
        return self._stopping and told

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def handle(number: int, _: FrameType | None) -> None:
            self._stops.append(number)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, handle) for each in STOPS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + seconds
        return True

    def _tick(self) -> None:
        if self._stops:
            self._stop()
        try:
            if self._gone_since is not None and not self._due("ask again", IDLE):
                return
            for job in [*self.jobs]:
                self._step(job)
            if self._due("beat", self._grace / BEATS):
                self._beat()
            if not self._stopping:
                if self._refresh and self._due("refresh", REFRESH):
                    self.queues = self._refresh()
                if self._due("look", self._grace / BEATS):
                    self._take_over()
                self._fill()
            if self._show and self._due("show", IDLE):
                self._show(False)
            if self._gone_since is not None:
                self._say(f"the database answers again, after {time.monotonic() - self._gone_since:.0f} s")
                self._gone_since = None
        except QueueError as error:
            if not error.passing:
                raise
            if self._gone_since is None:
                self._gone_since = time.monotonic()
                self._say(f"{error} The runs go on; it is asked again each second.")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody may be there to read it
            print(text, file=sys.stderr, flush=True)

    def _stop(self) -> None:
        """Ask all runs to save a checkpoint and end; after a second signal end them at once."""
        if not self._stopping:
            self._stopping = True
            if self.jobs:
                self._say("stopping: each run saves a checkpoint and waits for the sweep to be resumed")
            for job in self.jobs:
                job.attempt.end(SWEEP_STOPPED)
        if len(self._stops) > 1 and self._due("kill", IDLE):
            for job in self.jobs:
                job.attempt.signal(signal.SIGKILL)

    def _step(self, job: Job) -> None:
        """Take one trial as far as it goes without waiting."""
        attempt = job.attempt
        try:
            if job.end is None and self._stopping and not attempt.folder:
                attempt.drop()
                job.end = End("stopped", reason=SWEEP_STOPPED, begun=False)
            if job.end is None and attempt.idle:
                attempt.begin()
            if job.end is None and (run := attempt.waits):
                if not job.queue.started(job.number, job.owner, run):
                    attempt.drop()
                    self.jobs.remove(job)
                    return
                attempt.go()
            if job.end is None:
                attempt.read()
                job.end = attempt.look()
                self._report(job)
        except QueueError:
            raise
        except StartError as error:
            job.end = End("lost", reason=str(error))
        except UserError as error:
            attempt.drop()
            job.end = End("failed", reason=str(error))
        if job.end is not None:
            self._settle(job, job.end)

    def _report(self, job: Job) -> None:
        """Tell the pruner what is new, and end a run that it would end."""
        attempt = job.attempt
        if not attempt.unreported:
            return
        while attempt.unreported:
            ordinal, value = attempt.unreported[0]
            job.queue.report(job.number, ordinal, value)
            del attempt.unreported[0]
        by_others = job.queue.definition.prune in ("median", "hyperband")
        if by_others and not attempt.asked and job.end is None and job.queue.should_prune(job.number):
            attempt.end(f"{pruning.PRUNED} {ordinal + 1}")

    def _settle(self, job: Job, end: End) -> None:
        """Tell the queue what a trial has come to; where that is not its own any more, somebody else does."""
        attempt = job.attempt
        reason = "; ".join(filter(None, [end.reason, attempt.remark]))
        by_others = end.begun and (end.kind == "lost" or (end.kind == "stopped" and not attempt.asked))
        if by_others and attempt.trial.attempts >= MOST_ATTEMPTS:
            job.queue.finish(job.number, job.owner, "failed", None, f"lost {MOST_ATTEMPTS} times: {reason}")
        elif end.kind == "lost" or end.kind == "stopped":  # noqa: PLR1714 - mypy narrows it
            job.queue.requeue(job.number, job.owner, reason, lost=by_others)
        else:
            job.queue.finish(job.number, job.owner, end.kind, end.value, reason)
        self.jobs.remove(job)
        self._next["fill"] = time.monotonic() + AFTER_STOP if by_others and end.kind == "stopped" else 0.0

    def _beat(self) -> None:
        """Show that we live; a trial that is another's by now is left to it, and its run here killed."""
        for job in [*self.jobs]:
            if not job.queue.beat(job.number, job.owner):
                job.attempt.drop()
                job.attempt.signal(signal.SIGKILL)
                self.jobs.remove(job)
        self.beaten = time.monotonic()

    def _take_over(self) -> None:
        """Look for trials whose owners are dead: adopt what runs or has ended, requeue the rest."""
        self._silence.looked()
        ours = {(job.queue.definition.name, job.number) for job in self.jobs}
        for queue in self.queues:
            ordered = queue.definition
            for trial in queue.running():
                owner = trial.owner
                if owner is not None and owner.token == self._token:
                    if (ordered.name, trial.number) not in ours:  # taken as the database went away
                        queue.requeue(trial.number, owner, "", lost=False)
                    continue
                # nobody's is a run that went on while the study was made anew
                gone = owner is None or owners.is_gone(owner, self._token, one_machine=ordered.at is None)
                if self._silence.too_long(ordered.name, trial) if gone is None else gone:
                    self._adopt(queue, trial)

    def _adopt(self, queue: Queue, trial: Trial) -> None:
        if not trial.runs:
            queue.requeue(trial.number, trial.owner, "its worker was lost", lost=False)
            return
        folder = self.logs / trial.runs[-1]
        if lock.alive(folder) and next(lock.holders(folder), None) is None:
            return  # out of our reach: as long as it goes on nobody else may write there
        slot = self._slot_for(trial)
        owner = owners.own(slot.name, self._token)
        if queue.adopt(trial.number, trial.owner, owner):
            attempt = Attempt(queue.definition, trial, slot, self.logs)
            attempt.adopt()
            self.jobs.append(Job(queue, attempt, owner))

    def _slot_for(self, trial: Trial) -> Slot:
        """Return the slot that an adopted trial is in: its run has its GPU already."""
        taken = {job.attempt.slot.name for job in self.jobs}
        name = trial.owner.slot if trial.owner else ""
        same = [slot for slot in self.slots.all if slot.name == name and name not in taken]
        free = same or [slot for slot in self.slots.all if slot.name not in taken]
        return free[0] if free else replace(self.slots.all[0], name=f"beside-{trial.number}")

    def _fill(self) -> None:
        """Give each free slot a trial that waits."""
        if not self._due("fill", IDLE):
            return
        taken = {job.attempt.slot.name for job in self.jobs}
        room = len(self.slots.all) - len(self.jobs)
        if room < 1:
            return
        quiet = not self.jobs and not any(queue.running() for queue in self.queues)
        free, found = self.slots.free(taken)[:room], False
        same = [queue for queue in self.queues if not self._programs.changed(queue.definition)]
        for slot in free:
            owner = owners.own(slot.name, self._token)
            for queue in same:
                if (trial := queue.take(owner)) is not None:
                    found = True
                    self.jobs.append(Job(queue, Attempt(queue.definition, trial, slot, self.logs), owner))
                    break
        self.empty = quiet and bool(free) and not found

    def _fence(self, over: threading.Event) -> None:
        """End the runs whose trials another host is about to take over; never touches the database."""
        while not over.wait(1.0):
            silent = time.monotonic() - self.beaten
            jobs = [job for job in [*self.jobs] if job.queue.definition.at is not None]
            if silent < FENCE * self._grace:
                continue
            for job in jobs:
                what = signal.SIGTERM if job.fenced is None else signal.SIGKILL
                job.fenced = job.fenced or silent
                if what == signal.SIGTERM or silent > job.fenced + INSISTS * self._grace:
                    with contextlib.suppress(OSError, UserError):
                        job.attempt.signal(what)
