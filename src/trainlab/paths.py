"""Where things lie: one project folder, and in it `logs/`, `data/`, `models/` and `notebooks/`.

A project of one's own can name them in its pyproject.toml, relative to that file:

    [tool.trainlab]
    logs = "runs"
"""

from __future__ import annotations

import functools
import os
import shutil
import stat
import sys
import sysconfig
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainlab.errors import UserError, nearest

PROJECT = "pyproject.toml"
TABLE = "tool.trainlab"
FOLDERS = ("logs", "data", "models", "notebooks")
KEYS = (*FOLDERS, "demo", "look")  # the last two: what `make demo` runs, what to look at then
LARGEST = 1 << 20  # bytes of a pyproject.toml that is read


def root() -> Path:
    """Return the project folder.

    It is TRAINLAB_ROOT, or else the nearest folder upwards whose pyproject.toml has a table [tool.trainlab],
    the checkout that this package lies in, or the working folder. Raises UserError for a broken table.
    """
    if told := os.environ.get("TRAINLAB_ROOT"):
        return Path(told)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if _table(folder) is not None:
            return folder
    return checkout() or here


def checkout() -> Path | None:
    """Return the repository that this package lies in, None where it is installed from a wheel."""
    package = Path(__file__).parent
    return package.parents[1] if package.parent.name == "src" else None


def logs() -> Path:
    """Return the folder of all runs, the one that TensorBoard serves."""
    return _place("logs")


def data() -> Path:
    """Return the folder of data sets and of the hub cache."""
    return _place("data")


def models() -> Path:
    """Return the folder of exported models."""
    return _place("models")


def notebooks() -> Path:
    """Return the folder of the notebooks that `trainlab run NAME` looks in."""
    return _place("notebooks")


def _place(name: str) -> Path:
    """Return a folder: the environment's, or else the one that the project names, or that of this name."""
    if told := os.environ.get(f"TRAINLAB_{name.upper()}"):
        return Path(told)
    project = root()
    named = (_table(project) or {}).get(name, name)
    return project / os.path.expanduser(named)  # noqa: PTH111 - it takes a user that is not there for a name


def _table(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's pyproject.toml says of trainlab, None where it says nothing.

    A file that somebody else has put into a folder for everybody's files, such as /tmp, says nothing: runs
    of /tmp/mine would land where that one chooses. Nor does a pipe, which would never end.
    """
    path = folder / PROJECT
    try:
        state, around = path.stat(), folder.stat()
    except OSError:
        return None
    for_everybody = around.st_mode & stat.S_IWOTH and around.st_mode & stat.S_ISVTX
    stranger = state.st_uid not in (os.getuid(), 0)
    if (stranger and for_everybody) or not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST:
        return None
    return _read_table(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=64)
def _read_table(path: Path, modified: int, size: int) -> dict[str, Any] | None:  # noqa: ARG001 - for the cache
    """Return a file's table [tool.trainlab]; raise UserError where it can't be one."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        return None
    if "trainlab" not in text:
        return None
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        if TABLE not in text:  # of somebody who does not use trainlab here
            return None
        raise UserError(f"{path} can't be read as TOML: {error}. Correct it there.") from None
    tools = found.get("tool")
    table = tools.get("trainlab") if isinstance(tools, dict) else None
    if table is None:
        return None
    if not isinstance(table, dict):
        raise UserError(f"{path}: tool.trainlab is {table!r}, expected a table [{TABLE}].")
    for name in table.keys() - KEYS:
        raise UserError(
            f"{path}: [{TABLE}] has no key {name!r}.{nearest(name, KEYS)} Known: {', '.join(KEYS)}."
        )
    for name in FOLDERS:
        place = table.get(name, name)
        if not isinstance(place, str) or not place.strip() or "\0" in place:
            raise UserError(
                f"{path}: {name} = {table[name]!r} under [{TABLE}], expected a folder, "
                f'as in {name} = "{name}".'
            )
    return table


def not_of_python(logs: Path) -> None:
    """Raise UserError where runs would land among Python's own files, as from a shell in site-packages."""
    places = {name: Path(place) for name, place in sysconfig.get_paths().items() if name != "data"}
    if sys.prefix != sys.base_prefix:  # of a system's Python it is /usr, which people have projects in
        places["prefix"] = Path(sys.prefix)
    target = logs.resolve()
    inside = next((place for place in places.values() if target.is_relative_to(place.resolve())), None)
    if inside is not None:
        raise UserError(
            f"Runs would land in {target}, inside Python's own folder {inside}. Start in your project's "
            "folder, or name one: TRAINLAB_LOGS=/path/to/logs"
        )


def in_stack_container() -> bool:
    """Say whether this process runs in one of the stack's containers, and not in one that hosts an engine."""
    marked = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    return marked and not shutil.which("docker")


def not_seen_here(paths: Iterable[str]) -> str:
    """Return, in a container of the stack, what to do about paths of the host; '' where all can be seen."""
    outside = (path for path in paths if path.startswith(("/", "~", "..")))
    lost = next((path for path in outside if not Path(path).exists()), None)
    if lost is None or not in_stack_container():
        return ""
    name = Path(lost).name
    place = notebooks() if name.endswith(".ipynb") else data()
    return (
        f" The container sees the project's folder alone, as {root()}, and not the machine's {lost}: copy it "
        f"into the project's {place.name}/ and name it {place / name}."
    )
