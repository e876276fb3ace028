"""`trainlab update`: brings a lab's stack to the installed version, and keeps what the user changed.

The lab's wheel of trainlab carries the files as they were when the lab was made or last updated: with them as
the common ancestor, git merges what the user and trainlab changed.
"""

from __future__ import annotations

import difflib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.version import Version

from trainlab import files
from trainlab.errors import UserError, some
from trainlab.lab import stack, wheel


@dataclass
class Update:
    """What an update would do: `write` (None: delete), the files left alone, and why."""

    folder: Path
    old: Path  # the lab's wheel
    wheel: tuple[str, bytes]
    before: dict[str, bytes] = field(default_factory=dict)
    write: dict[str, bytes | None] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def nothing(self) -> bool:
        """Tell whether the lab is at the installed version already."""
        return not self.write and self.old.read_bytes() == self.wheel[1]

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
        """Write the files, then the wheel, and take the old wheel away: broken off, it can be done again."""
        for name, body in self.write.items():
            path = self.folder / name
            if body is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, body)
            path.chmod(0o755 if body.startswith(b"#!") else 0o644)
        files.write(self.old.with_name(self.wheel[0]), self.wheel[1])
        if self.old.name != self.wheel[0]:
            self.old.unlink()


def plan(folder: Path) -> Update:
    """Compare a lab with the installed version; nothing is written.

    Raises:
        UserError: The folder is no lab, or its trainlab is newer than the installed one.
    """
    wheels = sorted((folder / wheel.FOLDER).glob("trainlab-*.whl"))
    if len(wheels) != 1:
        found = (
            f"{len(wheels)} wheels of trainlab: {some([each.name for each in wheels])}" if wheels else "none"
        )
        raise UserError(
            f"{folder.absolute()} is no lab: {wheel.FOLDER}/ should hold one wheel of trainlab, and holds "
            f"{found}. Go into a folder that `trainlab new` made."
        )
    update = Update(folder, wheels[0], wheel.content())
    there, installed = (Version(name.split("-")[1]) for name in (wheels[0].name, update.wheel[0]))
    if there > installed:
        raise UserError(
            f"This lab has trainlab {there}, and {installed} is installed here. Nothing was changed. Install "
            "the newer one first: pip install --upgrade trainlab"
        )
    ancestor = wheel.stack_of(wheels[0])
    ours = {name: path.read_bytes() for name, path in stack.files(stack.root()).items()}
    for name in sorted(ancestor.keys() | ours.keys()):
        path = folder / name
        mine = path.read_bytes() if path.is_file() else None
        old, new = ancestor.get(name), ours.get(name)
        if mine is not None:
            update.before[name] = mine
        if new in (mine, old):
            continue
        if mine == old:
            update.write[name] = new
        elif mine is None:
            update.kept[name] = "you deleted it"
        elif old is None or new is None:
            update.kept[name] = (
                "trainlab has a new file of this name" if old is None else "trainlab has it no longer"
            )
        else:
            merged = _merge(mine, old, new)
            if merged is None:
                update.kept[name] = "you and trainlab changed the same lines"
                update.write[f"{name}.new"] = new
            else:
                update.write[name] = merged
    return update


def _merge(mine: bytes, old: bytes, new: bytes) -> bytes | None:
    """Return both changes in one, by `git merge-file`; None where they meet, or where there is no git."""
    with TemporaryDirectory() as place:
        names = []
        for name, body in (("mine", mine), ("old", old), ("new", new)):
            Path(place, name).write_bytes(body)
            names.append(name)
        try:
            done = subprocess.run(
                ["git", "merge-file", "--stdout", *names], cwd=place, capture_output=True, check=False
            )
        except FileNotFoundError:
            return None
    return done.stdout if done.returncode == 0 else None
