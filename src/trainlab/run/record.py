"""`run.json`: what is known about a run, written atomically and read with suspicion.

Numbers that JSON has no word for are written as the strings "NaN", "Infinity" and "-Infinity".

A run that is killed can't say so itself: the kernel ends a process for memory without a word to it. So a run
writes down at its start what `crash_reason` compares with.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from trainlab import files, origin, secrets, system, untrusted
from trainlab.errors import UserError
from trainlab.run import lock
from trainlab.run.metrics import Direction

FILE = "run.json"
LARGEST = 1 << 24  # bytes: a run of some ten thousand metrics
DIGEST = "sha256"  # ends the name of a fact that tells data from other data
DIGITS = 8  # of a digest, shown
Status = Literal["running", "finished", "failed", "interrupted"]
UNKNOWN = "the process ended and left no reason (killed, exit 137, or a power failure)"
FIRST_TO_GO = 500  # of -1000 (never) to 1000: before whatever watches over the run, which has 0
# of the server (jupyter_server_config.py) and of all that is started in it: before a training
OF_JUPYTERLAB = 600
_BOOT = Path("/proc/sys/kernel/random/boot_id")
SCORE = Path("/proc/self/oom_score_adj")


class RecordError(UserError):
    """A `run.json` that is missing, not ours, or damaged."""


class Point(BaseModel):
    """A metric's value and the step it was logged at."""

    value: float
    step: int


class Git(BaseModel):
    """A repository's commit, and whether files differed from it."""

    commit: str
    dirty: bool


class Resume(BaseModel):
    """One time that a run went on: when, from which step and checkpoint, and with which code."""

    at: AwareDatetime
    step: int | None = None  # points from here on were taken back; None until the run says so
    checkpoint: str | None = None  # relative to the run's folder
    seconds: FiniteFloat = 0.0  # of training before
    git: Git | None = None  # of the code that ran; in older records trainlab's
    trainlab_git: Git | None = None
    command: str = ""


Count = Annotated[int, Field(gt=0, lt=1 << 53)]


class Planned(BaseModel):
    """How far a training is to go, None where nobody knows, and where and when it began, or went on."""

    steps: Count | None = None
    epochs: Count | None = None
    step: Annotated[int, Field(ge=0, lt=1 << 53)] = 0  # done before
    at: AwareDatetime


class Sweep(BaseModel):
    """The sweep that a run belongs to, and which of its trials it is."""

    name: Annotated[str, Field(max_length=100)]
    trial: Annotated[int, Field(ge=0, lt=1 << 53)]
    attempts: Annotated[int, Field(ge=0, lt=1 << 53)] = 1  # how often the trial was begun, or gone on with
    seed: int | None = None  # where the trial repeats its setting with several
    settings: dict[str, str] = Field(default_factory=dict)  # what varies, as the command line has it
    ready_by: int | None = None  # the process that made the run ready, whose `pid` it has until it begins
    # why whoever leads the sweep, or a user, has asked the run to end: its `reason` once it has
    stopped: Annotated[str | None, Field(max_length=200)] = None


def _or_none(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Read what no run depends on; in its place may stand anything."""
    try:
        return validate(value)
    except ValidationError:
        return None


class Record(BaseModel):
    """The fields of `run.json`; a run may add its own."""

    model_config = ConfigDict(extra="allow")

    experiment: str
    run: str
    status: Status
    reason: str | None = None
    started: AwareDatetime
    ended: AwareDatetime | None = None
    seconds: FiniteFloat | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = None
    metrics: list[str] = Field(default_factory=list)
    git: Git | None = None  # of the code that ran; in older records trainlab's
    trainlab_git: Git | None = None
    command: str = ""
    hardware: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    installed: dict[str, str] = Field(default_factory=dict)  # while it ran, as by `%pip install`
    data: dict[str, Any] | None = None
    last: dict[str, Point] = Field(default_factory=dict)
    best: dict[str, Point] = Field(default_factory=dict)
    directions: dict[str, Direction] = Field(default_factory=dict)  # by which `best` was chosen
    resumes: list[Resume] = Field(default_factory=list)
    nodes: Annotated[str | None, WrapValidator(_or_none)] = None  # hosts that train it: '2', or '1:2'
    pid: int | None = None
    host: str = ""
    home: str = ""
    oom_kills: int | None = None
    planned: Annotated[Planned | None, WrapValidator(_or_none)] = None
    # at data, networks or other runs: nothing was trained that compares
    looks: Annotated[bool | None, WrapValidator(_or_none)] = None
    sweep: Annotated[Sweep | None, WrapValidator(_or_none)] = None
    tags: list[str] = Field(default_factory=list)
    note: str = ""

    def seconds_until(self, moment: float) -> float:
        """Return the time of training: of the sessions before the last one, and of that one until `moment`.

        `moment` is in seconds since 1970. A clock that was set back makes it too short, never negative.
        """
        last = self.resumes[-1] if self.resumes else Resume(at=self.started)
        return round(max(self.seconds or 0.0, last.seconds + max(0.0, moment - last.at.timestamp())), 3)


def create(folder: Path, experiment: str, **fields: Any) -> Record:
    """Write the first `run.json` of a run that starts now in this process, and return it.

    Its code is that of the `notebook` or `script` where one is given, and of trainlab's caller elsewhere.
    """
    known = {
        "experiment": experiment,
        "run": folder.name,
        "status": "running",
        "started": datetime.now(UTC),
        **_code_versions(fields),
        "command": system.command(),
        "hardware": system.hardware(),
        "packages": system.packages(),
        **_process(),
    }
    return write(folder, Record.model_validate(plain(known | fields)))


def read(folder: Path) -> Record:
    """Read and check a run's record.

    Raises RecordError with the reason when the file is missing, unreadable, not JSON or not a record.
    """
    path = folder / FILE
    try:
        content = untrusted.content(path, LARGEST)
        known = untrusted.parsed(content)
        return Record.model_validate(secrets.hidden(known) if secrets.may_hold_in_json(content) else known)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        fault = f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}" if place else "not a run's record"
        raise RecordError(f"{path}: {fault}.") from None
    except ValueError as error:
        raise RecordError(f"{path}: not JSON ({error}).") from None


def write(folder: Path, record: Record) -> Record:
    """Replace a run's record atomically, less what is secret, and return it."""
    content = json.dumps(secrets.hidden(plain(record.model_dump())), indent=2, allow_nan=False)
    files.write(folder / FILE, content.encode() + b"\n")
    return record


def update(folder: Path, known: Record | None = None, **fields: Any) -> Record:
    """Change some fields of a run's record, keeping what others wrote, and return it.

    One that somebody has broken or removed meanwhile is written anew, out of what is `known`. Raises
    RecordError where nothing is, pydantic's ValidationError for wrong fields.
    """
    with lock.exclusive(folder):
        try:
            present = read(folder)
        except RecordError:
            if known is None:
                raise
            present = known
        return write(folder, changed(present, **fields))


def reopen(folder: Path, *, adopted: bool = False, **fields: Any) -> Record:
    """Write that an ended or dead run goes on in this process, and return its record.

    Where the headless runner has written so already, the notebook's run goes on with that entry of `resumes`.
    Raises RecordError when the present record can't be read.
    """
    with lock.exclusive(folder):
        present = read(folder)
        if adopted and present.status == "running" and present.resumes and present.resumes[-1].step is None:
            return write(folder, changed(present, **fields | _process()))
        began = {"at": datetime.now(UTC), "seconds": present.seconds or 0.0, "command": system.command()}
        began |= _code_versions(fields)
        known = {
            "run": folder.name,
            "status": "running",
            "reason": None,
            "ended": None,
            "planned": None,
            "resumes": [*present.resumes, began],
            "sweep": present.sweep and present.sweep.model_copy(update={"stopped": None}),
            **_process(),
        }
        given = {key: value for key, value in fields.items() if key != "sweep" or value is not None}
        return write(folder, changed(present, **known | given))


def write_end(
    folder: Path, status: Status, reason: str | None = None, known: Record | None = None, **fields: Any
) -> Record:
    """Write how the run ended, when, and how long it took, by the clock where no `seconds` are given.

    A trial that was interrupted has the reason that its sweep wrote down before it sent the signal.
    """
    now = datetime.now(UTC)
    before = known or read(folder)
    if status == "interrupted":
        with suppress(RecordError):
            sweep = (read(folder) if known else before).sweep  # which has written since that was known
            reason = (sweep.stopped if sweep else None) or reason
    fields = {"seconds": before.seconds_until(now.timestamp())} | fields
    installed = before.installed | system.installed_since_start()
    return update(folder, known, status=status, reason=reason, ended=now, installed=installed, **fields)


def changed(record: Record, **fields: Any) -> Record:
    """Return the record with some fields replaced, checked again."""
    return Record.model_validate(record.model_dump() | plain(fields))


def still_running(folder: Path) -> UserError:
    """Return the error that says that a run is running, and where."""
    where, fix = "", "Wait for its end, or stop it, first."
    with suppress(RecordError):
        known = read(folder)
        where = f": process {known.pid} on {known.host or 'this machine'}"
        if (known.pid, known.host) == (os.getpid(), socket.gethostname()):
            fix = "That is this very process: call the run's finish(), or restart the kernel."
    return UserError(f"The run {folder.name} is still running{where}. {fix}")


def plain(value: Any) -> Any:
    """Turn settings and metrics into what strict JSON can hold; what it can't becomes text."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    elif isinstance(value, Enum):
        value = value.value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    elif getattr(value, "ndim", None) == 0:  # a number of NumPy's or torch's
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(each) for each in value), key=str)
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else str(value)


def boot_id() -> str:
    """Return what tells this boot of the kernel, this container and its control group from all others."""
    texts = [socket.gethostname(), *(path.read_text() for path in (_BOOT, system.OWN) if path.exists())]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def crash_reason(home: str, oom_kills: int | None) -> str:
    """Return why a run died, as far as can be seen from here: out of memory, or anything else.

    The kernel counts the processes of a control group that it has killed for memory. Only whoever asks from
    the same container, while that lives, can compare.

    Args:
        home: The `boot_id` that the run wrote down at its start.
        oom_kills: The kernel's count then.
    """
    now = system.oom_kills()
    if home != boot_id() or oom_kills is None or now is None or now <= oom_kills:
        return UNKNOWN
    limit = system.memory_limit()
    return f"out of memory (limit {limit / system.GIB:.1f} GiB)" if limit else "out of memory"


def raise_oom_score(wanted: int = FIRST_TO_GO) -> None:
    """Let the kernel end this process for memory before what watches over it, but JupyterLab sooner still.

    A score that somebody has set higher on purpose stays. With 0 this process, which watches over a run,
    outlives it even if JupyterLab's terminal started it. Any process may raise its own score, and lower it
    again. In a container /proc may be read-only.
    """
    with suppress(OSError, ValueError):
        now = int(SCORE.read_text())
        if now < wanted or now == OF_JUPYTERLAB:
            SCORE.write_text(str(wanted))


def _code_versions(fields: Mapping[str, Any]) -> dict[str, Any]:
    program = fields.get("notebook") or fields.get("script")
    code = Path(program) if program else origin.of_caller()
    return {"git": system.git(code) if code else None, "trainlab_git": system.git(origin.OURS)}


def _process() -> dict[str, Any]:
    known = {"pid": os.getpid(), "host": socket.gethostname()}
    return known | {"oom_kills": system.oom_kills(), "home": boot_id()}
