"""The loop that fills slots with trials of sweeps, whoever leads these.

One thread does everything: what it waits for is other processes and files. A second one, the fence, stops the
runs of a host that the database does not hear any more, before another host takes them over.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trainlab.errors import UserError
from trainlab.run import lock
from trainlab.run.signals import handled_by
from trainlab.sweeps import definition, owners, pruning
from trainlab.sweeps.faults import QueueError
from trainlab.sweeps.starting import StartError
from trainlab.sweeps.trials import SWEEP_STOPPED, Attempt, End

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trainlab.sweeps.joining import Joined
    from trainlab.sweeps.queue import Owner, Queue, Trial
    from trainlab.sweeps.slots import Slot, Slots

MOST_ATTEMPTS = 4  # of a trial whose runs or workers are killed
TICK = 0.1  # seconds between two looks at the runs
IDLE = 1.0  # seconds between two looks for a trial that waits
BEATS = 6  # in a grace: every 10 s of 60
FENCE = 0.7  # of the grace without a beat: the runs are asked to end, and
INSISTS = 1 / 6  # of the grace later they are killed, 10 s of 60, so that nobody else takes them alive
AFTER_STOP = 5.0  # seconds until a trial is begun after somebody else has stopped a run: the machine, perhaps
REFRESH = 5.0  # seconds between two looks for new sweeps


def say(text: str) -> None:
    """Print a sentence of a worker's."""
    with contextlib.suppress(OSError, ValueError):  # nobody may be there to read it
        print(text, file=sys.stderr, flush=True)


@dataclass
class Job:
    """A trial in a slot, of one of the queues, and what it has come to: until the database was told."""

    queue: Queue
    attempt: Attempt
    owner: Owner
    end: End | None = None
    left: bool = False  # whether nobody is to be told: its study is gone
    fenced: float | None = None  # since when its run is asked to end by the fence

    @property
    def number(self) -> int:
        """The trial's."""
        return self.attempt.trial.number


class Agenda(dict[str, float]):
    """When each thing is to be done next, by the monotonic clock; what is not in it, at once."""

    def due(self, what: str, seconds: float) -> bool:
        """Tell whether it is time for something; if so, its next time is so many seconds from now."""
        now = time.monotonic()
        if now < self.get(what, 0.0):
            return False
        self[what] = now + seconds
        return True


class Worker:
    """This process's slots, and the trials in them."""

    def __init__(
        self,
        slots: Slots,
        logs: Path,
        queues: list[Queue],
        show: Callable[[bool], None] | None = None,
        joined: Joined | None = None,
    ) -> None:
        self.slots, self.logs, self.queues = slots, logs, queues
        self.jobs: list[Job] = []
        self.empty = False  # whether nothing waited or ran anywhere at the last look
        self._show, self._joined = show, joined
        self._token, self._grace = owners.token(), owners.grace()
        self._silence = defaultdict[str, owners.Silence](lambda: owners.Silence(self._grace))
        self._programs = definition.Programs(logs, say)
        self._stops: list[int] = []
        self._stopping = False
        self._next = Agenda()
        self._gone: dict[str, float] = {}  # databases that do not answer, and since when
        self._asked: set[str] = set()  # those of them that are asked again, in this tick
        self.beaten = time.monotonic()

    def run(self, *, until_empty: bool) -> int:
        """Work until a signal, or until all trials have ended; return the exit code."""
        over = threading.Event()
        fence = threading.Thread(target=self._fence, args=(over,), daemon=True)
        fence.start()
        try:
            with handled_by(self._stops.append):
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
        told = all(job.queue.where in self._gone and not job.attempt.alive for job in self.jobs)
        return self._stopping and told

    def _tick(self) -> None:
        if self._stops:
            self._stop()
        for where in [*self._gone]:
            if self._next.due(where, IDLE):
                self._ask_again(where)
        for job in [*self.jobs]:
            with self._asking(job.queue):
                self._step(job)
        if self._next.due("beat", self._grace / BEATS):
            self._beat()
        if not self._stopping:
            # a head that is gone would hold up each tick for as long as a connection may take
            silent = self._gone.keys() - self._asked and self._joined and self._joined.at is not None
            if self._joined and not silent and self._next.due("refresh", REFRESH):
                self._refresh(self._joined)
            if self._next.due("look", self._grace / BEATS):
                self._take_over()
            self._fill()
        if self._show and self._next.due("show", IDLE):
            for queue in self._answering():  # the one that is led
                with self._asking(queue):
                    self._show(False)

        for where in self._asked:
            say(f"the database answers again, after {time.monotonic() - self._gone.pop(where):.0f} s")
        self._asked.clear()

    @contextlib.contextmanager
    def _asking(self, queue: Queue) -> Iterator[None]:
        """Let a database that does not answer hold up its own trials alone, and a sweep that is gone none."""
        began = time.monotonic()
        try:
            yield
        except QueueError as error:
            if not error.passing:
                if self._joined is None:
                    raise
                self._leave(self._joined, queue, error)
                return
            self._asked.discard(queue.where)
            if queue.where not in self._gone:
                self._gone[queue.where] = began
                say(f"{error} The runs go on; it is asked again each second.")
            # one that keeps its caller waiting must not take all of the time that the others have
            self._next[queue.where] = time.monotonic() + max(IDLE, time.monotonic() - began)

    def _answering(self) -> list[Queue]:
        return [queue for queue in self.queues if not self._is_silent(queue)]

    def _is_silent(self, queue: Queue) -> bool:
        return queue.where in self._gone and queue.where not in self._asked

    def _ask_again(self, where: str) -> None:
        known = (queue for queue in [*self.queues, *(job.queue for job in self.jobs)] if queue.where == where)
        if (queue := next(known, None)) is None:
            del self._gone[where]
            return
        with self._asking(queue):
            queue.is_over()  # one whose disk is full says that, and still takes nothing
            self._asked.add(where)
            self._next["beat"] = 0.0  # before the fence looks again

    def _refresh(self, joined: Joined) -> None:
        """Look for sweeps that were made, have ended or are gone."""
        try:
            self.queues = joined.look({job.queue.definition.name for job in self.jobs})
        except QueueError as error:
            if not error.passing:
                raise
            if not self._gone and self._next.due("say it", self._grace):
                say(str(error))

    def _leave(self, joined: Joined, queue: Queue, error: QueueError) -> None:
        """Take no more trials of a sweep whose study is gone; what runs goes on, and keeps its slot."""
        joined.leave(queue.definition.name, error)
        joined.tell()
        self.queues = [each for each in self.queues if each is not queue]
        for job in self.jobs:
            if job.queue is queue:
                job.attempt.drop()
                job.left = True

    def _stop(self) -> None:
        """Ask all runs to save a checkpoint and end; after a second signal end them at once."""
        if not self._stopping:
            self._stopping = True
            if self.jobs:
                say("stopping: each run saves a checkpoint and waits for the sweep to be resumed")
            for job in self.jobs:
                job.attempt.end(SWEEP_STOPPED)
        if len(self._stops) > 1 and self._next.due("kill", IDLE):
            for job in self.jobs:
                job.attempt.signal(signal.SIGKILL)

    def _step(self, job: Job) -> None:
        """Take one trial as far as it goes without waiting."""
        attempt = job.attempt
        if job.left:
            if attempt.look() is not None or not attempt.alive:
                self.jobs.remove(job)
            return
        answers = not self._is_silent(job.queue)
        try:
            if job.end is None and self._stopping and not attempt.folder:
                attempt.drop()
                job.end = End("stopped", reason=SWEEP_STOPPED, begun=False)
            if job.end is None and answers and attempt.idle:
                attempt.begin()
            if job.end is None and answers and (run := attempt.waits):
                if not job.queue.started(job.number, job.owner, run):
                    attempt.drop()
                    self.jobs.remove(job)
                    return
                attempt.go()
            if job.end is None:
                attempt.read()
                job.end = attempt.look()
            if answers:
                self._report(job)
        except QueueError:
            raise
        except StartError as error:
            job.end = End("lost", reason=str(error))
        except UserError as error:
            attempt.drop()
            job.end = End("failed", reason=str(error))
        if job.end is not None and answers:
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
            if job.left or self._is_silent(job.queue):
                continue
            with self._asking(job.queue):
                if not job.queue.beat(job.number, job.owner):
                    job.attempt.drop()
                    job.attempt.signal(signal.SIGKILL)
                    self.jobs.remove(job)
        if self._gone.keys() <= self._asked:
            self.beaten = time.monotonic()

    def _take_over(self) -> None:
        """Look for trials whose owners are dead: adopt what runs or has ended, requeue the rest."""
        for queue in self._answering():
            with self._asking(queue):
                self._take_over_of(queue)

    def _take_over_of(self, queue: Queue) -> None:
        ours = {job.number for job in self.jobs if job.queue is queue}
        ordered, silence = queue.definition, self._silence[queue.where]
        silence.looked()
        for trial in queue.running():
            owner = trial.owner
            if owner is not None and owner.token == self._token:
                if trial.number not in ours:  # taken as the database went away
                    queue.requeue(trial.number, owner, "", lost=False)
                continue
            # nobody's is a run that went on while the study was made anew
            gone = owner is None or owners.is_gone(owner, self._token, one_machine=ordered.at is None)
            if silence.too_long(ordered.name, trial) if gone is None else gone:
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
        if not self._next.due("fill", IDLE):
            return
        taken = {job.attempt.slot.name for job in self.jobs}
        room = len(self.slots.all) - len(self.jobs)
        if room < 1:
            return
        running = False
        for queue in self._answering() if not self.jobs else ():
            with self._asking(queue):
                running = running or bool(queue.running())
        free = self.slots.free(taken)[:room]
        same = [queue for queue in self._answering() if not self._programs.changed(queue.definition)]
        found = [self._take(slot, same) for slot in free]
        self.empty = not (self.jobs or running or self._gone) and bool(free) and not any(found)

    def _take(self, slot: Slot, queues: list[Queue]) -> bool:
        """Give a slot the first trial that waits; tell whether there was one."""
        owner = owners.own(slot.name, self._token)
        for queue in queues:
            if queue in self._answering():
                with self._asking(queue):
                    if (trial := queue.take(owner)) is not None:
                        self.jobs.append(Job(queue, Attempt(queue.definition, trial, slot, self.logs), owner))
                        return True
        return False

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
