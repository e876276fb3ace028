"""`trainlab new`: writes a lab into a new folder, or adds the stack to a repository that is there."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from trainlab.errors import UserError, nearest, some, unwritable
from trainlab.lab import stack, wheel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAME = re.compile(
    r"[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?"
)  # of a folder, a project and, with _ for -, a package
RESERVED = {"trainlab", "experiments", "tests", "src", "site", "test"}
SPARE = "first_experiment"  # the small experiment's package where the project's own has its name already


@dataclass(frozen=True)
class Made:
    """How many files were made, which of the user's were kept, and which lines these need."""

    folder: Path
    files: int
    package: str
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
    package = _package(folder.absolute().name)
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UserError(
            f"{folder} exists and is not empty. Choose another name; or add the stack to what is there: "
            f"cd {folder} && trainlab new --here"
        )
    files = _lab(folder.absolute().name, package, examples)
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
    do. What is the lab's (pyproject.toml, README.md, tests and the like) is left out where there is one.

    Raises:
        UserError: Files stand in the way, each of which is named; nothing was changed.
    """
    folder = folder.absolute()
    package = _package(folder.name)
    if (folder / "src" / package).exists():
        package = SPARE
    files = _lab(folder.name, package, examples)
    ours = stack.files(stack.root()).keys() - {".gitignore"}
    there = {name for name in files if os.path.lexists(folder / name)}
    same = {
        name for name in there if (folder / name).is_file() and (folder / name).read_bytes() == files[name]
    }
    blocked = {
        parent.as_posix()
        for name in files
        for parent in Path(name).parents
        if os.path.lexists(folder / parent) and not (folder / parent).is_dir()
    }
    in_the_way = sorted((there & ours) - same | blocked)
    if in_the_way:
        raise UserError(
            f"These stand in the way in {folder}: {some(in_the_way, 20)}. Nothing was changed. Move or "
            "rename them, or make a lab beside this one: trainlab new NAME"
        )
    written: list[Path] = []
    try:
        for name, body in files.items():
            if name not in there:
                written.append(folder / name)
                _write(folder / name, body)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise UserError(f"{unwritable(folder, error)} Nothing was added.") from error
    kept = sorted(there - same)
    return Made(folder, len(written), package, kept, _missing_lines(folder, files, kept))


def _lab(name: str, package: str, examples: Iterable[str]) -> dict[str, bytes]:
    """Return a lab's files: the stack, trainlab's wheel, the template under the lab's name, and examples."""
    root = stack.root()
    known = stack.examples(root)
    chosen: dict[str, Path] = {}
    for each in examples:
        if each not in known:
            raise UserError(
                f"No example is called {each!r}; there are: {', '.join(known)}.{nearest(each, known)}"
            )
        chosen |= known[each]
    files = {path: file.read_bytes() for path, file in (stack.files(root) | chosen).items()}
    for file in sorted(stack.TEMPLATE.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            path = file.relative_to(stack.TEMPLATE).as_posix().replace("my_lab", package)
            files[path] = file.read_text().replace("my-lab", name).replace("my_lab", package).encode()
    named, body = wheel.content()
    return dict(sorted((files | {f"{wheel.FOLDER}/{named}": body}).items()))


def _package(name: str) -> str:
    package = name.replace("-", "_").lower()
    taken = package in RESERVED | set(sys.stdlib_module_names) or keyword.iskeyword(package)
    if not NAME.fullmatch(name) or taken:
        why = "is the name of a package of Python or of the stack" if taken else "can't be a package's name"
        raise UserError(f"{name!r} {why}. Choose letters, digits, - and _, beginning with a letter: my-lab")
    return package


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(body)
    path.chmod(0o755 if body.startswith(b"#!") else 0o644)


def _missing_lines(folder: Path, files: Mapping[str, bytes], kept: list[str]) -> dict[str, str]:
    """Return what kept files need for the stack: what git has to ignore, and the table of pyproject.toml."""
    add = {}
    if ".gitignore" in kept:
        there = set((folder / ".gitignore").read_text(errors="replace").splitlines())
        lacking = [line for line in files[".gitignore"].decode().splitlines() if line and line not in there]
        if lacking:
            add[".gitignore"] = "\n".join(lacking)
    if "pyproject.toml" in kept and "[tool.trainlab]" not in (folder / "pyproject.toml").read_text(
        errors="replace"
    ):
        table = re.search(r"^\[tool\.trainlab\]\n(?:.+\n)+", files["pyproject.toml"].decode(), re.MULTILINE)
        add["pyproject.toml"] = table[0].rstrip() if table else ""
    return add
