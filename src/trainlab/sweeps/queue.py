"""The trials of a sweep as a queue: each waits, is run by one owner, and ends once.

Whatever dies in between, a trial is in one of these states, with who runs it and which runs it has: every
change is one transaction that compares what it found with what it expected.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainlab import extras, paths
from trainlab.errors import UserError
from trainlab.sweeps import database, space, storage
from trainlab.sweeps.definition import Definition, folder
from trainlab.sweeps.faults import QueueError, explained
from trainlab.sweeps.trial import Ended, Owner, State, Trial

if TYPE_CHECKING:
    import optuna
    from sqlalchemy import Connection

    from trainlab.sweeps.study import Row, Study

OF_OPTUNA = {
    "waiting": "WAITING",
    "running": "RUNNING",
    "finished": "COMPLETE",
    "pruned": "PRUNED",
    "failed": "FAIL",
}
OF_OURS: dict[str, State] = {theirs: ours for ours, theirs in OF_OPTUNA.items()}  # type: ignore[misc]


LOCK_OF_TABLES = 713  # any number that all processes of ours have


class _Facts(BaseModel):
    """What Optuna has no place for, as the database holds it."""

    model_config = ConfigDict(frozen=True)

    owner: Owner | None = None
    runs: tuple[str, ...] = ()
    attempts: Annotated[int, Field(ge=0)] = 0
    beats: Annotated[int, Field(ge=0)] = 0
    reason: str = ""

    def changed(self, **fields: Any) -> str:
        return self.model_copy(update=fields).model_dump_json()


class Queue:
    """The trials of one sweep, in a database that many processes and hosts share."""

    def __init__(self, definition: Definition, study: Study, where: str) -> None:
        self.definition = definition
        self.where = where  # for people, without a password
        self._study = study
        self._space = space.from_table(definition.space)
        self._distributions = {name: space.distribution(each) for name, each in self._space.items()}

    @classmethod
    def create(cls, definition: Definition, at: str | None = None, logs: str | Path | None = None) -> Queue:
        """Make a sweep's study, in which all of its trials wait; of a grid each has its settings.

        Raises:
            UserError: There is a study of that name, or SQLite can't be trusted where the folder lies.
            QueueError: The database can't be reached.
        """
        if not (at or definition.at):
            database.check_place(folder(definition.name, logs))
        queue = cls._connected(definition, at, logs)
        from sqlalchemy.exc import IntegrityError

        with queue._explained():
            try:
                with queue._study.created(definition.name, definition.mode) as connection:
                    queue._study.note(connection, storage.mark(folder(definition.name, logs)))
                    queue._add(connection, 0, definition.trials)
            except (FileExistsError, IntegrityError):
                raise UserError(
                    f"There is a sweep {definition.name!r} in {queue.where} already. Choose another name."
                ) from None
        return queue

    @classmethod
    def open(cls, definition: Definition, at: str | None = None, logs: str | Path | None = None) -> Queue:
        """Return a sweep's queue.

        Raises:
            QueueError: The database can't be reached, or holds no such sweep.
            UserError: It is that of another `logs/`.
        """
        path = folder(definition.name, logs) / database.FILE
        missing = (
            f"holds no sweep {definition.name!r}. The runs of its trials are whole, and a study can be made "
            f"of them: trainlab sweep rebuild {definition.name}"
        )
        if not (at or definition.at) and not os.path.lexists(path):
            raise QueueError(f"{path.parent} {missing}")
        queue = cls._connected(definition, at, logs)
        try:
            with queue._explained():
                there = queue._study.open(definition.name)
                said = queue._study.notes().get(definition.name, "") if at or definition.at else ""
            if not there:
                raise QueueError(f"{queue.where} {missing}")
            storage.check(folder(definition.name, logs), said, queue.where)
        except BaseException:
            queue.close()
            raise
        return queue

    @classmethod
    def _connected(
        cls, definition: Definition, at: str | None, logs: str | Path | None, file: str = database.FILE
    ) -> Queue:
        extras.need("optuna", "A sweep")
        from trainlab.sweeps.study import Study

        path = folder(definition.name, logs).absolute() / file
        at = at or definition.at
        where = database.shown(at) if at else str(path)
        with explained(where, definition.name):
            if at:
                options = database.server_options(at)
                with options["creator"]() as guard:  # two that make the tables at once would trip each other
                    guard.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_OF_TABLES])
                    return cls(definition, Study(options, shared=at), where)
            database.check_file(path)
            lock = path.with_name(database.LOCK)
            with database.locked(lock):
                return cls(definition, Study(database.file_options(path), lock, path), where)

    def close(self) -> None:
        """Let go of the database."""
        self._study.close()

    def is_current(self) -> bool:
        """Tell whether the database holds this very study still, and not one that was made anew."""
        with self._explained():
            return self._study.is_current()

    def is_over(self) -> bool:
        """Tell whether no trial waits or runs."""
        from optuna.trial import TrialState

        with self._explained(), self._study.engine.connect() as connection:
            return not self._study.count(connection, TrialState.WAITING, TrialState.RUNNING)

    def take(self, owner: Owner) -> Trial | None:
        """Give the first trial that waits to an owner, with its settings; None where none waits."""
        with self._explained():
            with self._study.writing() as connection:
                row = self._study.next_waiting(connection)
                if row is None:
                    return None
                known = {"attempts": _facts(row).attempts + 1, "beats": _facts(row).beats + 1, "reason": ""}
                self._change(connection, row, "running", owner=owner, **known)
            row = self._study.rows(number=row.number)[0]
            if row.settings.keys() != self._distributions.keys():
                sampled = self._study.sample(row, self._distributions, self._sampler(row.number))
                with self._owned(row.number, owner) as (connection, now):
                    if now is not None:
                        self._study.set_settings(connection, row, sampled, self._distributions)
                if now is None:  # so slow that it counted as lost
                    return self.take(owner)
                row = self._study.rows(number=row.number)[0]
            return self._as_trial(row)

    def running(self) -> list[Trial]:
        """Return the trials that somebody runs, or seems to."""
        return self._all("running")

    def trials(self) -> list[Trial]:
        """Return all trials, by their numbers."""
        return self._all()

    def beat(self, number: int, owner: Owner) -> bool:
        """Show that an owner lives; False: the trial is not its own any more."""
        with self._owned(number, owner) as (connection, row):
            if row is None:
                return False
            self._change(connection, row, "running", beats=_facts(row).beats + 1)
        return True

    def started(self, number: int, owner: Owner, run: str) -> bool:
        """Write down a trial's next run, 'experiment/run', before its process starts; False as of `beat`."""
        with self._owned(number, owner) as (connection, row):
            if row is None:
                return False
            runs = _facts(row).runs
            self._change(connection, row, "running", runs=runs if run in runs else (*runs, run))
        return True

    def report(self, number: int, ordinal: int, value: float) -> None:
        """Tell what a trial's goal came to at one validation, counted from 0; too late is no error."""
        with self._explained(), self._study.writing() as connection:
            row = self._study.row(connection, number)
            if row is not None and row.state.name == OF_OPTUNA["running"]:
                self._study.report(connection, row, ordinal, value)

    def should_prune(self, number: int) -> bool:
        """Tell whether Optuna's pruner would end a trial, by what was reported of it and of others."""
        pruner = self._pruner()
        if pruner is None:
            return False
        with self._explained():
            return self._study.should_prune(number, pruner)

    def finish(
        self, number: int, owner: Owner, state: Ended, value: float | None = None, reason: str = ""
    ) -> bool:
        """Write how a trial ended; False: it is not the owner's any more. Told twice is no error.

        One that finished without a number is failed: nothing can be learned from it.
        """
        if value is not None and math.isnan(value):
            value = None
        if state == "finished" and value is None:
            state, reason = "failed", reason or f"no value of {self.definition.goal}"
        with self._explained(), self._study.writing() as connection:
            row = self._study.row(connection, number)
            if row is None or _facts(row).owner != owner:
                return False
            if row.state.is_finished():
                return True
            if state == "pruned" and value is None:
                value = self._study.last_report(connection, row)
            if value is not None:
                self._study.set_value(connection, row, value)
            self._change(connection, row, state, reason=reason)
        return True

    def requeue(self, number: int, owner: Owner | None, reason: str, *, lost: bool = True) -> bool:
        """Let a running trial wait again, with its number, settings and runs; False as of `beat`.

        One that was not `lost`, but given back, has not used up an attempt.
        """
        with self._owned(number, owner) as (connection, row):
            if row is None:
                return False
            attempts = max(0, _facts(row).attempts - (not lost))
            self._change(connection, row, "waiting", owner=None, reason=reason, attempts=attempts)
        return True

    def adopt(self, number: int, before: Owner | None, owner: Owner) -> bool:
        """Make a trial another owner's; False where `before` was not its owner any more."""
        with self._owned(number, before) as (connection, row):
            if row is None:
                return False
            self._change(connection, row, "running", owner=owner, beats=_facts(row).beats + 1)
        return True

    def count(self) -> int:
        """Return how many trials there are."""
        with self._explained(), self._study.engine.connect() as connection:
            return self._study.count(connection)

    def add(self, count: int) -> None:
        """Add trials that wait; of a grid the next combinations.

        Raises:
            UserError: The grid has no more.
        """
        with self._explained(), self._study.writing() as connection:
            self._add(connection, self._study.count(connection), count)

    def _add(
        self,
        connection: Connection,
        first: int,
        count: int,
        known: Mapping[int, Trial] = MappingProxyType({}),
    ) -> None:
        """Add trials, those that are `known` as they are, and the others to wait."""
        from optuna.trial import TrialState

        from trainlab.sweeps.study import Row

        grid: list[dict[str, Any]] = []
        if self.definition.method == "grid":
            combinations = space.combinations(self._space)
            if combinations is None:
                raise UserError("A grid takes lists alone, and this space has a range. Choose tpe or random.")
            grid, count = combinations, min(count, len(combinations) - first)
            if count < 1:
                raise UserError(f"The grid has {len(grid):,} combinations, and each is a trial already.")
        rows = []
        for number in range(first, max([first + count, *(number + 1 for number in known)])):
            trial = known.get(number, Trial(number, "waiting", {}))
            settings = self._stored(grid[number] if number < len(grid) else trial.settings)
            facts = _Facts(runs=trial.runs, attempts=trial.attempts, reason=trial.reason)
            state = TrialState[OF_OPTUNA[trial.state]]
            rows.append(Row(0, number, state, facts.changed(), settings, trial.value))
        self._study.add(connection, rows, self._distributions)

    def _stored(self, settings: Mapping[str, Any]) -> dict[str, float]:
        """Return settings as Optuna's numbers; of a choice that is its index."""
        stored = {}
        for name, value in settings.items():
            each = self._space[name]
            if isinstance(each, space.Choice):
                alike = (type(one) is type(value) and one == value for one in each.values)
                stored[name] = float(list(alike).index(True))
            else:
                stored[name] = self._distributions[name].to_internal_repr(value)
        return stored

    def _all(self, *states: State) -> list[Trial]:
        from optuna.trial import TrialState

        with self._explained():
            wanted = [TrialState[OF_OPTUNA[each]] for each in states]
            return [self._as_trial(row) for row in self._study.rows(*wanted)]

    def _as_trial(self, row: Row) -> Trial:
        facts = _facts(row)
        settings = {}
        for name, each in self._space.items():
            if name in row.settings:
                stored = row.settings[name]
                if isinstance(each, space.Choice):
                    settings[name] = each.values[int(stored)]
                else:
                    settings[name] = self._distributions[name].to_external_repr(stored)
        return Trial(
            row.number,
            OF_OURS[row.state.name],
            settings,
            facts.owner,
            facts.runs,
            facts.attempts,
            row.value,
            facts.reason,
            str(facts.beats) if facts.beats else None,
        )

    def _change(self, connection: Connection, row: Row, state: State, **fields: Any) -> None:
        from optuna.trial import TrialState

        self._study.change(connection, row, TrialState[OF_OPTUNA[state]], _facts(row).changed(**fields))

    @contextlib.contextmanager
    def _owned(self, number: int, owner: Owner | None) -> Iterator[tuple[Connection, Row | None]]:
        """Open a transaction with a running trial in it; None where it is not running, or another owner's."""
        with self._explained(), self._study.writing() as connection:
            row = self._study.row(connection, number)
            ours = row is not None and row.state.name == OF_OPTUNA["running"] and _facts(row).owner == owner
            yield connection, row if ours else None

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Return a trial's own sampler: two hosts with one seed would draw the same settings."""
        from optuna import samplers

        text = f"{self.definition.seed}:{number}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
        if self.definition.method == "tpe":
            return samplers.TPESampler(constant_liar=True, seed=seed)
        return samplers.RandomSampler(seed)

    def _pruner(self) -> optuna.pruners.BasePruner | None:
        from optuna import pruners

        known: dict[str, type[pruners.BasePruner]]
        known = {"median": pruners.MedianPruner, "hyperband": pruners.HyperbandPruner}
        return known[self.definition.prune]() if self.definition.prune in known else None

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return explained(self.where, self.definition.name)


def rebuild(
    definition: Definition,
    logs: str | Path | None = None,
    value_of: Callable[[Path], float | None] | None = None,
    at: str | None = None,
) -> Queue:
    """Make a sweep's study anew from the folders of its runs, and return its queue.

    The old one is put aside under another name once the new one is whole, and is never deleted. Nobody may be
    leading the sweep meanwhile.

    Args:
        definition: The sweep.
        logs: The folder of runs; by default `logs/`.
        value_of: What a run has come to; by default the goal's best value.
        at: As for `Queue.open`.

    Raises:
        QueueError: The database can't be reached.
    """
    extras.need("optuna", "A sweep")
    from trainlab.sweeps import objective, recovery

    def best(run: Path) -> float | None:
        return objective.value(run, definition.goal, definition.mode)

    place = Path(logs).expanduser() if logs else paths.logs()
    known, reports = recovery.found(definition, place, value_of or best)
    now = f"{datetime.now(UTC):%Y%m%d-%H%M%S.%f}"
    path = folder(definition.name, logs).absolute() / database.FILE
    new = path.with_name(f"{path.name}.new")
    at = at or definition.at
    if not at:
        database.check_place(path.parent)
        database.move(new, None)
    queue = Queue._connected(definition, at, logs, new.name)
    with queue._explained():
        aside = f"{definition.name} until {now}" if at else ""
        with queue._study.created(definition.name, definition.mode, aside) as connection:
            queue._study.note(connection, storage.mark(folder(definition.name, logs)))
            queue._add(connection, 0, definition.trials, known)
            queue._study.add_reports(connection, reports)
        if at:
            return queue
        queue.close()
        with database.locked(
            path.with_name(database.LOCK)
        ):  # a worker may be about to write into the old one
            database.move(path, path.with_name(f"study-{now}.db"))
            database.move(new, path)
    return Queue.open(definition, at, logs)


def _facts(row: Row) -> _Facts:
    try:
        return _Facts.model_validate_json(row.facts)
    except ValidationError:
        raise ValueError(f"what it says of trial {row.number} can't be read") from None
