"""Runs in one file, with the SHA-256 of everything in it, and back again.

    runs/<experiment>/<run>/...   their folders
    trainlab-runs.json            which runs, and the SHA-256 and bytes of each of their files

A file that has several names in a run is packed once, and the others are listed as its links. The archive is
a zip file, which any other program opens too. The same runs give the same file, whenever it is made.
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

from trainlab import files
from trainlab.errors import UserError
from trainlab.run import checkpoint, lock
from trainlab.runs import trash, trimming

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Agree = Callable[[int], None]  # takes how many bytes will be unpacked, and raises to refuse

EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry: the same runs give the same bytes, whenever they are packed
MANIFEST = "trainlab-runs.json"
RUNS = "runs"  # the folder of runs in an archive
LEFT_OUT = (lock.RUN, lock.RUNNER, lock.RESERVE)  # of use to a running process alone
_DENSE = (".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".h5", ".npz")  # weights: they hardly shrink
_LARGEST_MANIFEST = 1 << 26  # bytes, of some 300,000 files
_LINE = 400  # bytes of the manifest that a file takes besides its name, at most
_MOST_LINKS = 10_000


class _Manifest(BaseModel):
    format: Literal["trainlab-runs-1", "trainlab-runs-2"]  # 1: before there were links
    runs: dict[str, dict[str, tuple[str, int]]]  # by 'experiment/run' and the file's path: SHA-256 and bytes
    links: dict[str, dict[str, str]] = {}  # by the same, the path of the file that it is another name of


def pack(folders: Sequence[Path], output: Path, logs: Path, *, weights_only: bool = False) -> None:
    """Write run folders of `logs` into the new file `output`; `weights_only` leaves out what a resume needs.

    Raises UserError when `output` exists or lies in a run, a run is running or holds what no archive can, or
    the disk refuses or has too little room; nothing half-done stays.
    """
    labels = {trash.run_id(folder, logs): folder for folder in folders}
    if os.path.lexists(output):
        raise UserError(f"{output} exists. Name another file with -o, or remove that one.")
    for folder in folders:
        if output.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{output} would lie in the run that goes into it. Name another place with -o.")
    with ExitStack() as stack:
        stack.enter_context(files.telling(output.parent))
        for folder in folders:
            stack.enter_context(trash.exclusive(folder))
        chosen = {label: _chosen(labels[label], weights_only=weights_only) for label in sorted(labels)}
        files.need(output.parent, trash.size(*(path for paths in chosen.values() for path in paths)))
        packed = stack.enter_context(zipfile.ZipFile(stack.enter_context(files.replacing(output)), "w"))
        manifest = _Manifest(format="trainlab-runs-2", runs={}, links={})
        for label, paths in chosen.items():
            run, links = manifest.runs.setdefault(label, {}), manifest.links.setdefault(label, {})
            first: dict[tuple[int, int], str] = {}
            for path in paths:
                name, status = path.relative_to(labels[label]).as_posix(), path.stat()
                if (same := first.setdefault((status.st_dev, status.st_ino), name)) == name:
                    run[name] = _add(packed, f"{RUNS}/{label}/{name}", path)
                else:
                    links[name] = same
            for place in trimming.without_states(paths):
                name = (place / checkpoint.WEIGHTS_ONLY).relative_to(labels[label]).as_posix()
                packed.writestr(_entry(f"{RUNS}/{label}/{name}"), trimming.NOTE)
                run[name] = (hashlib.sha256(trimming.NOTE).hexdigest(), len(trimming.NOTE))
        packed.writestr(_entry(MANIFEST), manifest.model_dump_json(indent=1))


def unpack(path: Path, logs: Path, agree: Agree = lambda _: None) -> list[Path]:
    """Bring an archive's runs back to where they were, and return their folders.

    All are unpacked and checked before any can be seen. Raises UserError for a file that is damaged or no
    such archive, an entry that leads out of its folder or that programs would obey there, a run that is
    there already, or where the disk refuses; then nothing is changed.
    """
    manifest = _read(path)
    for label in manifest.runs:
        if os.path.lexists(logs / label):
            raise UserError(f"{logs / label} is there already. Rename or delete that one first.")
    digests = {
        f"{RUNS}/{label}/{name}": sha
        for label, run in manifest.runs.items()
        for name, (sha, _) in run.items()
    }
    size = sum(size for run in manifest.runs.values() for _, size in run.values())
    with files.telling(logs):
        place = logs / trash.FOLDER
        place.mkdir(parents=True, exist_ok=True)
        files.need(place, size)
        agree(size)
        with tempfile.TemporaryDirectory(prefix=trash.UNPACKING, dir=place) as temporary:
            try:  # under names that TensorBoard passes
                found = files.unpack(path, Path(temporary), size + _LARGEST_MANIFEST, rename=trash.hidden)
            except (ValueError, LookupError, struct.error) as error:
                raise _damaged(path, str(error)) from None
            found.pop(MANIFEST, None)
            for name in sorted(found.keys() | digests.keys()):
                if found.get(name) != digests.get(name):
                    raise _damaged(path, f"{name} is not what it lists")
            unpacked = Path(temporary, RUNS)
            for label, links in manifest.links.items():  # copies where the disk has no links
                for name, source in links.items():
                    target = unpacked / label / trash.hidden(PurePosixPath(name))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    files.link(unpacked / label / trash.hidden(PurePosixPath(source)), target)
            entries: list[trash.Entry] = []
            try:  # by way of the trash, which a process that dies in between can't harm
                for label in manifest.runs:
                    entries.append(trash.new_entry(logs, label))
                    (unpacked / label).replace(entries[-1].folder)
                return [trash.restore(entry) for entry in entries]
            except BaseException:
                for entry in entries:
                    shutil.rmtree(entry.place if entry.place.exists() else entry.home, ignore_errors=True)
                raise


def _chosen(folder: Path, *, weights_only: bool) -> list[Path]:
    """Return the files of a run that are packed, by name.

    Raises UserError for what a file can't hold, rather than lose it, for what nobody should unpack, and where
    there would be no weights without the states.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} can't be read: {error.strerror}.")

    paths = []
    for parent, below, names in os.walk(folder, onerror=refuse):
        for path in (Path(parent, name) for name in [*below, *names] if name not in LEFT_OUT):
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise UserError(
                    f"{path} is a link, a pipe or a device: an archive holds files alone. Move it away."
                )
            if "\\" in path.name or not path.name.isprintable():
                raise UserError(f"{str(path)!r}: other systems can't have a file of this name. Rename it.")
            if path.is_file():
                paths.append(path)
    paths.sort()
    if found := files.refusal(PurePosixPath(path.relative_to(folder).as_posix()) for path in paths):
        raise UserError(f"{folder} has {found}. Whoever unpacks it would be in danger. Move it away.")
    if weights_only:
        trimming.check(paths)
    return [path for path in paths if not (weights_only and checkpoint.is_state(path))]


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
        while block := source.read(files.BLOCK):
            target.write(block)
            found.update(block)
            size += len(block)
    return found.hexdigest(), size


def _read(path: Path) -> _Manifest:
    try:
        with zipfile.ZipFile(path) as packed:
            most = _LINE * 10 + sum(_LINE + 2 * len(each.filename.encode()) for each in packed.infolist())
            if packed.getinfo(MANIFEST).file_size > min(most, _LARGEST_MANIFEST):
                raise ValueError(f"{MANIFEST} is larger than a list of its files is")
            manifest = _Manifest.model_validate_json(packed.read(MANIFEST))
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}. Look: ls -l {path}") from None
    except ValidationError:
        raise _damaged(path, f"{MANIFEST} doesn't say what is in it") from None
    except Exception as error:  # zipfile raises a dozen kinds for bytes that are not as they should be
        raise _damaged(path, str(error).strip("'\"")) from None
    for label in manifest.runs:
        if not trash.is_plain(label):
            raise UserError(f"{path} has the run {label!r}, which leads out of its folder. Refused.")
    for (
        label,
        links,
    ) in manifest.links.items():  # each a second name, in the same run, of a file that is packed
        run = manifest.runs.get(label, {})
        if found := files.refusal(map(PurePosixPath, [*run, *links])):
            raise UserError(f"{path} has {found}. Refused.")
        packed_once = all(links[name] in run and str(PurePosixPath(name)) == name for name in links)
        if len(links) > _MOST_LINKS or not packed_once:
            raise UserError(f"{path} has links in {label!r} to what is not packed, or too many. Refused.")
    return manifest


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged: {why}. Expected a file that `trainlab runs archive` made.")
