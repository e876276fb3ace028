"""The frames of an event file: where its records lie.

A TFRecord is a length (8 bytes), its masked CRC-32C (4), an Event (length), its CRC-32C (4). The CRC of the
length is checked, which tells garbage from a record; that of the Event would take Python too long.
"""

from __future__ import annotations

import functools
import os
import struct
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = struct.Struct("<QI")
BLOCK = 1 << 22  # bytes read at once; the memory that reading takes is some times this
LONGEST = 1 << 26  # bytes of a record that is read: what is longer holds no number that was logged
FRAME = HEADER.size + 4  # bytes around an event


class GarbageError(Exception):
    """Something else than a record; `place` is its first byte in the file."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


def blocks(file: IO[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield a file's events, some MiB at a time, with the place of the first; a torn last one is left out.

    Records of more than `LONGEST` bytes are passed over unread. Raises GarbageError at the first bytes that
    are no record, after what stands before them; so is a record that is too long even for its file.
    """
    rest, start, need = b"", 0, BLOCK  # `start` is the place of `rest` in the file
    while more := file.read(need):
        content, at = rest + more, 0
        found: list[bytes] = []
        while at + HEADER.size <= len(content):
            length, crc = HEADER.unpack_from(content, at)
            end = at + length + FRAME
            if crc != crc_of_length(length) or end > len(content):
                break
            found.append(content[at + HEADER.size : end - 4])
            at = end
        if found:
            yield start, found
        rest, start = content[at:], start + at
        lacking = check(rest, start)
        if len(rest) + lacking > LONGEST:
            if start + len(rest) + lacking > os.fstat(file.fileno()).st_size:
                raise GarbageError(start)
            file.seek(lacking, os.SEEK_CUR)
            rest, start, lacking = b"", start + len(rest) + lacking, 0
        need = max(BLOCK, lacking)


def check(start: bytes, place: int = 0) -> int:
    """Return how many bytes the record that begins with `start` lacks, as far as can be seen.

    Raises GarbageError, of `place`, where no record begins so.
    """
    if len(start) < HEADER.size:
        if start[3:8].strip(b"\0"):  # no record is longer than 16 MiB, and no text has zeros there
            raise GarbageError(place)
        return 0
    length, crc = HEADER.unpack_from(start)
    if crc != crc_of_length(length):
        raise GarbageError(place)
    return length + FRAME - len(start)


@functools.lru_cache(maxsize=4096)
def crc_of_length(length: int) -> int:
    """Return the masked CRC-32C that follows this length."""
    return _crc(struct.pack("<Q", length))


def record(event: bytes) -> bytes:
    """Return an event in its frame."""
    length = len(event)
    return HEADER.pack(length, crc_of_length(length)) + event + struct.pack("<I", _crc(event))


def _crc(content: bytes) -> int:
    """Return the CRC-32C of some bytes (RFC 3720, B.4), masked as TFRecords have it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


_TABLE = list(range(256))  # the CRC-32C of each byte, by its polynomial in reversed bits
for _ in range(8):
    _TABLE = [each >> 1 ^ (0x82F63B78 if each & 1 else 0) for each in _TABLE]
