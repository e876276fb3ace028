"""`run.json`: what is known about a run, written atomically and read with suspicion.

Numbers that JSON has no word for are written as the strings "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Mapping
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
from trainlab.run import death, lock
from trainlab.run.metrics import Direction

FILE = "run.json"
LARGEST = 1 << 24  # bytes: a run of some ten thousand metrics
Status = Literal["running", "finished", "failed", "interrupted"]


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
    seconds: FiniteFloat = 0.0  # at work before
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
    data: dict[str, Any] | None = None
    last: dict[str, Point] = Field(default_factory=dict)
    best: dict[str, Point] = Field(default_factory=dict)
    directions: dict[str, Direction] = Field(default_factory=dict)  # by which `best` was chosen
    resumes: list[Resume] = Field(default_factory=list)
    pid: int | None = None
    host: str = ""
    home: str = ""
    oom_kills: int | None = None
    planned: Annotated[Planned | None, WrapValidator(_or_none)] = None
    looks: Annotated[bool | None, WrapValidator(_or_none)] = (
        None  # at data, networks or other runs: nothing was trained that compares
    )
    tags: list[str] = Field(default_factory=list)
    note: str = ""

    def seconds_until(self, moment: float) -> float:
        """Return the time at work: of the sessions before the last one, and of that one until `moment`.

        `moment` is in seconds since 1970. A clock that was set back makes it too short, never negative.
        """
        before, since = (
            (self.resumes[-1].seconds, self.resumes[-1].at) if self.resumes else (0.0, self.started)
        )
        return round(max(self.seconds or 0.0, before + max(0.0, moment - since.timestamp())), 3)


def create(folder: Path, experiment: str, **fields: Any) -> Record:
    """Write the first `run.json` of a run that starts now in this process, and return it.

    Its code is that of the `notebook` or `script` where one is given, and of trainlab's caller elsewhere.
    """
    known = {
        "experiment": experiment,
        "run": folder.name,
        "status": "running",
        "started": _now(),
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
        raise RecordError(f"{path}: {_explain(error)}.") from None
    except ValueError as error:
        raise RecordError(f"{path}: not JSON ({error}).") from None


def write(folder: Path, record: Record) -> Record:
    """Replace a run's record atomically, less what is secret, and return it."""
    content = json.dumps(secrets.hidden(plain(record.model_dump())), indent=2, allow_nan=False)
    files.write(folder / FILE, content.encode() + b"\n")
    return record


def update(folder: Path, **fields: Any) -> Record:
    """Change some fields of a run's record, keeping what others wrote, and return it.

    Raises RecordError when the present record can't be read, pydantic's ValidationError for wrong fields.
    """
    with lock.exclusive(folder):
        present = read(folder)
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
        now = _now()
        began = {
            "at": now,
            "seconds": present.seconds or 0.0,
            **_code_versions(fields),
            "command": system.command(),
        }
        known = {
            "run": folder.name,
            "status": "running",
            "reason": None,
            "ended": None,
            "planned": None,
            "resumes": [*present.resumes, began],
            **_process(),
        }
        return write(folder, changed(present, **known | fields))


def end(folder: Path, status: Status, reason: str | None = None, **fields: Any) -> Record:
    """Write how the run ended, when, and how long it took."""
    with lock.exclusive(folder):
        return write(folder, ended(read(folder), status, reason, **fields))


def changed(record: Record, **fields: Any) -> Record:
    """Return the record with some fields replaced, checked again."""
    return Record.model_validate(record.model_dump() | plain(fields))


def ended(record: Record, status: Status, reason: str | None = None, **fields: Any) -> Record:
    """Return the record of the same run after its end; `seconds` at work by the clock where not given."""
    now = _now()
    known = {
        "status": status,
        "reason": reason,
        "ended": now,
        "seconds": record.seconds_until(now.timestamp()),
    }
    return changed(record, **known | fields)


def plain(value: Any) -> Any:
    """Turn settings and metrics into what strict JSON can hold; what it can't becomes text."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(each) for each in value), key=str)
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _name(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if getattr(value, "ndim", None) == 0:  # a number of NumPy's or torch's
        return _plain_scalar(value.item())
    return str(value)


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _code_versions(fields: Mapping[str, Any]) -> dict[str, Any]:
    program = fields.get("notebook") or fields.get("script")
    return system.code_versions(Path(program) if program else origin.of_caller())


def _process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), **death.marks()}


def _now() -> datetime:
    return datetime.now(UTC)


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}" if place else "not the record of a run"
