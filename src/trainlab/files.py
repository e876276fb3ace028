"""Files that are either the old ones or the new ones, whole, whatever dies in between."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import re
import shlex
import shutil
import sys
import uuid
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from trainlab.errors import UserError, unwritable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    Report = Callable[[str, int, int], None]  # what, how much so far, how much in all
    Rename = Callable[[PurePosixPath], PurePosixPath]


# What network drives and memory cards answer where they have no fsync or locks; 524: the kernel's ENOTSUPP
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, 524})


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; on leaving, sync it to disk and rename it to `path`.

    An exception, inside or while syncing, removes the temporary file and leaves `path` as it was.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            _sync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write(path: Path, content: bytes) -> None:
    """Replace the content of `path` atomically."""
    with replacing(path) as file:
        file.write(content)


def link(path: Path, target: Path) -> None:
    """Replace `target` atomically by a hard link to `path`, or by a copy where there are no links."""
    temporary = _temporary(target)
    try:
        os.link(path, temporary)
    except OSError:
        with path.open("rb") as source, replacing(target) as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        return
    try:
        temporary.replace(target)
        _sync_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()  # it is still there where both names meant one file already, too


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Have the disk take what was written, where the storage can be asked to."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


LARGEST = 1 << 32  # bytes that a packed file may unpack to
MAX_RATIO = 100  # unpacked over packed bytes; text packs about 4 to 1, a bomb 1,000 to 1
SMALL = 10 << 20  # bytes: so many may be packed however well
LOOKED_AT = 4096  # bytes at a file's start that tell what kind it is
GZIP, ZIP, PARQUET = b"\x1f\x8b", b"PK\x03\x04", b"PAR1"
MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
# What files start with that are no text, what that is, and what to do
_KINDS = (
    (b"BZh", "packed (bzip2)", "Unpack it: bunzip2 --keep {name}"),
    (b"\xfd7zXZ\0", "packed (xz)", "Unpack it: unxz --keep {name}"),
    (b"\x28\xb5\x2f\xfd", "packed (zstd)", "Unpack it: unzstd {name}"),
    (b"7z\xbc\xaf\x27\x1c", "packed (7-Zip)", "Unpack it: 7z x {name}"),
    (b"Rar!", "packed (RAR)", "Unpack it: unrar x {name}"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "Save the sheet as CSV in UTF-8"),
    (PARQUET, "a Parquet table", "Save it as text"),
    (b"SQLite format 3\0", "an SQLite database", "Export a table as CSV"),
    (b"%PDF", "a PDF", "Get the data itself"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the data", "Get that: git lfs pull"),
)
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<body")


def read_bytes(path: Path, setting: str, advice: str) -> bytes:
    """Return what is in a file; raise UserError that names the `setting` and ends with `advice`."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"{setting}: {path} is a pipe or a device. {advice}")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{setting}: {path} does not exist. {advice}") from None
    except OSError as error:
        raise UserError(f"{setting}: {path} can't be read ({error.strerror}). {advice}") from None


def unpacked(path: Path, raw: bytes) -> bytes:
    """Return what is in a file packed by gzip, or the only one in a zip file; others as they are.

    Raises UserError for a damaged file, one with several files in it, and a bomb.
    """
    if not raw.startswith((GZIP, ZIP)):
        return raw
    most = min(LARGEST, max(SMALL, MAX_RATIO * len(raw)))
    parts, left = [], most + 1
    try:
        with _inner(path, raw) as file:
            while left and (block := file.read(min(left, BLOCK))):
                parts.append(block)
                left -= len(block)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{path} is packed, and can't be unpacked: {error}. Get it again.") from None
    content = b"".join(parts)
    if not left:
        raise UserError(
            f"{path} unpacks to more than {most:,} bytes, out of {len(raw):,}. Refused: that is no "
            "text. Unpack it yourself if you know what it is."
        )
    if content.startswith((GZIP, ZIP)):
        raise UserError(f"{path} is packed twice. Unpack it once, and name what was in it.")
    return content


def _inner(path: Path, raw: bytes) -> IO[bytes] | gzip.GzipFile:
    """Open what is packed by gzip, or the only file in a zip file."""
    if raw.startswith(GZIP):
        return gzip.GzipFile(fileobj=io.BytesIO(raw))
    packed = zipfile.ZipFile(io.BytesIO(raw))
    names = {each.filename for each in packed.infolist()}
    if not names.isdisjoint(("[Content_Types].xml", "mimetype")):
        raise UserError(
            f"{path} is a workbook or a document of an office program. Save the sheet as CSV in UTF-8, "
            "and name that."
        )
    members = [each for each in packed.infolist() if not each.is_dir() and "__MACOSX" not in each.filename]
    if len(members) != 1:
        shown = ", ".join(repr(each.filename) for each in members[:5])
        raise UserError(
            f"{path} is packed (zip), with {len(members):,} files in it: {shown or 'none'}. Unpack it, "
            "and name the one with the data."
        )
    return packed.open(members[0])


def decode(path: Path, raw: bytes) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 or UTF-32 where it says or shows that.

    Raises UserError that names the kind of a file that is no text, and row and byte of other encodings.
    """
    encoding = _encoding(raw)
    if encoding == "utf-8-sig":
        _refuse_kinds(path, raw)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise UserError(
                f"{path} starts as {encoding[:6].upper()}, and is damaged behind byte {error.start:,}: "
                f"{error.reason}. Get it again."
            ) from None
        row = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, row {row}: byte 0x{raw[error.start]:02x} is not UTF-8. Expected a UTF-8 file; "
            "convert it from what it is saved in, for instance: iconv -f LATIN1 -t UTF-8 "
            f"{shlex.quote(path.name)} > {shlex.quote(f'{path.stem}-utf8{path.suffix}')}"
        ) from None


def separator(line: str, least: int = 1) -> str:
    """Return what parts the columns of a line in the most places, but `least` times; '' for nothing."""
    counts = {each: line.count(each) for each in SEPARATORS}
    found = max(counts, key=lambda each: counts[each])
    return found if counts[found] >= least else ""


def parted_otherwise(path: Path, found: str, expected: str) -> UserError:
    """Return the error for a table whose columns are parted by `found`."""
    return UserError(
        f"{path}: its columns are parted by {SEPARATORS[found]}, expected {SEPARATORS[expected]}. Save it "
        f"with {SEPARATORS[expected]}, from a spreadsheet or by pandas.read_csv(..., sep={found!r})."
    )


def _encoding(raw: bytes) -> str:
    """Return the encoding that a mark at the start names, or that the zeros of UTF-16 show."""
    for mark, encoding in MARKS.items():
        if raw.startswith(mark):
            return encoding
    start = raw[: LOOKED_AT // 2 * 2]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if odd and not even:
        return "utf-16-le"
    return "utf-16-be" if even and not odd else "utf-8-sig"


def _refuse_kinds(path: Path, raw: bytes) -> None:
    name = shlex.quote(path.name)
    for start, kind, mend in _KINDS:
        if raw.startswith(start):
            raise UserError(f"{path} is {kind}. {mend.format(name=name)}; then name that file.")
    start = raw[:LOOKED_AT].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:20].lower().startswith(_PAGES):
        raise UserError(
            f"{path} is a web page or XML: what a server says instead of the data, maybe. Get the file again."
        )
    if start.startswith((b"{", b"[{", b"[[")):
        raise UserError(f"{path} is JSON. Save it as a table in text; pandas reads one: pandas.read_json.")
    if raw[257:262] == b"ustar":
        raise UserError(
            f"{path} is packed (tar). Unpack it: tar -xf {name}; then name the file with the data."
        )
    if b"\0" in raw[:LOOKED_AT]:
        raise UserError(f"{path} is no text: it holds zero bytes. Expected a table in text, in UTF-8.")


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
        raise UserError(unwritable(folder, error)) from None


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
    # entries that share bytes: a few MB of them unfold to any size, each by itself in good order
    held = sum(each.compress_size + len(each.filename) for each in packed.infolist())
    if held > Path(str(packed.filename)).stat().st_size:
        raise UserError(f"{packed.filename} has entries that share their bytes: a bomb. Refused.")
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


def _paths(members: list[zipfile.ZipInfo], archive: str) -> list[PurePosixPath]:
    """Return where each member goes, without a single folder that holds all of them; refuse links."""
    for member in members:
        kind = member.external_attr >> 16 & 0o170000  # of the mode that Unix zip programs store
        if kind not in (0, 0o100000):
            raise UserError(f"{archive} has the entry {member.filename!r}, a link or a device. Refused.")
    paths = [PurePosixPath(member.filename.replace("\\", "/")) for member in members]
    if found := refusal(paths):
        raise UserError(f"{archive} has {found}. Refused.")
    if len({path.parts[0] for path in paths}) == 1 and all(len(path.parts) > 1 for path in paths):
        return [path.relative_to(path.parts[0]) for path in paths]
    return paths


def _write(packed: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> str:
    """Write one file and return its SHA-256; never more bytes than the archive's directory says."""
    place.parent.mkdir(parents=True, exist_ok=True)
    found = hashlib.sha256()
    with packed.open(member) as source, place.open("xb") as file:
        while block := source.read(BLOCK):
            file.write(block)
            found.update(block)
    return found.hexdigest()


def mute_output() -> None:
    """Let what is printed from now on go nowhere, Python's own last flush too: nobody reads it any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
