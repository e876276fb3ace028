"""The sweep as it was ordered: `logs/.sweeps/NAME/sweep.json`, and a copy of its program beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from trainlab import files, paths, untrusted
from trainlab.errors import UserError, nearest, unwritable
from trainlab.run import find, lock, naming, record
from trainlab.sweeps import database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SWEEPS = ".sweeps"  # under logs/
FILE = "sweep.json"
OUTPUT = "output.log"  # of a detached sweep, in its folder
LEADER = ".leader.lock"  # in a sweep's folder: held by the process that leads it
LARGEST = 1 << 20  # bytes of a sweep.json
LONGEST_NAME = 40  # characters: `NAME-0007-s1` still names a run
MOST_TRIALS = 100_000

Trials = Annotated[int, Field(strict=True, gt=0, le=MOST_TRIALS)]


class Definition(BaseModel):
    """What `trainlab sweep` was told: the program, what varies, the goal and how to search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    program: str  # an absolute path, or a module's name
    module: bool = False
    arguments: list[str] = Field(default_factory=list)
    working_folder: str = ""  # where it was ordered: runs begin there, and a module is found from there
    goal: str
    mode: Literal["min", "max"]
    method: Literal["grid", "tpe", "random"]
    trials: Trials
    seeds: Annotated[int, Field(strict=True, gt=0, le=1000)] = 1
    seed: Annotated[int, Field(strict=True, ge=0, lt=1 << 32)] = 0
    prune: Literal["none", "median", "hyperband", "patience"] = "none"
    fixed: dict[str, str] = Field(default_factory=dict)
    space: dict[str, Any]  # as `space.to_table` writes it
    at: str | None = None  # HOST[:PORT] or a PostgreSQL address, without its password; None: SQLite
    code: str = ""  # digest of the program, taken by `create`

    @field_validator("name")
    @classmethod
    def _name_of_a_folder(cls, name: str) -> str:
        if not name or naming.slug(name) != name or len(name) > LONGEST_NAME:
            hint = naming.slug(name)[:LONGEST_NAME].rstrip(".-")
            raise ValueError(
                f"{name!r} can't name a sweep. Expected up to {LONGEST_NAME} letters, digits, '-', '_' and "
                f"'.'" + (f", such as {hint!r}." if hint else ", such as 'margins'.")
            )
        return name

    @field_validator("at")
    @classmethod
    def _no_password(cls, at: str | None) -> str | None:
        if at is not None and (":" in at.rpartition("@")[0].partition("://")[2] or "password" in at.lower()):
            raise ValueError(
                "the address holds a password, which everybody could read here. Leave it out of the "
                "address, and put it into the environment: TRAINLAB_HEAD_PASSWORD"
            )
        return at


def folder(name: str, logs: str | Path | None = None) -> Path:
    """Return a sweep's folder, `logs/.sweeps/NAME`, whether it is there or not.

    Raises:
        UserError: The name can't be a folder's.
    """
    try:
        Definition._name_of_a_folder(name)
    except ValueError as error:
        raise UserError(str(error)) from None
    return (Path(logs).expanduser() if logs else paths.logs()) / SWEEPS / name


def create(definition: Definition, logs: str | Path | None = None) -> Path:
    """Make a sweep's folder, with its definition and a copy of its program, and return it.

    It appears whole or not at all.

    Raises:
        UserError: There is one of that name, or there are runs of one; the program can't be read; the disk
            refuses, or its kind has no locks that SQLite could trust.
    """
    target = folder(definition.name, logs)
    paths.not_of_python(target.parent.parent)
    program = program_file(definition)
    if definition.at is None:
        database.check_place(target)
    if target.exists():
        raise UserError(_there_is_one(definition.name))
    if has_runs(definition.name, logs):
        raise UserError(
            f"{target.parent.parent} holds runs of a sweep {definition.name!r} whose own folder is gone, and "
            "the new ones would be mixed up with them. Choose another --name. To have the old one back, put "
            f"{target} where it was, from a backup, then trainlab sweep rebuild {definition.name}"
        )
    temporary = target.with_name(f".{uuid.uuid4().hex[:8]}.tmp")
    known = definition.model_copy(update={"code": digest(program)})
    try:
        temporary.mkdir(parents=True)
        shutil.copyfile(program, temporary / program.name)
        _write(temporary, known)
        temporary.rename(target)
    except OSError as error:
        if target.exists():  # somebody else was faster
            raise UserError(_there_is_one(definition.name)) from None
        raise UserError(unwritable(target, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def led(name: str, logs: str | Path | None = None) -> lock.Lock | None:
    """Take the lock of whoever leads a sweep, None where somebody has it.

    Raises:
        UserError: The disk refuses, as a read-only one does.
    """
    place = folder(name, logs)
    try:
        return lock.hold(place, LEADER)
    except OSError as error:
        raise UserError(unwritable(place, error)) from error


def has_runs(name: str, logs: str | Path | None = None) -> bool:
    """Tell whether a sweep of that name has runs, whether it is there itself or not."""
    place = Path(logs).expanduser() if logs else paths.logs()
    for run, reason in find.run_folders(place) if place.is_dir() else ():
        if reason is None and f"-{name}-" in run.name:
            with contextlib.suppress(record.RecordError):
                known = record.read(run).sweep
                if known is not None and known.name == name:
                    return True
    return False


def load(name: str, logs: str | Path | None = None) -> Definition:
    """Return a sweep's definition, read as if an enemy had written it.

    Raises:
        UserError: There is no such sweep, or its file is damaged.
    """
    place = folder(name, logs)
    path = place / FILE
    if not place.exists():
        known = [each.name for each in place.parent.glob("[!.]*")] if place.parent.is_dir() else []
        raise UserError(
            f"No sweep {name!r} in {place.parent}.{nearest(name, known)} All: trainlab sweep list"
        )
    try:
        found = Definition.model_validate(untrusted.parsed(untrusted.content(path, LARGEST)))
    except ValidationError as error:
        first = error.errors()[0]
        place_in = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{path}: {place_in}: {first['msg']}. {_DAMAGED}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. {_DAMAGED}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}). {_DAMAGED}") from None
    if found.name != name:
        raise UserError(f"{path} is that of the sweep {found.name!r}. {_DAMAGED}")
    return found


def extend(name: str, more: int, logs: str | Path | None = None) -> Definition:
    """Write that a sweep is to have `more` trials than before, and return its definition."""
    known = load(name, logs)
    wanted = known.trials + more
    if more < 1 or wanted > MOST_TRIALS:
        raise UserError(
            f"{more:+} trials: the sweep {name} has {known.trials:,}, and can have up to {MOST_TRIALS:,}. "
            f"Expected a number above 0, as in --trials +20."
        )
    extended = known.model_copy(update={"trials": wanted})
    try:
        _write(folder(name, logs), extended)
    except OSError as error:
        raise UserError(unwritable(folder(name, logs), error)) from error
    return extended


def program_file(definition: Definition) -> Path:
    """Return the file of a sweep's program, whose copy lies in the sweep's folder under the same name.

    Raises:
        UserError: It is not there.
    """
    if definition.module:
        from trainlab.headless.finding import find_module

        with working_in(definition.working_folder):
            return find_module(definition.program)
    path = Path(definition.program)
    if not path.is_file():
        raise UserError(f"The sweep's program {path} is not there, or is no file. Put it back there.")
    return path


@contextlib.contextmanager
def working_in(folder: str) -> Iterator[None]:
    """Work in the folder that a sweep was ordered in; raise UserError where it isn't there."""
    try:
        entered = contextlib.chdir(folder or ".")
        entered.__enter__()
    except OSError as error:
        raise UserError(f"The sweep was made in {folder}: {error.strerror}. Make it again.") from None
    with contextlib.ExitStack() as stack:
        stack.push(entered)
        yield


class Programs:
    """Whether the programs of sweeps are still those of this process's first look at them.

    Trials of two programs can't be compared, and each that began without one would count as failed.

    Args:
        logs: The folder of runs.
        say: Called with a sentence when a program is found changed.

    Attributes: `remarks`, of each sweep whose program has changed, that sentence.
    """

    def __init__(self, logs: Path, say: Callable[[str], None]) -> None:
        self.remarks: dict[str, str] = {}
        self._logs, self._say = logs, say
        self._first: dict[str, str] = {}

    def changed(self, known: Definition) -> bool:
        """Tell whether a sweep's program is gone or another one by now: its trials are to wait."""
        name = known.name
        if name in self.remarks:
            return True
        try:
            with working_in(known.working_folder):
                found = digest(program_file(known))
            why = "has changed" if found != self._first.setdefault(name, found) else ""
        except UserError as error:
            why = f"can't be read ({str(error).rstrip('.')})"
        if why:
            self.remarks[name] = (
                f"The program of the sweep {name} {why} while it ran: the trials that wait are not begun. "
                f"Put it back (a copy is in {folder(name, self._logs)}), then: trainlab sweep --resume {name}"
            )
            self._say(self.remarks[name])
        return bool(why)


def digest(program: Path) -> str:
    """Return what tells a program from a changed one; of a notebook its code alone counts."""
    try:
        content = program.read_bytes()
    except OSError as error:
        raise UserError(f"{program} can't be read: {error.strerror}.") from None
    if program.suffix == ".ipynb":
        try:
            cells = [each for each in json.loads(content)["cells"] if each["cell_type"] == "code"]
            sources = ["".join(each["source"]) for each in cells]
        except (ValueError, LookupError, TypeError):
            raise UserError(f"{program} is no notebook that can be read. Get it again.") from None
        content = json.dumps(sources).encode()
    return hashlib.sha256(content).hexdigest()


def _write(place: Path, definition: Definition) -> None:
    content = json.dumps(definition.model_dump(), indent=2, allow_nan=False)
    files.write(place / FILE, content.encode() + b"\n")


def _there_is_one(name: str) -> str:
    return f"There is a sweep {name!r} already: trainlab sweep --resume {name}, or choose another --name."


_DAMAGED = "The sweep's runs are whole: correct the file, or start a sweep of another name."
