"""A run: one folder that holds everything about one training.

with Run("news", config) as run:
    run.log({"train/loss": loss}, step)
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from trainlab import extras, paths, secrets, trackers
from trainlab.cleaning import printable
from trainlab.config import Config, changes, settings_dict
from trainlab.errors import UserError, without_traceback
from trainlab.run import events, lock, naming, record, resuming, signals, stopping
from trainlab.run.metrics import AUTO, Summary, check_same, given_directions, never_logged
from trainlab.run.monitor import Monitor
from trainlab.run.recorder import Recorder
from trainlab.trackers.queue import TrackerGroup

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from lightning.pytorch.callbacks import Callback

    from trainlab.run.metrics import Direction
    from trainlab.run.record import Status

T = TypeVar("T")
ADOPT = "TRAINLAB_RUN"  # the headless runner names here the folder that the notebook's first Run takes over
RUNNER = "TRAINLAB_RUNNER"  # and here its process, which `run.json` names until then
HOSTS = "TRAINLAB_HOSTS"  # set where several hosts train one run: each in turn may have to record it
FLUSH_SECONDS = 3.0  # how old the metrics in a running run's run.json may be


class Run(Recorder):
    """Records one training in `logs/<experiment>/<UTC time>[-<name>]`.

    Use it as a context manager: leaving the block marks the run finished; an exception marks it failed and
    goes on up; Ctrl-C and SIGTERM mark it interrupted. A pickled copy in another process logs into the same
    folder; this one then takes it in by `refresh`.

    Settings named like secrets (`api_key`, `password`), and the values of environment variables named so, are
    written as `***` wherever the run is recorded.

    Args:
        experiment: The name of the folder that holds this run and others like it.
        config: Settings: a dict, an `argparse.Namespace`, a dataclass, a `Config`, or None.
        name: What the folder is called behind the time; default: the settings that tell this run from others
            (see `config.changes`). A resumed run keeps its own.
        seed: The seed; default: the setting of that name.
        data: What tells this data from other data, for `run.json`. A run doesn't go on with another `sha256`.
        metrics: The tags that matter most, which the table of runs shows first; {"val/wer": "min"} also says
            which way they improve, where no well-known name does.
        logs: The folder of all runs, and where `resume` is looked for; default: TRAINLAB_LOGS in the
            environment, or `logs/`. It may lie on a network drive or a memory card, Google Drive's in a
            notebook, say: what such storage has no means for (links, locks, fsync) is done without.
        resume: A run of this experiment to go on with, in its own folder (see `resuming`); default: the
            `resume` of a `Config`. Its settings must be those that it had. Then call `load`, or `rewind` with
            the number of steps done, before anything is logged.
        tracker: Where the run can be followed beside TensorBoard (see `trackers.parse`); default: the
            `tracker` of a `Config`.
        monitor: Log what the machine does meanwhile, as `vitals/...`.

    Attributes: `folder`, `name` (the folder's), `experiment`, `config` (a dict), `writer`; `resumed`, and
    the `checkpoint` to go on from, which is None where there is none yet; `step`, the one that comes next.

    Raises:
        UserError: The folder can't be made, or the run can't go on.
    """

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Return one that writes nothing in the processes of torchrun but the first (see `ranks`)."""
        if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0":
            from trainlab.run.ranks import Follower

            return super().__new__(Follower)  # type: ignore[return-value]
        return super().__new__(cls)

    def __init__(  # noqa: PLR0913
        self,
        experiment: str,
        config: Any = None,
        *,
        name: str | None = None,
        seed: int | None = None,
        data: Mapping[str, Any] | None = None,
        metrics: Sequence[str] | Mapping[str, Direction] = (),
        logs: str | Path | None = None,
        resume: str | Path | None = None,
        tracker: str | None = None,
        monitor: bool = True,
    ) -> None:
        super().__init__()
        logs = Path(logs) if logs else None
        self.config = settings_dict(config)
        typed = isinstance(config, Config)
        self._settings = type(config) if typed else None
        seed = self.config.get("seed") if seed is None else seed
        directions = given_directions(metrics)
        secrets.remember(secrets.named(self.config))
        self._shown = secrets.hidden(record.plain(self.config))
        fields = {"config": self._shown, "seed": seed, "data": data}
        fields |= {"metrics": list(metrics), "directions": directions}
        name = naming.of_changes(changes(config)) if name is None else name

        # TensorBoard shows five settings: none that changes nothing in what is learned, and is as ever
        free: frozenset[str] = getattr(config, "MAY_CHANGE", frozenset()) if typed else frozenset()
        self._no_columns = free - {"epochs"} - changes(config).keys()
        reference = getattr(config, "resume", "") if resume is None and typed else resume
        tracker = getattr(config, "tracker", "") if tracker is None and typed else tracker
        followed = trackers.chosen(tracker or "")

        logs = Path(logs).expanduser() if logs else paths.logs()
        record.raise_oom_score()
        self._process = os.getpid()
        self._blocks = ExitStack()
        self._began = self._flushed = time.monotonic()
        self._monitored, self._monitor = monitor, cast("Monitor | None", None)
        self.step = 0
        self.resumed = bool(reference)
        self.checkpoint: Path | None = None
        self._adopted = False  # the headless runner's folder
        self._enter_folder(
            resuming.referenced(reference, experiment, logs) if reference else None,
            lambda: naming.new_folder(logs, experiment, name),
            experiment,
            fields,
        )
        try:
            self._open()
            self._trackers.start(followed, self.folder, self._shown, self._ids)
            if "TORCHELASTIC_RUN_ID" in os.environ:
                from trainlab.run import ranks

                ranks.tell(self)
        except BaseException:
            self._lock.release()
            raise
        if not self._adopted:  # the headless runner has printed it
            stopping.announce(self.folder)

    def _enter_folder(
        self,
        found: tuple[Path, Path | None] | None,
        new_folder: Callable[[], Path],
        experiment: str,
        fields: dict[str, Any],
    ) -> None:
        """Take the headless runner's folder if there is one, or the `found` run's, or a new one; write that.

        An entry of `fields` that is empty says nothing: what the runner or an earlier session knew stays.
        """
        given = {key: value for key, value in fields.items() if value not in (None, {}, [])}
        folder = Path(os.environ.get(ADOPT, ""))
        held: lock.Lock | None = None
        of_hosts = HOSTS in os.environ and ADOPT in os.environ
        if of_hosts:
            del os.environ[ADOPT]
            with self._disk_errors(folder):
                held, self.resumed = resuming.handed_on(folder)
            found, self._adopted = ((folder, None) if self.resumed else None), True
        elif folder.name and folder.is_dir() and (not found or found[0].samefile(folder)):
            known = record.read(folder)
            # a process before this one may have had it: the record names the runner's until then
            if os.environ.get(RUNNER, str(known.pid)) == str(known.pid):
                if known.resumes and not found:
                    if not (known.model_extra or {}).get("script"):
                        raise UserError(
                            f"The run {folder.name} is to go on, and the notebook doesn't hand its "
                            "`resume` on. Write it into the call: trainlab.Run(..., resume=resume)."
                        )
                    found, self.resumed = (folder, None), True  # a script has its first arguments again
                del os.environ[ADOPT]  # later runs, and child processes, make their own
                held = lock.hold(folder)
                self._adopted = held is not None
        if held is None and found:
            resuming.check_experiment(found[0], [experiment], self._settings)
            folder = found[0]
            with self._disk_errors(folder):
                held = resuming.take(folder)
        elif held is None:
            folder = new_folder()
            with self._disk_errors(folder):
                held = lock.hold(folder)
        assert held is not None, "a folder made a moment ago has no other holder"
        self._lock, self.folder, self.name, self.experiment = held, folder, folder.name, folder.parent.name
        try:
            if found:
                given |= {"directions": self._check_resume(found[1], fields)}
            with self._disk_errors():
                if found:
                    resuming.sweep(folder)
                    self._record = record.reopen(folder, adopted=self._adopted and not of_hosts, **given)
                elif self._adopted:
                    self._record = record.update(folder, **given, pid=self._process)
                else:
                    self._record = record.create(folder, self.experiment, **fields)
        except BaseException:
            self._lock.release()
            raise

    def _check_resume(self, chosen: Path | None, fields: dict[str, Any]) -> dict[str, Direction]:
        """Find the checkpoint of a run that may go on; return which way its metrics improve."""
        before = record.read(self.folder)
        resuming.check_same(self._settings, before.config, self.config)
        resuming.check_same_data(self.folder, before.data, fields["data"])
        check_same(before.directions, fields["directions"])
        self.checkpoint = resuming.starting_point(self.folder, chosen)
        return before.directions | fields["directions"]

    def _open(self) -> None:
        """Get ready to log."""
        lock.keep_reserve(self.folder)
        self._seconds_before = self._record.resumes[-1].seconds if self._record.resumes else 0.0
        self._summary = Summary(self._record.directions)
        # without a checkpoint the training starts again, and so do the curves, unless `rewind` says otherwise
        self._astray = self.resumed and self.checkpoint is None
        if self.resumed and not self._astray:
            self._sum_up()
            self.step = 1 + int(max((point["step"] for point in self._summary.last.values()), default=-1))
        if self.config:
            shown = {key: value for key, value in self._shown.items() if key not in self._no_columns}
            if (sweep := self._record.sweep) is not None:
                shown = {"sweep": sweep.name, "trial": sweep.trial} | shown
            with self._disk_errors():
                self._events.start_session(shown)

    @property
    def _ids(self) -> dict[str, str]:
        """What each tracker calls this run, now or in an earlier session."""
        before: dict[str, str] = (self._record.model_extra or {}).get("trackers", {})
        return before | self._trackers.ids

    def __enter__(self) -> Self:
        """Start to watch how the block is left."""
        self._blocks.enter_context(signals.sigterm_raises())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write how the block was left."""
        status, reason = signals.ending(error)
        try:
            self.finish(status, reason)
        except UserError as failure:
            if error is None:
                without_traceback(failure)
                raise
            if str(failure) != str(error):
                warnings.warn(f"The end of the run could not be written: {failure}", stacklevel=2)
        finally:
            # a sentence in place of the traceback, where that would explain less; the runner has its own
            if isinstance(error, UserError):
                without_traceback(error)
            elif error is not None and status == "interrupted" and self._adopted:
                without_traceback(error, silent=True)
            elif error is not None and status == "interrupted":
                stopping.report(self.folder, error, reason)
            self._blocks.__exit__(kind, error, trace)

    def enter(self, block: AbstractContextManager[T]) -> T:
        """Enter a context that is left together with the run's own block."""
        return self._blocks.enter_context(block)

    def callbacks(self, **settings: Any) -> list[Callback]:
        """Return what records the training of any Lightning Trainer, beside callbacks of your own.

        lightning.Trainer(logger=trainlab.RunLogger(run), callbacks=[*mine, *run.callbacks()])

        They write curves of the speed, checkpoints with digests and the best weights; SIGTERM and Ctrl-C save
        after the current step; in a resumed run `fit` goes on from the newest checkpoint.

        Args:
            **settings: Fields of `TrainingConfig`, such as `monitor`, `mode`, `save_top_k`, `patience`,
                `checkpoint_every` or `keep`; without them those of the run's own settings, where it has such.

        Raises:
            UserError: for a setting that isn't one, or where it is not known which way `monitor` improves.
        """
        from trainlab.training.config import TrainingConfig

        extras.need("lightning", "Run.callbacks()")
        from trainlab.training.trainer import callbacks_of

        own = self._settings is not None and issubclass(self._settings, TrainingConfig)
        known = {
            name: self.config[name] for name in TrainingConfig.model_fields if own and name in self.config
        }
        return callbacks_of(self, TrainingConfig.parse(known | settings))

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars at a step. NaN and infinity are numbers too.

        Args:
            metrics: {tag: number}; a number may be NumPy's, torch's or JAX's.
            step: Default: that of the call before, or the next one where it has one of these tags already.
        """
        if self._astray:
            self.rewind(0)
        if step is None:
            step = max(self.step - 1, 0)
            step += any(self.has(tag, step) for tag in metrics)
        self._record_scalars(metrics, int(step))
        self.step = max(self.step, int(step) + 1)
        if self._monitored and self._monitor is None:  # many short runs log nothing, and need none
            self._monitor = Monitor(self._record_scalars, lambda: self.step - 1, self.folder)
            self._monitor.start()
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.update()

    def rewind(self, step: int, checkpoint: Path | None = None) -> None:
        """Take back what was logged at `step` and later: the resumed training goes on after `step` steps."""
        self._astray = False
        self.step = step
        with self._disk_errors():
            self._events.start_again(step)
        self._trackers.rewind(step)
        self._sum_up()
        sessions = self._record.model_dump()["resumes"]
        if sessions:
            relative = os.path.relpath(checkpoint, self.folder) if checkpoint else None
            sessions[-1] |= {"step": step, "checkpoint": relative}
            self.update(resumes=sessions)

    def direction(self, tag: str, wanted: str = AUTO) -> Direction | None:
        """Return which way a metric improves, None where none was given and the name is not well known.

        A `wanted` direction, 'min' or 'max', is kept in `run.json`, and decides which value is the best.
        Raises UserError for another one than was given before.
        """
        directions = given_directions({tag: wanted} if wanted != AUTO else {})
        check_same(self._summary.directions, directions)
        if directions and not directions.items() <= self._summary.directions.items():
            self._summary.directions |= directions
            self.update()
        return self._summary.direction(tag)

    def refresh(self) -> None:
        """Take in what another process has logged to this run: a copy of it that was pickled and sent there.

        What is logged from here on goes into a new event file, behind that process's.
        """
        self._close()
        self._astray = False
        curves, last = events.read(self.folder).curves, self._summary.last
        new = [
            (step, when, tag, value)
            for tag, curve in curves.items()
            for step, when, value in zip(curve.steps, curve.wall_times, curve.values, strict=True)
            if tag not in last or step > last[tag]["step"]
        ]
        self._trackers.hand_on(sorted(new, key=lambda point: point[1]))
        with suppress(record.RecordError):
            self._record = record.read(self.folder)
        self._summary.directions |= self._record.directions
        self._sum_up(curves)

    def plan(self, steps: int | None, epochs: int | None = None, done: int = 0) -> None:
        """Say how far the training is to go, with `done` steps made: the table then shows what is left."""
        planned = {"steps": steps, "epochs": epochs, "step": done, "at": datetime.now(UTC)}
        self.update(planned=planned)

    def update(self, **fields: Any) -> None:
        """Set further fields of `run.json`, such as the data's fingerprint; metrics so far go along."""
        self._flushed = time.monotonic()
        with self._disk_errors():
            self._record = record.update(self.folder, self._record, **self._measured(), **fields)

    @signals.held()
    def finish(self, status: Status = "finished", reason: str | None = None) -> None:
        """Write the end of the run; a second call, or one from another process, does nothing.

        Raises UserError when the disk refuses; the run is marked failed where that can still be written.
        """
        if self._ended or os.getpid() != self._process:
            return
        if self._monitor is not None:
            self._monitor.stop()  # logs its last point
        failure: UserError | None = None
        try:
            if self._event_file is not None and self.config:
                with self._disk_errors():
                    self._event_file.end_session(status)
            self._close()
        except UserError as error:
            if status == "finished":
                failure, status, reason = error, "failed", str(error)
        try:
            try:
                self._end(status, reason)
            except UserError:  # a full disk: there is the room that was kept
                lock.release_reserve(self.folder)
                self._end(status, reason)
            lock.release_reserve(self.folder)
        finally:
            self._ended = True
            self._lock.release()
            self._trackers.finish(status, reason)  # once the record has it
            if self._ids != (self._record.model_extra or {}).get("trackers", {}):
                with suppress(UserError):  # a short run ends before their names are known
                    record.update(self.folder, trackers=self._ids)
        if failure is not None:
            raise failure

    def _end(self, status: Status, reason: str | None) -> None:
        """Write how it ended; the headless runner alone says that all went well, after the last cell."""
        if self._adopted and status == "finished":
            self.update()
        else:
            with self._disk_errors():
                known = self._record
                self._record = record.write_end(self.folder, status, reason, known, **self._measured())
        if status == "finished" and (line := never_logged(self._record.metrics, self._summary.last)):
            print(printable(line), file=sys.stderr, flush=True)

    def _measured(self) -> dict[str, Any]:
        """Return the metrics so far, and the seconds of training by a clock that nobody sets."""
        seconds = self._seconds_before + time.monotonic() - self._began
        ids = {"trackers": self._ids} if self._ids else {}
        return {**self._summary.snapshot(), **ids, "seconds": round(seconds, 3)}

    def _sum_up(self, curves: Mapping[str, events.Curve] | None = None) -> None:
        """Find the last and the best of the curves on disk."""
        curves = events.read(self.folder).curves if curves is None else curves
        self._summary = Summary.of(curves, self._summary.directions)

    def _close(self) -> None:
        """Stop to log, until something is logged again."""
        if self._monitor is not None:
            self._monitor.stop()
        with self._disk_errors():
            if self._event_file is not None:
                self._event_file.close()
        self._monitor = self._event_file = self._writer = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs: not the lock, the open file and the threads."""
        left = ("_lock", "_event_file", "_writer", "_monitor", "_blocks", "_settings")
        return self.__dict__ | dict.fromkeys(left) | {"_trackers": TrackerGroup()}
