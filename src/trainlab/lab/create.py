"""`trainlab new`: writes a lab into a new folder, or adds the stack to a repository that is there."""

from __future__ import annotations

import keyword
import os
import re
import secrets
import shlex
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from trainlab.errors import UserError, nearest, some, unwritable
from trainlab.lab import stack, wheel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Of a folder, a project and, with _ for -, a package
NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9])?")
RESERVED = {"trainlab", "experiments", "tests", "src", "site", "test"}
# Of the stack as well, which the lock files call otherwise, or which TORCH_EXTRAS brings
IMPORTED_AS = {"ipython", "pil", "sklearn", "torchaudio", "torchvision", "yaml"}
LISTS = {".gitignore", ".gitattributes"}  # of git's, which can be completed by hand
FILLED = ("data", "logs", "models")  # folders of a lab that git is to ignore, but for what trainlab brings
SPARE = "first_experiment"  # the small experiment's package where the project's own has its name already


@dataclass(frozen=True)
class Made:
    """How many files were made, which of the user's were kept, and which lines these need."""

    folder: Path
    files: int
    package: str  # the small experiment's; "" where the folder was a lab already
    kept: list[str] = field(default_factory=list)
    add: dict[str, str] = field(default_factory=dict)  # a file's name and the lines that it lacks


def new(folder: Path, examples: Iterable[str] = ()) -> Made:
    """Make a lab in a new folder.

    Args:
        folder: It must not exist yet, or be empty. Its last name is the lab's.
        examples: Names of examples to bring along, such as "news".

    Raises:
        UserError: The name can't be a package's, the folder has something in it, or can't be written.
    """
    name = folder.absolute().name
    if why := _why_not(name):
        raise UserError(
            f"{name!r} {why}. Choose letters, digits, - and _, 100 at most, beginning with a letter: my-lab"
        )
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise UserError(f"{folder} exists and is no folder. Choose another name.")
    with suppress(OSError):  # of a folder that can't be read or written, which is said below
        if any(folder.iterdir()):
            raise UserError(
                f"{folder} exists and is not empty. Choose another name; or add the stack to what is there: "
                f"cd {shlex.quote(str(folder))} && trainlab new --here"
            )
    package = _package_name(name)
    files = _stack(examples) | _template(name, package)
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        beside = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.absolute().parent))
        try:
            beside.chmod(0o755)
            for name, body in files.items():
                _write(beside / name, body)
            beside.rename(folder.absolute())  # whole or not at all; an empty folder gives way
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(unwritable(folder, error)) from error
    return Made(folder, len(files), package)


def add_here(folder: Path, examples: Iterable[str] = ()) -> Made:
    """Add the stack to a repository; what is there stays as it is, byte for byte.

    The names of the stack's own files must be free, since another Makefile or docker-compose.yml would not
    do. What is the lab's (pyproject.toml, README.md, tests and the like) is left out where there is one. In
    a lab, what is missing of the stack is added, and the examples. Nothing is written through a link.

    Raises:
        UserError: Files stand in the way, each of which is named; nothing was changed.
    """
    folder = folder.absolute()
    if (folder / "src/trainlab/lab/stack.txt").exists():
        raise UserError(
            f"{folder} is trainlab's own repository, which has the stack. Make a lab elsewhere: trainlab new "
            "../my-lab"
        )
    name, package = folder.name, _package_name(folder.name)
    if _why_not(name) or os.path.lexists(folder / "src" / package):
        name, package = SPARE.replace("_", "-"), SPARE
    needed = _stack(examples)
    (carried,) = (each for each in needed if each.endswith(".whl"))
    wheels = sorted((folder / wheel.FOLDER).glob("trainlab-*.whl"))
    if any(each.name != Path(carried).name or not _holds(each, needed[carried]) for each in wheels):
        raise UserError(
            f"{folder} is a lab already, with the stack of another trainlab. Nothing was changed. First "
            "bring it to this one: trainlab update"
        )
    files = dict(sorted((needed if wheels else needed | _template(name, package)).items()))
    tracked = [] if wheels else [each for each in FILLED if _has_others(folder / each, each, files)]
    files = _without_ignoring(tracked, files)
    there = {each for each in files if os.path.lexists(folder / each)}
    same = {each for each in there if _holds(folder / each, files[each])}
    # files whose folder is none, or leads elsewhere, and what is there in its place
    in_folders = {each: place for each in files if (place := stack.barrier(folder, each))}
    # git's lists can be completed by hand, all else of the stack has to be ours
    must = {each for each in stack.files(stack.root()) if Path(each).name not in LISTS} | {carried}
    in_the_way = {in_folders.get(each, each) for each in must & in_folders.keys()}
    in_the_way |= {place for place in in_folders.values() if not (folder / place).is_dir()}
    if not wheels:  # in a lab, what differs are the user's changes
        in_the_way |= (there & must) - same - in_folders.keys()
    if in_the_way:
        raise UserError(
            f"These stand in the way in {folder}: {some(sorted(in_the_way), 20)}. Nothing was changed. Move "
            "or rename them, or make a lab beside this one: trainlab new NAME"
        )
    kept = sorted((there - same) | in_folders.keys() | {f"{each}/" for each in tracked})
    add = _missing_lines(folder, files, sorted(there - same - in_folders.keys()))
    count = _add(folder, {each: files[each] for each in files.keys() - there - in_folders.keys()})
    return Made(folder, count, "" if wheels else package, kept, add)


def _has_others(place: Path, name: str, files: Iterable[str]) -> bool:
    """Tell whether a folder of the project has anything in it that trainlab does not bring."""
    ours = {each.split("/")[1] for each in files if each.startswith(f"{name}/")}
    try:
        return any(each.name not in ours for each in place.iterdir())
    except OSError:
        return False


def _without_ignoring(folders: Iterable[str], files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return files of which none lets git ignore some folders: what is in them is the project's own."""
    left = {
        name: body for name, body in files.items() if name not in {f"{each}/.gitignore" for each in folders}
    }
    kept = left[".gitignore"].decode().splitlines(keepends=True)
    for each in folders:
        kept = [line for line in kept if not re.match(rf"!?/{each}/", line)]
    return left | {".gitignore": "".join(kept).encode()}


def _add(folder: Path, files: Mapping[str, bytes]) -> int:
    """Write files that are not there yet, all or none of them; return how many."""
    parents = {folder / parent for name in files for parent in Path(name).parents}
    made = [parent for parent in parents if not parent.exists()]
    written: list[Path] = []
    try:
        for name, body in files.items():
            _write(folder / name, body)
            written.append(folder / name)
    except BaseException as error:
        for path in written:
            with suppress(OSError):
                path.unlink()
        for path in sorted(made, reverse=True):
            with suppress(OSError):
                path.rmdir()
        if isinstance(error, OSError):
            raise UserError(f"{unwritable(folder, error)} Nothing was added.") from error
        raise
    return len(written)


def _stack(examples: Iterable[str]) -> dict[str, bytes]:
    """Return what trainlab brings into a lab: the stack, trainlab's wheel, and examples."""
    root = stack.root()
    known = stack.examples(root)
    chosen: dict[str, Path] = {}
    for each in examples:
        if each not in known:
            raise UserError(
                f"No example is called {each!r}; there are: {', '.join(known)}.{nearest(each, known)}"
            )
        chosen |= known[each]
    named, body = wheel.content()
    files = {path: file.read_bytes() for path, file in (stack.files(root) | chosen).items()}
    return files | {f"{wheel.FOLDER}/{named}": body}


def _template(name: str, package: str) -> dict[str, bytes]:
    """Return what is a lab's own from the start, under its name."""
    files = {}
    for file in stack.TEMPLATE.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            path = file.relative_to(stack.TEMPLATE).as_posix().replace("my_lab", package)
            files[path] = file.read_text().replace("my-lab", name).replace("my_lab", package).encode()
    return files


def _package_name(name: str) -> str:
    return name.replace("-", "_").lower()


def _why_not(name: str) -> str | None:
    """Return why a lab can't have this name; None where it can."""
    package = _package_name(name)
    if package in RESERVED | set(sys.stdlib_module_names) | _installed() or keyword.iskeyword(package):
        return "is the name of a package of Python or of the stack, and one would hide the other"
    return None if NAME.fullmatch(name) else "can't be a package's name"


def _installed() -> set[str]:
    """Return what the packages of the stack's lock files are imported as, as far as the names tell."""
    locks = [path for name, path in stack.files(stack.root()).items() if name.endswith(".lock")]
    named = {each for path in locks for each in re.findall(r"^([\w.-]+)==", path.read_text(), re.MULTILINE)}
    return {_package_name(each) for each in named} | IMPORTED_AS


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        try:
            file.write(body)
            file.flush()
            path.chmod(stack.mode(body))
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _holds(path: Path, body: bytes) -> bool:
    """Tell whether a file has just these bytes."""
    try:
        return path.is_file() and path.read_bytes() == body
    except OSError:
        return False


def _missing_lines(folder: Path, files: Mapping[str, bytes], kept: list[str]) -> dict[str, str]:
    """Return what the user's files need for the stack: lines of git's lists, our table, user and token."""
    add = {}
    for name in kept:
        if Path(name).name in LISTS:
            there = set(_text(folder / name).splitlines())
            lines = [line for line in files[name].decode().splitlines() if line and not line.startswith("#")]
            if lacking := [line for line in lines if line not in there]:
                add[name] = "\n".join(lacking)
    if "pyproject.toml" in kept and "[tool.trainlab]" not in _text(folder / "pyproject.toml"):
        table = re.search(r"^\[tool\.trainlab\]\n(?:.+\n)+", files["pyproject.toml"].decode(), re.MULTILINE)
        add["pyproject.toml"] = table[0].rstrip() if table else ""
    if os.path.lexists(folder / ".env"):  # of another tool: `make up` would have written one with these
        known = {"JUPYTER_TOKEN": secrets.token_hex(24)}
        if user := os.getuid():
            known |= {"TRAINLAB_UID": str(user), "TRAINLAB_GID": str(os.getgid())}
        there = set(re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", _text(folder / ".env"), re.MULTILINE))
        if known.keys() - there:
            add[".env"] = "\n".join(f"{name}={value}" for name, value in known.items() if name not in there)
    return add


def _text(path: Path) -> str:
    """Return a file's text; none where it can't be read."""
    try:
        return path.read_text(errors="replace") if path.is_file() else ""
    except OSError:
        return ""
