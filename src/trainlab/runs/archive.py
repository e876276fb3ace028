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

from trainlab import files as atomic
from trainlab import files as unpacking
from trainlab.errors import UserError
from trainlab.run import checkpoint, lock
from trainlab.runs import trash, trimming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Agree = Callable[[int], None]  # is told how many bytes will be unpacked, and raises to refuse
    Files = dict[str, tuple[str, int]]

EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry: the same runs give the same bytes, whenever they are packed
MANIFEST = "trainlab-runs.json"
RUNS = "runs"  # the folder of runs in an archive
LEFT_OUT = (lock.RUN, lock.RUNNER, lock.RESERVE)  # of use to a process at work alone
_DENSE = (".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".h5", ".npz")  # weights: they hardly shrink
_LARGEST_MANIFEST = 1 << 26  # bytes, of some 300,000 files
_LINE = 400  # bytes of the manifest that a file takes besides its name, at most
_MOST_LINKS = 10_000


class _Manifest(BaseModel):
    format: Literal["trainlab-runs-1", "trainlab-runs-2"]  # 2: with links, which 1 would lose in silence
    runs: dict[str, dict[str, tuple[str, int]]]  # by 'experiment/run' and the file's path in there
    links: dict[str, dict[str, str]] = {}  # by the same, the path of the file that it is another name of

    @property
    def files(self) -> dict[str, tuple[str, int]]:
        """The SHA-256 and bytes of each file by its path in the archive."""
        return {
            f"{RUNS}/{label}/{name}": said
            for label, names in self.runs.items()
            for name, said in names.items()
        }


def pack(folders: Sequence[Path], output: Path, logs: Path, *, weights_only: bool = False) -> None:
    """Write run folders of `logs` into the new file `output`; `weights_only` leaves out what a resume needs.

    Raises UserError when `output` exists or lies in a run, a run is at work or holds what no archive can, or
    the disk refuses or has too little room; nothing half-done stays.
    """
    labels = {trash.run_id(folder, logs): folder for folder in folders}
    if os.path.lexists(output):
        raise UserError(f"{output} exists. Name another file with -o, or remove that one.")
    for folder in folders:
        if output.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{output} would lie in the run that goes into it. Name another place with -o.")
    with ExitStack() as stack:
        stack.enter_context(unpacking.telling(output.parent))
        for folder in folders:
            stack.enter_context(trash.exclusive(folder))
        paths = {label: _chosen(folder, weights_only=weights_only) for label, folder in labels.items()}
        unpacking.need(output.parent, trash.size_of(path for some in paths.values() for path in some))
        file = stack.enter_context(atomic.replacing(output))
        packed = stack.enter_context(zipfile.ZipFile(file, "w"))
        known = _Manifest(format="trainlab-runs-1", runs={}, links={})
        for label in sorted(labels):
            _add_run(packed, known, label, labels[label], paths[label])
        if known.links:
            known.format = "trainlab-runs-2"
        manifest = known.model_dump_json(indent=1, exclude=None if known.links else {"links"})
        packed.writestr(_entry(MANIFEST), manifest)


def unpack(path: Path, logs: Path, agree: Agree = lambda _: None) -> list[Path]:
    """Bring an archive's runs back to where they were, and return their folders.

    All are unpacked and checked before any can be seen. Raises UserError for a file that is damaged or no
    such archive, an entry that leads out of its folder or that programs would obey there, a run that is
    there already, or where the disk refuses; then nothing is changed.
    """
    known = _read(path)
    size = sum(size for _, size in known.files.values())
    for label in known.runs:
        if os.path.lexists(logs / label):
            raise UserError(f"{logs / label} is there already. Rename or delete that one first.")
    with unpacking.telling(logs):
        place = logs / trash.FOLDER
        place.mkdir(parents=True, exist_ok=True)
        unpacking.need(place, size)
        agree(size)
        with tempfile.TemporaryDirectory(prefix=trash.UNPACKING, dir=place) as temporary:
            _extract(path, known, Path(temporary))
            unpacked = Path(temporary, RUNS)
            for label, links in known.links.items():  # copies where the disk has no links
                for name, source in links.items():
                    target = unpacked / label / trash.hidden(PurePosixPath(name))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    atomic.link(unpacked / label / trash.hidden(PurePosixPath(source)), target)
            return _arrive(known, unpacked, logs)


def _chosen(folder: Path, *, weights_only: bool) -> list[Path]:
    """Return the files of a run that are packed, by name.

    Raises UserError for what nobody should unpack, and where there would be no weights without the states.
    """
    paths = list(_paths(folder))
    if found := unpacking.refusal(PurePosixPath(path.relative_to(folder).as_posix()) for path in paths):
        raise UserError(f"{folder} has {found}. Whoever unpacks it would be in danger. Move it away.")
    if weights_only:
        trimming.check(paths)
    return [path for path in paths if not (weights_only and checkpoint.is_state(path))]


def _paths(folder: Path) -> Iterator[Path]:
    """Yield the files of a run, by name; raise UserError for what a file can't hold, rather than lose it."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} can't be read: {error.strerror}.")

    for parent, below, names in os.walk(folder, onerror=refuse):
        below.sort()
        found = [Path(parent, name) for name in sorted(names) if name not in LEFT_OUT]
        for path in [*found, *(Path(parent, name) for name in below)]:
            if path.is_symlink() or not (path.name in below or path.is_file()):
                raise UserError(
                    f"{path} is a link, a pipe or a device: an archive holds files alone. Move it away."
                )
            if "\\" in path.name or not path.name.isprintable():
                raise UserError(f"{str(path)!r}: other systems can't have a file of this name. Rename it.")
        yield from found


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_STORED if name.endswith(_DENSE) else zipfile.ZIP_DEFLATED
    return entry


def _add_run(
    packed: zipfile.ZipFile, known: _Manifest, label: str, folder: Path, paths: Sequence[Path]
) -> None:
    """Write a run's files, each once whatever names it has, and take them down."""
    files: Files = {}
    links: dict[str, str] = {}
    first: dict[tuple[int, int], str] = {}
    for path in paths:
        name, status = path.relative_to(folder).as_posix(), path.stat()
        same = first.setdefault((status.st_dev, status.st_ino), name) if status.st_nlink > 1 else name
        if same == name:
            files[name] = _add(packed, f"{RUNS}/{label}/{name}", path)
        else:
            links[name] = same
    for place in trimming.without_states(paths):
        note = (place / checkpoint.WEIGHTS_ONLY).relative_to(folder).as_posix()
        packed.writestr(_entry(f"{RUNS}/{label}/{note}"), trimming.NOTE)
        files[note] = (hashlib.sha256(trimming.NOTE).hexdigest(), len(trimming.NOTE))
    known.runs[label] = files
    if links:
        known.links[label] = links


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
            most = _LINE * 10 + sum(_LINE + 2 * len(each.filename.encode()) for each in packed.infolist())
            if packed.getinfo(MANIFEST).file_size > min(most, _LARGEST_MANIFEST):
                raise ValueError(f"{MANIFEST} is larger than a list of its files is")
            known = _Manifest.model_validate_json(packed.read(MANIFEST))
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}. Look: ls -l {path}") from None
    except ValidationError:
        raise _damaged(path, f"{MANIFEST} doesn't say what is in it") from None
    except Exception as error:  # zipfile raises a dozen kinds for bytes that are not as they should be
        raise _damaged(path, str(error).strip("'\"")) from None
    for label in known.runs:
        if not trash.is_plain(label):
            raise UserError(f"{path} has the run {label!r}, which leads out of its folder. Refused.")
    for label, links in known.links.items():  # each a second name, in the same run, of a file that is packed
        files = known.runs.get(label, {})
        if found := unpacking.refusal(map(PurePosixPath, [*files, *links])):
            raise UserError(f"{path} has {found}. Refused.")
        known_names = [source in files and str(PurePosixPath(name)) == name for name, source in links.items()]
        if len(links) > _MOST_LINKS or not all(known_names):
            raise UserError(f"{path} has links in {label!r} to what is not packed, or too many. Refused.")
    return known


def _extract(path: Path, known: _Manifest, target: Path) -> None:
    """Write the files under names that TensorBoard passes, and compare each with its digest."""
    cap = sum(size for _, size in known.files.values()) + _LARGEST_MANIFEST
    try:
        found = unpacking.unpack(path, target, cap, rename=trash.hidden)
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
