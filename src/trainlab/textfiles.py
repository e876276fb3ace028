"""Text files as people have them: packed, in UTF-8 or UTF-16, missing, or no text at all."""

from __future__ import annotations

import io
import shlex
import zipfile
import zlib
from typing import TYPE_CHECKING

from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
    try:
        if raw.startswith(GZIP):
            return _bounded(path, _gunzip(raw, _room(len(raw))), len(raw))
        if raw.startswith(ZIP):
            return _only(path, raw)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{path} is packed, and can't be unpacked: {error}. Get it again.") from None
    return raw


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


def _room(packed: int) -> int:
    """Return how many bytes so many packed ones may unpack to."""
    return min(LARGEST, max(SMALL, MAX_RATIO * packed))


def _gunzip(raw: bytes, most: int) -> bytes:
    """Return at most one byte more than `most` of what is packed, in one member or several."""
    import gzip

    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
        return _at_most(file.read, most)


def _at_most(read: Callable[[int], bytes], most: int) -> bytes:
    parts, left = [], most + 1
    while left and (block := read(min(left, 1 << 20))):
        parts.append(block)
        left -= len(block)
    return b"".join(parts)


def _only(path: Path, raw: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(raw)) as packed:
        names = [each.filename for each in packed.infolist()]
        if "[Content_Types].xml" in names or "mimetype" in names:
            raise UserError(
                f"{path} is a workbook or a document of an office program. Save the sheet as CSV in UTF-8, "
                "and name that."
            )
        members = [
            each for each in packed.infolist() if not each.is_dir() and "__MACOSX" not in each.filename
        ]
        if len(members) != 1:
            shown = ", ".join(repr(each.filename) for each in members[:5])
            raise UserError(
                f"{path} is packed (zip), with {len(members):,} files in it: {shown or 'none'}. Unpack it, "
                "and name the one with the data."
            )
        with packed.open(members[0]) as file:
            return _bounded(path, _at_most(file.read, _room(len(raw))), len(raw))


def _bounded(path: Path, content: bytes, packed: int) -> bytes:
    if len(content) > _room(packed):
        raise UserError(
            f"{path} unpacks to more than {len(content) - 1:,} bytes, out of {packed:,}. Refused: that is no "
            "text. Unpack it yourself if you know what it is."
        )
    if content.startswith((GZIP, ZIP)):
        raise UserError(f"{path} is packed twice. Unpack it once, and name what was in it.")
    return content


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
