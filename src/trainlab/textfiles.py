"""Text files as they come: missing, unreadable, or not in UTF-8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlab.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def read_bytes(path: Path, setting: str, advice: str) -> bytes:
    """Return what is in a file; raise UserError that names the `setting` and ends with `advice`."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{setting}: {path} does not exist. {advice}") from None
    except OSError as error:
        raise UserError(f"{setting}: {path} can't be read ({error.strerror}). {advice}") from None


def decode(path: Path, raw: bytes) -> str:
    """Return the text of a file in UTF-8; raise UserError that names row and byte of what is none."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, row {row}: byte 0x{raw[error.start]:02x} is not UTF-8. Expected a UTF-8 file; "
            f"convert it, for instance: iconv -f LATIN1 -t UTF-8 {path.name} > {path.stem}-utf8{path.suffix}"
        ) from None
