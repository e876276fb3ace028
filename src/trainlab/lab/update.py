"""`trainlab update`: brings a lab's stack to the installed version, and keeps what the user changed.

The lab's wheel of trainlab carries the files as they were when the lab was made or last updated: with them as
the common ancestor, git merges what the user and trainlab changed.
"""

from __future__ import annotations

import difflib
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.version import InvalidVersion, Version

from trainlab import files
from trainlab.errors import UserError, some, unwritable
from trainlab.lab import stack, wheel


@dataclass
class Update:
    """What an update would do to a lab's files, by their paths below its folder."""

    folder: Path
    old: Path  # the lab's wheel
    wheel: tuple[str, bytes]  # the installed version's: its name, and what is in it
    before: dict[str, bytes] = field(default_factory=dict)  # what is in the files now
    write: dict[str, bytes | None] = field(default_factory=dict)  # what will be; None: the file is deleted
    kept: dict[str, str] = field(default_factory=dict)  # what is left alone, and why

    @property
    def nothing(self) -> bool:
        """Tell whether the lab is at the installed version already."""
        return not self.write and (self.old.name, self.old.read_bytes()) == self.wheel

    def diff(self) -> str:
        """Return all changes of text files as one unified diff."""
        parts = []
        for name, body in self.write.items():
            old = self.before.get(name, b"").decode(errors="replace").splitlines(keepends=True)
            new = (body or b"").decode(errors="replace").splitlines(keepends=True)
            of, to = (
                f"a/{name}" if name in self.before else "/dev/null",
                "/dev/null" if body is None else f"b/{name}",
            )
            parts += [
                line if line.endswith("\n") else f"{line}\n"
                for line in difflib.unified_diff(old, new, of, to)
            ]
        return "".join(parts)

    def apply(self) -> None:
        """Write the files, then the wheel, and take the old wheel away: broken off, it can be done again.

        Raises:
            UserError: A file is another one than when it was shown, or can't be written.
        """
        try:
            changed = [name for name in self.write if _content(self.folder / name) != self.before.get(name)]
            if changed:
                raise UserError(
                    f"Changed since it was shown: {some(changed)}. Nothing was written; look at the changes "
                    "again: trainlab update"
                )
            for name, body in self.write.items():
                path = self.folder / name
                if body is None:
                    path.unlink()
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                files.write(path, body)
                path.chmod(stack.mode(body))
            files.write(self.old.with_name(self.wheel[0]), self.wheel[1])
            if self.old.name != self.wheel[0]:
                self.old.unlink()
        except OSError as error:
            said = unwritable(self.folder, error)
            raise UserError(f"{said} Then `trainlab update` does what is left to do.") from error


def plan(folder: Path) -> Update:
    """Compare a lab with the installed version; nothing is written.

    Raises:
        UserError: The folder is no lab, its trainlab is newer than the installed one, a file can't be read,
            or what an earlier update left to merge would be overwritten.
    """
    installed = wheel.content()
    update = Update(folder, _wheel_of(folder, installed[0]), installed)
    ancestor = wheel.stack_of(update.old)
    ours = {name: path.read_bytes() for name, path in stack.files(stack.root()).items()}
    for name in sorted(ancestor.keys() | ours.keys()):
        try:
            _compare(update, name, ancestor.get(name), ours.get(name))
        except OSError as error:
            raise UserError(
                f"{folder / name} can't be read ({error.strerror}). Nothing was changed."
            ) from error
    return update


def _wheel_of(folder: Path, installed: str) -> Path:
    """Return a lab's wheel, which is not newer than the installed one of this name."""
    wheels = sorted((folder / wheel.FOLDER).glob("trainlab-*.whl"))
    if len(wheels) == 2:  # of an update that was broken off before it took the old one away
        wheels = [each for each in wheels if each.name != installed]
    if len(wheels) != 1:
        found = (
            f"{len(wheels)} wheels of trainlab: {some([each.name for each in wheels])}" if wheels else "none"
        )
        raise UserError(
            f"{folder.absolute()} is no lab: {wheel.FOLDER}/ should hold one wheel of trainlab, and holds "
            f"{found}. Go into a folder that `trainlab new` made."
        )
    if place := stack.barrier(folder, f"{wheel.FOLDER}/{wheels[0].name}"):
        raise UserError(f"{place} is a link, and `trainlab update` writes through none. Nothing was changed.")
    try:
        there, here = (Version(name.split("-")[1]) for name in (wheels[0].name, installed))
    except InvalidVersion as error:
        raise UserError(f"{wheels[0]} is no name of a wheel: {error}.") from None
    if there > here:
        raise UserError(
            f"This lab has trainlab {there}, and {here} is installed here. Nothing was changed. Install "
            "the newer one first: pip install --upgrade trainlab"
        )
    return wheels[0]


def _compare(update: Update, name: str, old: bytes | None, new: bytes | None) -> None:
    """Say what becomes of one file of the stack; `old` is what it was when the lab was last up to date."""
    path = update.folder / name
    if old == new:
        return
    if place := stack.barrier(update.folder, name):
        update.kept[name] = f"{place} is a link, or no folder"
        return
    if path.is_symlink() or (path.exists() and not path.is_file()):
        update.kept[name] = "yours is a link, or no file"
        return
    mine = _content(path)
    if mine is not None:
        update.before[name] = mine
        # as git for Windows writes texts, which is no change
        if mine.count(b"\r\n") == mine.count(b"\n") > 0:
            old, new = (each and each.replace(b"\n", b"\r\n") for each in (old, new))
    if new == mine:
        return
    if mine == old:
        update.write[name] = new
    elif mine is None:
        update.kept[name] = "you deleted it"
    elif old is None or new is None:
        update.kept[name] = (
            "trainlab has a new file of this name" if old is None else "trainlab has it no longer"
        )
    else:
        try:
            update.write[name] = _merge(mine, old, new)
        except _UnmergedError as why:
            update.kept[name] = str(why)
            _lay_beside(update, f"{name}.new", new)


def _lay_beside(update: Update, name: str, new: bytes) -> None:
    """Have trainlab's file written beside the user's, unless it is there already."""
    there = _content(update.folder / name)
    if there is None and not os.path.lexists(update.folder / name):
        update.write[name] = new
    elif there != new:
        raise UserError(
            f"{name} is there already, as an earlier update leaves it. Nothing was changed. Merge it into "
            "yours and delete it, or rename it; then: trainlab update"
        )


def _content(path: Path) -> bytes | None:
    """Return what is in a file; None where there is none."""
    return path.read_bytes() if path.is_file() else None


class _UnmergedError(Exception):
    """Says why two changes are not merged."""


def _merge(mine: bytes, old: bytes, new: bytes) -> bytes:
    """Return both changes in one, by `git merge-file`; raise _UnmergedError where it can't be done."""
    with TemporaryDirectory() as place:
        names = []
        for name, body in (("mine", mine), ("old", old), ("new", new)):
            Path(place, name).write_bytes(body)
            names.append(name)
        try:
            done = subprocess.run(
                ["git", "merge-file", "--stdout", *names], cwd=place, capture_output=True, check=False
            )
        except OSError:
            raise _UnmergedError(
                "you and trainlab changed it, and there is no git here to merge that"
            ) from None
    if done.returncode:
        raise _UnmergedError("you and trainlab changed the same lines")
    return done.stdout
