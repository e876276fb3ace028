"""A sweep's Optuna study, as rows of Optuna's own tables.

Optuna's public functions create no trial but one at a time, never set a running one back to waiting, and know
no owner. So the rows are written here, and nowhere else, by SQL on Optuna's tables; samplers and pruners see
an ordinary study. What the queue knows of a trial is a text in the user attribute `trainlab`.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Connection, insert, select, update

from trainlab.sweeps import database

if TYPE_CHECKING:
    from pathlib import Path

ATTRIBUTE = "trainlab"

_studies, _directions = models.StudyModel.__table__, models.StudyDirectionModel.__table__
_notes = models.StudyUserAttributeModel.__table__
_trials, _facts = models.TrialModel.__table__, models.TrialUserAttributeModel.__table__
_params, _values = models.TrialParamModel.__table__, models.TrialValueModel.__table__
_reports = models.TrialIntermediateValueModel.__table__
_Kind = models.TrialValueModel.TrialValueType
_LAST = (1 << 31) - 1  # no trial has a higher key
_ReportKind = models.TrialIntermediateValueModel.TrialIntermediateValueType

Distributions = Mapping[str, BaseDistribution]

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@dataclass(frozen=True)
class Row:
    """A trial as the tables hold it: settings and value as numbers, the queue's facts as text."""

    key: int
    number: int
    state: TrialState
    facts: str
    settings: Mapping[str, float] = field(default_factory=dict)  # with the value, where they were asked for
    value: float | None = None


class _Storage(optuna.storages.RDBStorage):
    """Optuna's storage, which tells samplers and pruners nothing of trials that wait.

    Nothing is to be learned from these, and a study of ten thousand would be read anew, for seconds, at every
    question. Were this not called any more, a study would be as slow, and right.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        super().__init__(url, options)
        self._ended: set[int] = set()  # those that Optuna's cache has had from here, and keeps

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],  # noqa: ARG002 - what the cache takes for unfinished
        trial_id_greater_than: int,  # noqa: ARG002
    ) -> list[optuna.trial.FrozenTrial]:
        query = select(_trials.c.trial_id, _trials.c.state).where(
            _trials.c.study_id == study_id, _trials.c.state != TrialState.WAITING
        )
        with self.engine.connect() as connection:
            started = connection.execute(query).all()
        wanted = {each.trial_id for each in started} - self._ended
        self._ended |= {each.trial_id for each in started if each.state.is_finished()}
        return super()._get_trials(study_id, states, wanted, _LAST)


_shared: dict[str, tuple[sqlalchemy.Engine, optuna.storages.BaseStorage]] = {}


class Study:
    """One study in a database."""

    def __init__(
        self,
        options: Mapping[str, Any],
        lock: Path | None = None,
        file: Path | None = None,
        shared: str = "",
    ) -> None:
        """Reach a database.

        Args:
            options: Of SQLAlchemy's `create_engine`, with the `url`.
            lock: SQLite's writers hold this file.
            file: That of SQLite: once another one stands in its place, nothing more is written to it.
            shared: What names a database that all of its studies reach by one engine: a server has only so
                many connections to give, and a worker may know hundreds of sweeps.
        """
        if shared in _shared:
            self.engine, self._storage = _shared[shared]
        else:
            engine = {key: value for key, value in options.items() if key != "url"}
            storage = _Storage(options["url"], engine)
            self.engine = storage.engine
            self._storage = optuna.storages.get_storage(storage)  # remembers the trials that have ended
        if shared:
            _shared[shared] = self.engine, self._storage
        self._lock, self._is_shared = lock, bool(shared)
        self._file = database.File(file) if file else None
        self._key, self._name = 0, ""

    def close(self) -> None:
        """Let go of the database."""
        self._storage.remove_session()
        if not self._is_shared:
            self.engine.dispose()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction; of SQLite's there is one at a time, by a lock beside the database too."""
        with contextlib.ExitStack() as stack:
            if self._lock:
                stack.enter_context(database.locked(self._lock))
            if self._file and not self._file.is_there():
                raise FileNotFoundError(self._file.path)
            connection = stack.enter_context(self.engine.connect())
            if self._lock:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    @contextlib.contextmanager
    def created(self, name: str, mode: str, aside: str = "") -> Iterator[Connection]:
        """Make a study, together with what is written in this block: all of it or nothing.

        Args:
            name: The study's.
            mode: "min" or "max".
            aside: What the study of that name, where there is one, is called from then on.

        Raises:
            FileExistsError: There is a study of that name.
        """
        direction = StudyDirection.MINIMIZE if mode == "min" else StudyDirection.MAXIMIZE
        with self.writing() as connection:
            present = _studies.c.study_name == name
            if aside:
                connection.execute(update(_studies).where(present).values(study_name=aside))
            elif connection.scalar(select(_studies.c.study_id).where(present)):
                raise FileExistsError(name)
            key = connection.scalar(insert(_studies).values(study_name=name).returning(_studies.c.study_id))
            connection.execute(insert(_directions).values(study_id=key, direction=direction, objective=0))
            self._key, self._name = int(key or 0), name
            yield connection

    def open(self, name: str) -> bool:
        """Look for the study of a name, and tell whether it is there."""
        self._name = name
        with self.engine.connect() as connection:
            key = connection.scalar(self._keyed())
        self._key = key or 0
        return key is not None

    def is_current(self) -> bool:
        """Tell whether this is the study of its name still: it may have been deleted, or made anew."""
        if self._file:
            return self._file.is_there()
        with self.engine.connect() as connection:
            return bool(self._key) and self._key == connection.scalar(self._keyed())

    def _keyed(self) -> sqlalchemy.Select[Any]:
        return select(_studies.c.study_id).where(_studies.c.study_name == self._name)

    def note(self, connection: Connection, text: str) -> None:
        """Write a text beside a new study, for `notes`."""
        connection.execute(
            insert(_notes).values(study_id=self._key, key=ATTRIBUTE, value_json=json.dumps(text))
        )

    def notes(self) -> dict[str, str]:
        """Return the text beside each study of the database by the studies' names, '' for none."""
        beside = (_notes.c.study_id == _studies.c.study_id) & (_notes.c.key == ATTRIBUTE)
        asked = select(_studies.c.study_name, _notes.c.value_json).select_from(
            _studies.outerjoin(_notes, beside)
        )
        with self.engine.connect() as connection:
            return {name: text.strip('"') if text else "" for name, text in connection.execute(asked)}

    def add(self, connection: Connection, rows: Iterable[Row], distributions: Distributions) -> None:
        """Add trials with the numbers, states, settings, values and facts that they have."""
        rows = list(rows)
        now = datetime.now(UTC).replace(tzinfo=None)
        connection.execute(
            insert(_trials),
            [
                {
                    "study_id": self._key,
                    "number": row.number,
                    "state": row.state,
                    "datetime_start": None if row.state is TrialState.WAITING else now,
                    "datetime_complete": now if row.state.is_finished() else None,
                }
                for row in rows
            ],
        )
        found = connection.execute(
            select(_trials.c.number, _trials.c.trial_id).where(
                _trials.c.study_id == self._key, _trials.c.number >= min(row.number for row in rows)
            )
        )
        keys = {each.number: each.trial_id for each in found}
        facts = [{"trial_id": keys[row.number], "key": ATTRIBUTE, "value_json": row.facts} for row in rows]
        connection.execute(insert(_facts), facts)
        values = [_value(keys[row.number], row.value) for row in rows if row.value is not None]
        if values:
            connection.execute(insert(_values), values)
        settings = [(keys[row.number], name, value) for row in rows for name, value in row.settings.items()]
        _insert_settings(connection, settings, distributions)

    def set_settings(
        self, connection: Connection, row: Row, settings: Mapping[str, float], distributions: Distributions
    ) -> None:
        """Give a trial the settings that it has not got yet."""
        rows = [(row.key, name, value) for name, value in settings.items() if name not in row.settings]
        _insert_settings(connection, rows, distributions)

    def count(self, connection: Connection, *states: TrialState) -> int:
        """Return how many trials there are, all or those in some states."""
        query = select(sqlalchemy.func.count()).select_from(_trials).where(_trials.c.study_id == self._key)
        return connection.scalar(query.where(_trials.c.state.in_(states)) if states else query) or 0

    def next_waiting(self, connection: Connection) -> Row | None:
        """Return the first trial that waits, less its settings; nobody else sees it until the commit.

        Of a study that has been put aside for another one none waits.
        """
        waits = _trials.c.state == TrialState.WAITING
        named = _trials.c.study_id == self._keyed().scalar_subquery()
        return self._one(connection, sqlalchemy.and_(waits, named), skip_locked=True)

    def row(self, connection: Connection, number: int) -> Row | None:
        """Return a trial, less its settings; nobody else changes it until the commit."""
        return self._one(connection, _trials.c.number == number, skip_locked=False)

    def rows(self, *states: TrialState, number: int | None = None) -> list[Row]:
        """Return all trials, those of some states or one, in their order, as they are at a single moment."""
        chosen = [_trials.c.study_id == self._key]
        chosen += [_trials.c.state.in_(states)] if states else []
        chosen += [_trials.c.number == number] if number is not None else []
        options = {} if self._lock else {"isolation_level": "REPEATABLE READ"}
        with self.engine.connect().execution_options(**options) as connection:
            if self._lock:
                connection.exec_driver_sql("BEGIN")
            return self._rows(connection, sqlalchemy.and_(*chosen))

    def change(self, connection: Connection, row: Row, state: TrialState, facts: str) -> None:
        """Write a trial's state and the queue's facts of it."""
        now = datetime.now(UTC).replace(tzinfo=None)
        if state is not row.state:
            times = {"datetime_start": now} if state is TrialState.RUNNING else {}
            times |= {"datetime_complete": now} if state.is_finished() else {}
            chosen = update(_trials).where(_trials.c.trial_id == row.key)
            connection.execute(chosen.values(state=state, **times))
        connection.execute(
            update(_facts)
            .where(_facts.c.trial_id == row.key, _facts.c.key == ATTRIBUTE)
            .values(value_json=facts)
        )

    def set_value(self, connection: Connection, row: Row, value: float) -> None:
        """Write what a trial has come to."""
        connection.execute(sqlalchemy.delete(_values).where(_values.c.trial_id == row.key))
        connection.execute(insert(_values), [_value(row.key, value)])

    def report(self, connection: Connection, row: Row, ordinal: int, value: float) -> None:
        """Write a trial's value at one validation, or replace it."""
        place, known = (_reports.c.trial_id == row.key, _reports.c.step == ordinal), _reported(value)
        if not connection.execute(update(_reports).where(*place).values(**known)).rowcount:
            connection.execute(insert(_reports).values(trial_id=row.key, step=ordinal, **known))

    def add_reports(self, connection: Connection, reports: Mapping[int, Iterable[tuple[int, float]]]) -> None:
        """Write what trials, by their numbers, had come to at their validations: ordinals and values."""
        found = select(_trials.c.number, _trials.c.trial_id).where(_trials.c.study_id == self._key)
        keys = {each.number: each.trial_id for each in connection.execute(found)}
        stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        rows = [
            {
                "trial_id": keys[number],
                "step": ordinal,
                "intermediate_value": value,
                "intermediate_value_type": kind,
            }
            for number, curve in reports.items()
            for ordinal, (value, kind) in ((place, stored(each)) for place, each in curve)
        ]
        if rows:
            connection.execute(insert(_reports), rows)

    def last_report(self, connection: Connection, row: Row) -> float | None:
        """Return the last finite value that was reported of a trial."""
        chosen = select(_reports.c.intermediate_value).where(_reports.c.trial_id == row.key)
        finite = chosen.where(_reports.c.intermediate_value_type == _ReportKind.FINITE)
        return connection.scalar(finite.order_by(_reports.c.step.desc()).limit(1))

    def sample(
        self, row: Row, distributions: Distributions, sampler: optuna.samplers.BaseSampler
    ) -> dict[str, float]:
        """Return the settings that Optuna proposes for a trial, as its numbers for them."""
        study = optuna.load_study(study_name=self._name, storage=self._storage, sampler=sampler)
        trial = self._storage.get_trial(row.key)
        sampler.before_trial(study, trial)
        found = sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))
        for name, each in distributions.items():
            if each.single():  # one choice: samplers expect two
                found[name] = each.to_external_repr(0)
            elif name not in found:
                found[name] = sampler.sample_independent(study, trial, name, each)
        return {name: each.to_internal_repr(found[name]) for name, each in distributions.items()}

    def should_prune(self, number: int, pruner: optuna.pruners.BasePruner) -> bool:
        """Ask a pruner about a running trial's last report."""
        study = optuna.load_study(study_name=self._name, storage=self._storage, pruner=pruner)
        key = self._storage.get_trial_id_from_study_id_trial_number(self._key, number)
        trial = self._storage.get_trial(key)
        return trial.state is TrialState.RUNNING and pruner.prune(study, trial)

    def _one(
        self, connection: Connection, chosen: sqlalchemy.ColumnElement[bool], *, skip_locked: bool
    ) -> Row | None:
        of_queue = sqlalchemy.and_(_facts.c.trial_id == _trials.c.trial_id, _facts.c.key == ATTRIBUTE)
        columns = (_trials.c.trial_id, _trials.c.number, _trials.c.state, _facts.c.value_json)
        query = select(*columns).select_from(_trials.outerjoin(_facts, of_queue))
        query = query.where(_trials.c.study_id == self._key, chosen).order_by(_trials.c.number).limit(1)
        found = connection.execute(query.with_for_update(of=_trials, skip_locked=skip_locked)).first()
        if found is None:
            return None
        return Row(found.trial_id, found.number, found.state, found.value_json or "{}")

    def _rows(self, connection: Connection, chosen: sqlalchemy.ColumnElement[bool]) -> list[Row]:
        """Read what is known of some trials, in four queries however many they are."""
        trials = select(_trials.c.trial_id, _trials.c.number, _trials.c.state).where(chosen)
        found = connection.execute(trials.order_by(_trials.c.number)).all()
        settings: dict[int, dict[str, float]] = {}
        columns = select(_params.c.trial_id, _params.c.param_name, _params.c.param_value)
        for key, name, number in connection.execute(columns.join(_trials).where(chosen)):
            settings.setdefault(key, {})[name] = number
        read = select(_values.c.trial_id, _values.c.value, _values.c.value_type).join(_trials).where(chosen)
        values = {
            key: models.TrialValueModel.stored_repr_to_value(value, kind)
            for key, value, kind in connection.execute(read)
        }
        texts = select(_facts.c.trial_id, _facts.c.value_json).join(_trials)
        texts = texts.where(chosen, _facts.c.key == ATTRIBUTE)
        facts = {each.trial_id: each.value_json for each in connection.execute(texts)}
        return [
            Row(key, number, state, facts.get(key, "{}"), settings.get(key, {}), values.get(key))
            for key, number, state in found
        ]


def _insert_settings(
    connection: Connection, rows: Iterable[tuple[int, str, float]], distributions: Distributions
) -> None:
    texts = {name: distribution_to_json(each) for name, each in distributions.items()}
    known = [
        {"trial_id": key, "param_name": name, "param_value": value, "distribution_json": texts[name]}
        for key, name, value in rows
    ]
    if known:
        connection.execute(insert(_params), known)


def _reported(value: float) -> dict[str, Any]:
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"intermediate_value": stored, "intermediate_value_type": kind}


def _value(key: int, value: float) -> dict[str, Any]:
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return {"trial_id": key, "objective": 0, "value": stored, "value_type": kind}
