"""Zip archives into folders: inside the folder only, up to a known size, with the digest of each file."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Report = Callable[[str, int, int], None]  # what, how much so far, how much in all
    Rename = Callable[[PurePosixPath], PurePosixPath]

BLOCK = 1 << 20  # bytes read at once
LONGEST = 1000  # characters of a path
# What programs obey that merely look into a folder: git's settings name commands, as an editor's do
_OBEYED = re.compile(
    r"(\.git|git~\d+|\.hg|\.svn|\.bzr|\.jj|\.env([.-].*)?|\.envrc|\.vscode|\.idea|\.devcontainer)[ .]*",
    re.IGNORECASE,
)
_REPOSITORY = {"head", "objects", "refs"}  # a folder that holds these is one to git, whatever its name is


def unpack(
    archive: Path,
    target: Path,
    cap: int,
    report: Report = lambda *_: None,
    rename: Rename = lambda path: path,
) -> dict[str, str]:
    """Write the archive's regular files into the empty folder `target`; return the SHA-256 of each.

    A single folder that holds everything is left out of the names. `cap` is the most bytes it may come to.
    `rename` says under which name a file is written; the digests go by the archive's names.
    Raises UserError for an archive that is none or damaged, an entry that is a link or leads out of the
    folder, or more than `cap` bytes; OSError where the disk refuses. What was written before stays: give it a
    temporary folder.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            return _extract(packed, target, cap, report, rename)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
        raise UserError(f"{archive} can't be unpacked: {error}.") from None


def refusal(paths: Iterable[PurePosixPath]) -> str:
    """Return why files of these paths are neither packed nor unpacked, or ''.

    That is a path that leads out of its folder, has letters that nobody sees, is there twice, or is one that
    programs obey wherever they find it.
    """
    inside: dict[PurePosixPath, set[str]] = {}
    known = set[PurePosixPath]()
    for path in paths:
        if fault := _fault(path) or (path in known and "there are two entries of that name"):
            return f"the entry {str(path)[:LONGEST]!r}: {fault}"
        known.add(path)
        for parent, below in zip(path.parents, path.parts[::-1], strict=True):
            inside.setdefault(parent, set()).add(below.casefold())
    if both := known & inside.keys():
        return f"the entry {str(min(both))!r}, once as a file and once as a folder"
    if any(names >= _REPOSITORY for names in inside.values()):
        return "a folder with HEAD, objects and refs, whose settings git would obey"
    return ""


def _fault(path: PurePosixPath) -> str:
    if path.is_absolute() or ".." in path.parts or not path.name or ":" in path.parts[0]:
        return "it leads out of its folder"
    if not str(path).isprintable() or len(str(path)) > LONGEST:
        return "other systems can't have a file of that name"
    if any(_OBEYED.fullmatch(part) for part in path.parts):
        return "git, a shell or an editor would obey what is in it"
    return ""


@contextmanager
def telling(folder: Path) -> Iterator[None]:
    """Turn the disk's refusal into a sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} can't be written: {error.strerror or error}. Free some space or correct the folder's "
            f"owner, then call this again: df {folder}; ls -ld {folder}"
        ) from None


def need(folder: Path, size: int) -> None:
    """Raise OSError where the folder's disk has fewer than `size` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{size:,} bytes are needed, {free:,} are free")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _extract(
    packed: zipfile.ZipFile, target: Path, cap: int, report: Report, rename: Rename
) -> dict[str, str]:
    members = [each for each in packed.infolist() if not each.is_dir() and "__MACOSX" not in each.filename]
    _refuse_shared(packed)
    total = sum(each.file_size for each in members)
    if total > cap:
        raise UserError(f"{packed.filename} would unpack to more than {cap:,} bytes. Nothing was unpacked.")
    need(target, total)
    digests, done = {}, 0
    for member, path in zip(members, _paths(members, str(packed.filename)), strict=True):
        digests[str(path)] = _write(packed, member, target / rename(path))
        done += member.file_size
        report(f"unpacking {Path(str(packed.filename)).name}", done, total)
    return digests


def _refuse_shared(packed: zipfile.ZipFile) -> None:
    """Refuse entries that share bytes: a few MB of them unfold to any size, each by itself in good order."""
    entries = packed.infolist()
    held = sum(each.compress_size + len(each.filename) for each in entries)
    if held > Path(str(packed.filename)).stat().st_size:
        raise UserError(f"{packed.filename} has entries that share their bytes: a bomb. Refused.")


def _paths(members: list[zipfile.ZipInfo], archive: str) -> list[PurePosixPath]:
    """Return where each member goes, without a single folder that holds all of them."""
    paths = [_inside(member, archive) for member in members]
    if found := refusal(paths):
        raise UserError(f"{archive} has {found}. Refused.")
    if len({path.parts[0] for path in paths}) == 1 and all(len(path.parts) > 1 for path in paths):
        return [path.relative_to(path.parts[0]) for path in paths]
    return paths


def _inside(member: zipfile.ZipInfo, archive: str) -> PurePosixPath:
    """Return the member's path; refuse links and devices."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    kind = member.external_attr >> 16 & 0o170000  # of the mode that Unix zip programs store
    if kind not in (0, 0o100000):
        raise UserError(f"{archive} has the entry {member.filename!r}, a link or a device. Refused.")
    return path


def _write(packed: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> str:
    """Write one file and return its SHA-256; never more bytes than the archive's directory says."""
    place.parent.mkdir(parents=True, exist_ok=True)
    found = hashlib.sha256()
    with packed.open(member) as source, place.open("xb") as file:
        while block := source.read(BLOCK):
            file.write(block)
            found.update(block)
    return found.hexdigest()
