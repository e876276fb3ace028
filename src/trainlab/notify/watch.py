"""Looks at the folders of runs and says what is newly worth telling. It sends nothing.

What it must not forget lies in one small file, `logs/.notify.json`: runs that are at work, what was told of
them, and what is still to be sent. Runs that had ended before the first look are never told, and what ends
while nobody watches is told by the next watcher.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

from pydantic import BaseModel, Field, FiniteFloat

from trainlab import files, untrusted
from trainlab.errors import UserError
from trainlab.notify.following import Follower
from trainlab.notify.news import News, plain
from trainlab.run import events, lock, metrics, naming, record
from trainlab.run.find import run_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from trainlab.run.record import Record

FILE = ".notify.json"  # in logs/; whoever deletes it starts anew: what has ended by then is not told
_LARGEST = 1 << 24  # bytes
WALK, LONGEST_WALK = 20.0, 120.0  # seconds between two looks for new runs: within these
WALK_SHARE = (
    200  # so many times the processor's time that such a look took, which is half a percent of a core
)
_SLACK = 120.0  # seconds: clocks of other machines, and a look that was under way
_REFRESHED = 600.0  # seconds between two writes of the file where nothing has happened
_KEPT = 86400.0  # seconds that the end of a run is remembered as told
DEAD_LOOKS = 2  # in which nobody holds a run's lock: one process may hand it to another
_ELSEWHERE = (
    300.0  # seconds without a change in the folder of a run on another machine, whose lock may not be seen
)
_ASLEEP = 60.0  # seconds between two looks that are more than expected: the machine was suspended
DISK_LOW, DISK_FINE = 0.05, 0.07  # free part of the disk: told below the one, and again only after the other
QUIET = 20.0  # seconds without a running trial, until it is asked whether the sweep has ended
_QUIETEST = 600.0  # seconds between two such questions at most


class SweepEnd(BaseModel):
    """How a sweep has ended: 'done' or 'stopped', its trials in words, and its goal with the best value."""

    state: str
    trials: str = ""
    goal: str = ""


class Watched(BaseModel):
    """A run at work, as it is remembered: which session of it, and what was told of that."""

    session: str = ""
    told: set[Literal["nan", "stall"]] = Field(default_factory=set)


class Waiting(BaseModel):
    """What is still to be sent, and to which of the channels, by their places in `NOTIFY`."""

    news: News
    channels: list[int]


class Memory(BaseModel):
    """The file, checked: whoever can write into `logs` may have written it."""

    version: Literal[1] = 1
    since: FiniteFloat  # seconds since 1970, of the very first look
    looked: FiniteFloat  # seconds since 1970, of the last look at all runs
    watched: dict[str, Watched] = Field(default_factory=dict)
    ended: dict[str, FiniteFloat] = Field(default_factory=dict)  # run and session, and when that was told
    sweeps: set[str] = Field(default_factory=set)  # that have had a trial at work and whose end was not told
    disk_low: bool = False
    waiting: list[Waiting] = Field(default_factory=list)


class _Run:
    """A run at work, with what need not be remembered."""

    def __init__(self, folder: Path, known: Watched) -> None:
        self.folder, self.known = folder, known
        self.record: Record | None = None
        self.mark: tuple[int, int] | None = None
        self.dead = 0  # looks in which nobody held its lock
        self.follower = Follower(folder)


class Watcher:
    """Looks at one folder of runs, again and again.

    Args:
        logs: The folder.
        ended_sweeps: Says of sweeps, by their names, which have ended and how; it is asked seldom.
        clock: The time in seconds since 1970.
    """

    def __init__(
        self,
        logs: Path,
        ended_sweeps: Callable[[Collection[str]], Mapping[str, SweepEnd]] = lambda _: {},
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.memory: Memory | None = None
        self._logs, self._ended_sweeps, self._clock = logs, ended_sweeps, clock
        with suppress(OSError, ValueError, RecursionError):
            self.memory = Memory.model_validate_json(untrusted.content(logs / FILE, _LARGEST))
        self._saved: tuple[dict[str, Any], float] | None = None
        self._runs: dict[str, _Run] = {}
        self._at_rest: dict[str, tuple[int, int]] = {}
        self._next_walk = 0.0
        self._before: float | None = None
        self._quiet: dict[
            str, tuple[float, float]
        ] = {}  # a sweep: since when, and seconds until it is asked for
        if self.memory is not None:
            for key, known in self.memory.watched.items():
                if _leads_below(logs, label := unquote(key, errors="surrogateescape")):
                    self._runs[label] = _Run(logs / label, known)

    def look(self, expected: float = 0.0) -> list[News]:
        """Return what has happened since the last look, which was `expected` seconds ago."""
        now = self._clock()
        if self._before is not None and (asleep := now - self._before - expected) > _ASLEEP:
            for run in self._runs.values():
                if run.follower.moved is not None:
                    run.follower.moved += asleep
        self._before = now
        if now >= self._next_walk or now < self._next_walk - _KEPT:  # a clock that was set back
            self._walk(now)
        assert self.memory is not None, "a walk has made it"
        found = []
        for label, run in list(self._runs.items()):
            try:
                found += self._look_at(label, now)
            except Exception:  # what stands in a run's folder can be anything: no one run may hide the others
                self._rest(label, _mark(run.folder) or (0, 0))
        found += self._disk(now) + self._sweeps(now)
        self.memory.watched = {_key(label): run.known for label, run in self._runs.items()}
        return found

    def save(self) -> None:
        """Keep what must not be forgotten, if it has changed and the folder can be written."""
        if self.memory is None:
            return
        content, rest = self.memory.model_dump_json().encode(), self.memory.model_dump(exclude={"looked"})
        if (rest, self.memory.looked) == self._saved or len(content) > _LARGEST:
            return
        if self._saved and self._saved[0] == rest and 0 <= self.memory.looked - self._saved[1] < _REFRESHED:
            return  # the time alone: a disk may sleep
        with suppress(OSError):
            files.write(self._logs / FILE, content)
            self._saved = rest, self.memory.looked

    def _walk(self, now: float) -> None:
        """Find runs that have begun, or have ended unseen."""
        began = time.thread_time()
        seen: dict[str, tuple[int, int]] = {}
        for folder, fault in run_folders(self._logs):
            label = folder.relative_to(self._logs).as_posix()
            mark = None if fault else _mark(folder)
            if mark is None or label in self._runs:
                continue
            seen[label] = mark
            if self._at_rest.get(label) != mark and self._is_news(folder, mark):
                del seen[label]
                self._runs[label] = _Run(folder, Watched())
        self._at_rest = seen
        if self.memory is None:
            self.memory = Memory(since=now, looked=now)
        # by the look before: what was told shortly before a long pause must not be told behind it
        self.memory.ended = {
            key: at for key, at in self.memory.ended.items() if self.memory.looked - at < _KEPT
        }
        self.memory.looked = now
        pause = WALK_SHARE * (time.thread_time() - began)
        self._next_walk = now + min(max(WALK, pause), max(WALK, LONGEST_WALK))

    def _is_news(self, folder: Path, mark: tuple[int, int]) -> bool:
        """Tell whether a run that nobody watches yet is at work, or has ended since the last look."""
        if lock.alive(folder):
            return True
        since = None if self.memory is None else max(self.memory.since, self.memory.looked - _SLACK)
        if since is None or mark[0] / 1e9 < since:  # its record was written before
            return False
        try:
            known = record.read(folder)
        except Exception:  # whoever lists the runs is told what is wrong with it
            return False
        return (known.ended.timestamp() if known.ended else _changed(folder)) >= since

    def _look_at(self, label: str, now: float) -> list[News]:
        """Return what has happened to one run; forget it once it has ended, or is gone."""
        run = self._runs[label]
        alive = lock.alive(
            run.folder
        )  # before the record is read: the end is written before the lock is let go
        mark = _mark(run.folder)
        if mark is None or not run.folder.is_dir():  # deleted or moved
            del self._runs[label]
            return []
        if mark != run.mark:
            try:
                run.record, run.mark = record.read(run.folder), mark
            except UserError:
                if not alive:
                    self._rest(label, mark)
                return []
        assert run.record is not None, "its mark is known"
        session = (run.record.resumes[-1].at if run.record.resumes else run.record.started).isoformat()
        if session != run.known.session:
            run.known, run.follower = Watched(session=session), Follower(run.folder)
        sweep = run.record.sweep
        if sweep is not None and self.memory is not None and naming.slug(sweep.name) == sweep.name:
            self.memory.sweeps.add(sweep.name)
        if alive:
            run.dead = 0
            return [] if sweep else self._troubles(label, run, now)
        if run.record.status == "running":
            run.dead += 1
            elsewhere = run.record.host not in ("", socket.gethostname())
            if run.dead < DEAD_LOOKS or (elsewhere and now - _changed(run.folder) < _ELSEWHERE):
                return []
        self._rest(label, mark)
        last = [] if sweep else self._nan(label, run, now)
        return last + self._end(label, run.record, f"{_key(label)} {session}", now)

    def _rest(self, label: str, mark: tuple[int, int]) -> None:
        self._runs.pop(label, None)
        self._at_rest[label] = mark

    def _end(self, label: str, known: Record, key: str, now: float) -> list[News]:
        """Return how a run has ended, where that is to be told and was not."""
        assert self.memory is not None, "nobody is watched before the first walk"
        if key in self.memory.ended:
            return []
        self.memory.ended[key] = now
        died = known.status == "running"
        status = "interrupted" if died else known.status
        reason = record.crash_reason(known.home, known.oom_kills) if died else known.reason or ""
        if (sweep := known.sweep) is not None:
            begun = not died or known.pid != sweep.ready_by
            if sweep.stopped or not begun or not (died or status == "failed"):
                return []
        elif known.looks is True and status == "finished":
            return []
        return [
            News(
                kind="end",
                name=label,
                status=status,
                goal="" if sweep else _goal(known),
                reason=reason,
                sweep=sweep.name if sweep else "",
                at=now,
            )
        ]

    def _troubles(self, label: str, run: _Run, now: float) -> list[News]:
        """Return what is wrong with a run at work, each trouble once."""
        found = self._nan(label, run, now)
        stall = run.follower.stalled(now)
        if stall is None:
            if run.follower.moved is not None and now - run.follower.moved < _SLACK:
                run.known.told.discard("stall")
        elif "stall" not in run.known.told:
            run.known.told.add("stall")
            status = f"no step for {_duration(stall[0])}, usually one every {_duration(stall[1])}"
            found.append(News(kind="stall", name=label, status=status, at=now))
        return found

    def _nan(self, label: str, run: _Run, now: float) -> list[News]:
        """Return that one of a run's curves has become NaN, once."""
        run.follower.look(now)
        if run.follower.nan is None or "nan" in run.known.told:
            return []
        run.known.told.add("nan")
        tag, step = run.follower.nan
        return [News(kind="nan", name=label, status=f"{plain(tag, 60)} is NaN since step {step}", at=now)]

    def _disk(self, now: float) -> list[News]:
        """Return that the disk is nearly full, once until there is room again."""
        assert self.memory is not None
        try:
            usage = shutil.disk_usage(self._logs)
        except OSError:
            return []
        free = usage.free / max(usage.total, 1)
        if free >= DISK_FINE:
            self.memory.disk_low = False
        if free >= DISK_LOW or self.memory.disk_low:
            return []
        self.memory.disk_low = True
        status = f"{100 * free:.1f} % free, {usage.free / (1 << 30):.1f} GiB"
        return [News(kind="disk", name="the disk of the runs", status=status, at=now)]

    def _sweeps(self, now: float) -> list[News]:
        """Return the sweeps that have ended: none of their trials runs, and whoever knows them says so."""
        assert self.memory is not None
        at_work = {run.record.sweep.name for run in self._runs.values() if run.record and run.record.sweep}
        waiting = self.memory.sweeps - at_work
        self._quiet = {name: self._quiet.get(name, (now, QUIET)) for name in waiting}
        due = [name for name, (since, seconds) in self._quiet.items() if now - since >= seconds]
        if not due:
            return []
        ended: Mapping[str, SweepEnd] = {}
        with suppress(UserError, OSError):  # it is asked for again
            ended = self._ended_sweeps(due)
        found = []
        for name in due:
            seconds = self._quiet[name][1]
            self._quiet[name] = (now, min(2 * seconds, _QUIETEST))
            if name in ended:
                self.memory.sweeps.discard(name)
                del self._quiet[name]
                end = ended[name]
                news = News(kind="sweep", name=f"sweep {name}", status=end.state, at=now, goal=end.goal)
                found.append(news.model_copy(update={"reason": end.trials}))
        return found


def _goal(known: Record) -> str:
    """Return a run's first metric with its best value, or the last one where no best is known."""
    for tag in known.metrics:
        point = known.best.get(tag) or known.last.get(tag)
        if point is not None and metrics.is_finite(point.value):
            which = "best" if tag in known.best else "last"
            return f"{plain(tag, 60)} {point.value:.4g} ({which}, step {point.step})"
    return ""


def _mark(folder: Path) -> tuple[int, int] | None:
    """Return what changes with a run's record, None where there is none."""
    try:
        state = os.lstat(folder / record.FILE)
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ino


def _changed(folder: Path) -> float:
    """Return when a run wrote something for the last time."""
    moments = [0.0]
    with suppress(OSError):
        moments += [path.lstat().st_mtime for path in (folder / record.FILE, *events.files(folder))]
    return max(moments)


def _key(label: str) -> str:
    """Return a label as JSON can hold it: names of folders may be bytes that no text is."""
    return quote(label, safe="/ =,+@", errors="surrogateescape")


def _leads_below(logs: Path, label: str) -> bool:
    try:
        return (logs / label).resolve().is_relative_to(logs.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
