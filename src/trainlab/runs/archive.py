"""Runs in one file, with the SHA-256 of everything in it, and back again.

    runs/<experiment>/<run>/...   their folders
    trainlab-runs.json            which runs, and the SHA-256 and bytes of each of their files

It is a zip file, which any other program opens too. The same runs give the same file, whenever it is made.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Literal

from pydantic import BaseModel, ValidationError

from trainlab import unpacking
from trainlab.errors import UserError
from trainlab.freezing import EPOCH
from trainlab.runs import atomic, lock, moving, reserve, trash

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MANIFEST = "trainlab-runs.json"
RUNS = "runs"  # the folder of runs in an archive
LEFT_OUT = (lock.RUN, lock.RUNNER, reserve.FILE)  # of use to a process at work alone
_DENSE = (".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".h5", ".npz")  # weights: they hardly shrink
_LARGEST_MANIFEST = 1 << 28  # bytes, of a million files


class _Manifest(BaseModel):
    format: Literal["trainlab-runs-1"] = "trainlab-runs-1"
    runs: dict[str, dict[str, tuple[str, int]]]  # by 'experiment/run' and the file's path in there

    @property
    def files(self) -> dict[str, tuple[str, int]]:
        """The SHA-256 and bytes of each file by its path in the archive."""
        return {
            f"{RUNS}/{label}/{name}": said
            for label, names in self.runs.items()
            for name, said in names.items()
        }


def pack(folders: Sequence[Path], output: Path, logs: Path) -> None:
    """Write run folders of `logs` into the new file `output`.

    Raises UserError when `output` exists or lies in a run, a run is at work or holds what no archive can, or
    the disk refuses or has too little room; nothing half-done stays.
    """
    labels = {moving.label(folder, logs): folder for folder in folders}
    _check_output(output, folders)
    with ExitStack() as stack:
        stack.enter_context(unpacking.telling(output.parent))
        for folder in folders:
            stack.enter_context(moving.at_rest(folder))
        paths = {label: list(_paths(folder)) for label, folder in labels.items()}
        unpacking.need(output.parent, sum(path.stat().st_size for some in paths.values() for path in some))
        file = stack.enter_context(atomic.replacing(output))
        packed = stack.enter_context(zipfile.ZipFile(file, "w"))
        said = {
            label: {
                (name := path.relative_to(labels[label]).as_posix()): _add(
                    packed, f"{RUNS}/{label}/{name}", path
                )
                for path in paths[label]
            }
            for label in sorted(labels)
        }
        packed.writestr(_entry(MANIFEST), _Manifest(runs=said).model_dump_json(indent=1))


def unpack(path: Path, logs: Path) -> list[Path]:
    """Bring an archive's runs back to where they were, and return their folders.

    All are unpacked and checked before any can be seen. Raises UserError for a file that is damaged or no
    such archive, an entry that leads out of its folder, a run that is there already, or where the disk
    refuses; then nothing is changed.
    """
    known = _read(path)
    for label in known.runs:
        if os.path.lexists(logs / label):
            raise UserError(f"{logs / label} is there already. Rename or delete that one first.")
    with unpacking.telling(logs):
        place = logs / trash.FOLDER
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=trash.UNPACKING, dir=place) as temporary:
            _extract(path, known, Path(temporary))
            return _arrive(known, Path(temporary, RUNS), logs)


def _check_output(output: Path, folders: Sequence[Path]) -> None:
    if os.path.lexists(output):
        raise UserError(f"{output} exists. Name another file with -o, or remove that one.")
    for folder in folders:
        if output.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{output} would lie in the run that goes into it. Name another place with -o.")


def _paths(folder: Path) -> Iterator[Path]:
    """Yield the files of a run, by name; raise UserError for what a file can't hold, rather than lose it."""
    for parent, below, names in os.walk(folder, onerror=_raise):
        below.sort()
        found = [Path(parent, name) for name in sorted(names) if name not in LEFT_OUT]
        for path in [*found, *(Path(parent, name) for name in below)]:
            _check_kind(path, is_folder=path.name in below)
        yield from found


def _check_kind(path: Path, *, is_folder: bool) -> None:
    if path.is_symlink() or not (is_folder or path.is_file()):
        raise UserError(f"{path} is a link, a pipe or a device: an archive holds files alone. Move it away.")
    if "\\" in path.name or not path.name.isprintable():
        raise UserError(f"{str(path)!r}: other systems can't have a file of this name. Rename it.")


def _raise(error: OSError) -> None:
    raise UserError(f"{error.filename} can't be read: {error.strerror}.")


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_STORED if name.endswith(_DENSE) else zipfile.ZIP_DEFLATED
    return entry


def _add(packed: zipfile.ZipFile, name: str, path: Path) -> tuple[str, int]:
    """Write one file, and return the SHA-256 and the bytes of what was written: somebody may append to it."""
    found, size = hashlib.sha256(), 0
    try:
        source: IO[bytes] = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from None
    with source, packed.open(_entry(name), "w", force_zip64=True) as target:
        while block := source.read(unpacking.BLOCK):
            target.write(block)
            found.update(block)
            size += len(block)
    return found.hexdigest(), size


def _read(path: Path) -> _Manifest:
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.getinfo(MANIFEST).file_size > _LARGEST_MANIFEST:
                raise ValueError(f"{MANIFEST} is too large")
            known = _Manifest.model_validate_json(packed.read(MANIFEST))
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}. Look: ls -l {path}") from None
    except ValidationError:
        raise _damaged(path, f"{MANIFEST} doesn't say what is in it") from None
    except Exception as error:  # zipfile raises a dozen kinds for bytes that are not as they should be
        raise _damaged(path, str(error).strip("'\"")) from None
    for label in known.runs:
        _check_label(path, label)
    return known


def _check_label(path: Path, label: str) -> None:
    """Refuse what leads out of `logs`, or to where no run is seen."""
    parts = PurePosixPath(label).parts
    hidden = any(part.startswith(".") for part in parts)
    if not parts or hidden or label != "/".join(parts) or "\\" in label or not label.isprintable():
        raise UserError(f"{path} has the run {label!r}, which leads out of its folder. Refused.")


def _extract(path: Path, known: _Manifest, target: Path) -> None:
    """Write the files under names that TensorBoard passes, and compare each with its digest."""
    cap = sum(size for _, size in known.files.values()) + _LARGEST_MANIFEST
    try:
        found = unpacking.unpack(path, target, cap, rename=moving.hidden)
    except (ValueError, LookupError, struct.error) as error:
        raise _damaged(path, str(error)) from None
    found.pop(MANIFEST, None)
    said = {name: digest for name, (digest, _) in known.files.items()}
    wrong = sorted(name for name in found.keys() | said.keys() if found.get(name) != said.get(name))
    if wrong:
        raise _damaged(path, f"{wrong[0]} is not what it lists")


def _arrive(known: _Manifest, unpacked: Path, logs: Path) -> list[Path]:
    """Let runs take their places by way of the trash, which a process that dies in between can't harm."""
    entries: list[trash.Entry] = []
    try:
        for label in known.runs:
            entries.append(trash.new_entry(logs, label))
            (unpacked / label).replace(entries[-1].folder)
        return [trash.restore(entry) for entry in entries]
    except BaseException:
        for entry in entries:
            shutil.rmtree(entry.place if entry.place.exists() else entry.home, ignore_errors=True)
        raise


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged: {why}. Expected a file that `trainlab runs archive` made.")
