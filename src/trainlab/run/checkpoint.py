"""Checkpoints that are whole or not there, and are known to be what was saved.

A SHA-256 lies beside each file, in the format of `sha256sum`: torch loads a flipped byte without a word. In
a folder that the Transformers Trainer writes one file, written last, has those of all others.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import zipfile
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from trainlab import files, untrusted
from trainlab.cleaning import printable
from trainlab.errors import UserError
from trainlab.run import arrays, signals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

FOLDER = "checkpoints"  # in a run's folder
LAST = "last.ckpt"
LARGEST_PICKLE = 1 << 28  # bytes of what isn't tensors: read, it takes many times as much memory
WEIGHTS_ONLY = "weights-only.txt"  # beside them, where what a training needs was left out
STEP = "step-"  # the others that hold all that a training needs: step-00000240.ckpt
SUMS = "SHA256SUMS"  # in a folder such as checkpoint-240
_STATE = re.compile(r"(?:step-(\d+)\.ckpt|checkpoint-(\d+))")


class CheckpointError(UserError):
    """A checkpoint that can't be written, or is missing, damaged, not ours or not safe to load."""


@signals.held()
def save(state: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint: tensors, arrays, numbers, texts and containers of them.

    A state without torch's tensors is written by `arrays`, which needs no torch. Whatever goes wrong, or
    dies, on the way: the checkpoint that was there before can still be loaded. SIGTERM and Ctrl-C wait until
    it is written.

    Raises CheckpointError when the disk refuses, or for an object that `load` would refuse.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as file:
            hashing = _Hashing(file)
            _write(state, path, hashing)
            file.flush()
            with open(file.name, "rb") as written:  # noqa: PTH123
                _refuse_bomb(path, written)
            # Two files can't be renamed in one step. In between, either digest is right.
            _write_digests(path, [hashing.digest(), *_digests(path)])
        _write_digests(path, [hashing.digest()])
    except (OSError, RuntimeError) as error:
        # torch's writer, failing to close, hides a full disk behind an error of its own
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(f"{path} can't be written: {reason}. The one before, if any, is kept.") from (
            None if isinstance(reason, OSError) else error
        )


def _write(state: Mapping[str, Any], path: Path, file: _Hashing) -> None:
    wanted = "Save tensors, numbers, texts, lists and dicts (a module's state_dict(), not the module)."
    try:
        packed = arrays.packed(dict(state))
    except TypeError as error:
        if "torch" not in sys.modules:
            raise CheckpointError(f"{path} is not written: {error}, which can't be saved. {wanted}") from None
    else:
        arrays.write(packed, file)
        return
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint

    torch.save(dict(state), cast("IO[bytes]", file))  # torch writes and flushes, nothing else
    file.flush()
    if unsafe := get_unsafe_globals_in_checkpoint(file.name):
        raise CheckpointError(
            f"{path} is not written: it would hold {', '.join(unsafe)}, which is not safe to load. {wanted}"
        )


def load(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return what was saved, its tensors on `map_location`.

    Raises CheckpointError for a file that is missing, has no SHA-256 beside it or another than that,
    is no checkpoint, or holds objects other than tensors, arrays, numbers, texts and containers of them.
    """
    try:
        with _opened(path) as file:
            _refuse_bomb(path, file)
            file.seek(0)
            if arrays.is_one(file):
                return arrays.read(file)
            file.seek(0)
            import torch

            return torch.load(file, map_location=map_location, weights_only=True)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # RuntimeError, EOFError, UnpicklingError ...: torch has one for each damage
        if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} is not a checkpoint that can be loaded: {reason}") from error


@signals.held()
def seal(folder: Path) -> None:
    """Write the SHA-256 of each file in a folder, now that all are whole: `check` refuses it before that.

    Raises CheckpointError when the disk refuses.
    """
    try:
        lines = (f"{digest}  {name}\n" for name, digest in _sums(folder).items())
        files.write(folder / SUMS, "".join(lines).encode())
    except OSError as error:
        raise CheckpointError(f"{folder / SUMS} can't be written: {error.strerror or error}.") from None


def check(path: Path) -> None:
    """Raise CheckpointError for a file or folder that is missing, or is not what its SHA-256 says."""
    if not path.is_dir():
        _opened(path).close()
        return
    try:
        lines = (path / SUMS).read_text(errors="replace").splitlines()
        expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        found = _sums(path)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: it has no {SUMS}, so its saving was cut off, or nobody knows whether it is whole. "
            f"If you trust it: cd {path} && sha256sum * > {SUMS}"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}.") from None
    damaged = [name for name, digest in expected.items() if found.get(name) != digest]
    if damaged or not expected:
        raise CheckpointError(f"{path} is damaged: {', '.join(damaged) or SUMS} is not what was saved.")


def newest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a run's folder that a training can go on from, if there is one.

    Each damaged one on the way is named in a warning on standard output.
    """
    for path in full_states(folder):
        try:
            check(path)
        except CheckpointError as error:
            print(printable(f"warning: {error} Looking for the one before."), flush=True)
        else:
            return path
    return None


def full_states(folder: Path) -> list[Path]:
    """Return a run's checkpoints that hold all that a training needs, whole or not, the newest first.

    `last.ckpt`, where it is no link, stands behind the `step-*.ckpt` that it is a copy of; behind all, where
    that is gone. The folders of the Transformers Trainer may lie in the run's own folder, too.
    """
    found = [path for place in (folder, folder / FOLDER) if place.is_dir() for path in place.iterdir()]
    steps = [path for path in found if step_of(path) is not None]
    steps.sort(key=lambda path: step_of(path) or 0, reverse=True)
    last = folder / FOLDER / LAST
    if last.is_file() and not any(last.samefile(path) for path in steps):
        copied = (place for place, path in enumerate(steps, 1) if set(_digests(path)) & set(_digests(last)))
        steps.insert(next(copied, len(steps)), last)
    return steps


class State(NamedTuple):
    """A checkpoint of a run as a list shows it; `size` in bytes, of a folder 0."""

    name: str  # its path below the run's folder
    size: int
    digest: str  # the SHA-256 it was saved with, '' where none lies beside it
    path: Path


def listed(folder: Path) -> list[State]:
    """Return a run's checkpoints by name, without reading them; links, pipes and devices are none."""
    found = []
    for top in (folder / FOLDER, folder):
        entries: list[os.DirEntry[str]] = []
        with suppress(OSError), os.scandir(top) as listing:
            entries = sorted(listing, key=lambda each: each.name)
        for each in entries:
            path, whole = top / each.name, each.is_dir(follow_symlinks=False)
            if not (whole and step_of(path) is not None) and not (
                each.name.endswith(".ckpt") and each.is_file(follow_symlinks=False)
            ):
                continue
            digest = f"of each file: {SUMS}" if whole and (path / SUMS).is_file() else ""
            with suppress(OSError):
                words = b"" if whole else untrusted.content(digest_file(path), 1 << 12)
                digest = digest or words.decode(errors="replace").partition(" ")[0].strip()
            size = 0 if whole else each.stat(follow_symlinks=False).st_size
            found.append(State(path.relative_to(folder).as_posix(), size, digest, path))
    return found


def step_of(path: Path) -> int | None:
    """Return the steps made before such a file or folder was written, None for others; by its name."""
    found = _STATE.fullmatch(path.name)
    return int(found[1] or found[2]) if found else None


def is_state(path: Path) -> bool:
    """Tell by its name whether a file is what `full_states` returns, the digest of one, or in one."""
    if FOLDER not in path.parent.parts:
        return False
    top = next(each for each in (path, *path.parents) if each.parent.name == FOLDER)
    name = top.name.removesuffix(".sha256")
    return name == LAST or step_of(top.with_name(name)) is not None


@signals.held()
def alias(path: Path, name: str) -> Path:
    """Give a checkpoint a second name in its folder, in place of whatever has that name, and return it.

    It is a hard link, or a copy where the file system has none. Whatever dies on the way: the name loads,
    as the old checkpoint or as the new one. Raises CheckpointError when the disk refuses.
    """
    target = path.with_name(name)
    digests = _digests(path)
    try:
        _write_digests(target, [*digests, *_digests(target)])
        files.link(path, target)
        _write_digests(target, digests)
    except OSError as error:
        raise CheckpointError(
            f"{target} can't be written: {error}. The one before, if any, is kept."
        ) from None
    return target


def remove(path: Path) -> None:
    """Delete a checkpoint, and then its digest: one without it would look damaged."""
    if path.is_dir():
        shutil.rmtree(path)
        return
    path.unlink(missing_ok=True)
    digest_file(path).unlink(missing_ok=True)


def digest_file(path: Path) -> Path:
    """Return the path of the SHA-256 beside a checkpoint."""
    return path.with_name(f"{path.name}.sha256")


class _Hashing:
    """A file to write to that computes the SHA-256 of what was meant to reach the disk."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.name = file.name
        self._sha256 = hashlib.sha256()
        self.flush = file.flush

    def write(self, content: Any) -> int:
        self._sha256.update(content)
        return self._file.write(content)

    def digest(self) -> str:
        return self._sha256.hexdigest()


def _refuse_bomb(path: Path, file: IO[bytes]) -> None:
    """Raise CheckpointError for a file that would unfold to more than it is; torch's own are zip files."""
    with zipfile.ZipFile(file) as packed:
        entries = packed.infolist()
    unfolded = sum(each.file_size for each in entries)
    if unfolded > file.seek(0, 2) or any(each.compress_type for each in entries):
        raise CheckpointError(
            f"{path} is packed, and would unfold to {unfolded:,} bytes: torch packs nothing. Refused. "
            "Take another checkpoint."
        )
    largest = max(
        (each.file_size for each in entries if each.filename.endswith((".pkl", ".json"))), default=0
    )
    if largest > LARGEST_PICKLE:
        raise CheckpointError(
            f"{path} holds {largest:,} bytes besides tensors, expected {LARGEST_PICKLE:,} at most. Refused."
        )


def _sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder, by its name there."""
    sums = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS):
        with path.open("rb") as file:
            sums[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _opened(path: Path) -> IO[bytes]:
    """Open a checkpoint that is what its SHA-256 says; raise CheckpointError for any other."""
    expected = _digests(path)
    try:
        file = path.open("rb")
        found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        fault = "there is no such checkpoint" if missing else error.strerror
        raise CheckpointError(f"{path}: {fault}.") from None
    if found in expected:
        return file
    file.close()
    if expected:
        raise CheckpointError(
            f"{path} is damaged or was replaced: its SHA-256 is {found}, expected {expected[0]}. "
            "Take another checkpoint, or train again."
        )
    raise CheckpointError(
        f"{path}: no SHA-256 beside it ({digest_file(path).name}), so nobody knows whether it is whole. "
        f"If you trust the file: cd {path.parent} && sha256sum {path.name} > {digest_file(path).name}"
    )


def _digests(path: Path) -> list[str]:
    """Return the digests beside a checkpoint: one, or two where a save was cut off, or none."""
    try:
        lines = digest_file(path).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [line.split()[0].lower() for line in lines if line.split()]


def _write_digests(path: Path, digests: Iterable[str]) -> None:
    lines = (f"{digest}  {path.name}\n" for digest in dict.fromkeys(digests))
    files.write(digest_file(path), "".join(lines).encode())
