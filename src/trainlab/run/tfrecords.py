"""The frames of an event file: where its records lie.

A TFRecord is a length (8 bytes), its masked CRC-32C (4), an Event (length), its CRC-32C (4). The CRC of the
length is checked, which tells garbage from a record; that of the Event would take Python too long.
"""

from __future__ import annotations

import functools
import os
import struct
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

HEADER = struct.Struct("<QI")
_FOOTER_BYTES = 4
BLOCK = 1 << 22  # bytes read at once; the memory that reading takes is some times this
LONGEST = 1 << 26  # bytes of a record that is read: what is longer holds no number that was logged
_MASK = 0xA282EAD8  # TensorFlow, core/lib/hash/crc32c.h: rotated by 15 bits, and this added
_FRAME = HEADER.size + _FOOTER_BYTES


class GarbageError(Exception):
    """Something else than a record; `place` is its first byte in the file."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


class Block:
    """Whole records: `content` holds them, event `i` lies at `starts[i]` and is `lengths[i]` bytes long."""

    def __init__(self, content: bytes, frames: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        self.content = content
        self.starts = frames + HEADER.size
        self.lengths = lengths

    def event(self, number: int) -> bytes:
        """Return the bytes of one event."""
        start = self.starts[number]
        return self.content[start : start + self.lengths[number]]

    def ends(self, numbers: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
        """Return the last `size` bytes of each of these events, in words; they may begin in the header."""
        ends = self.starts[numbers] + self.lengths[numbers]
        return _windows(self.content, size)[ends - size].view(np.uint64).reshape(len(numbers), -1)


def blocks(file: IO[bytes]) -> Iterator[tuple[int, Block]]:
    """Yield a file's whole records, some MiB at a time, each with its place; a torn last one is left out.

    Records of more than `LONGEST` bytes are passed over unread. Raises GarbageError at the first bytes that
    are no record, after what stands before them; so is a record that is too long even for its file.
    """
    rest, place, need = b"", 0, BLOCK
    while more := file.read(need):
        content = rest + more
        frames, lengths = _records(content)
        if len(frames):
            yield place, Block(content, frames, lengths)
            end = int(frames[-1] + lengths[-1]) + _FRAME
            content, place = content[end:], place + end
        lacking = check(content, place)
        if len(content) + lacking > LONGEST:
            if place + len(content) + lacking > os.fstat(file.fileno()).st_size:
                raise GarbageError(place)
            file.seek(lacking, os.SEEK_CUR)
            content, place, lacking = b"", place + len(content) + lacking, 0
        rest, need = content, max(BLOCK, lacking)


def _records(content: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where records start, one behind the other from the first byte on, and their events' lengths."""
    if len(content) < _FRAME:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if len(content) > 2 * BLOCK:  # one long record, in which a search would find anything
        return _chain(content)
    frames = _six_zeros(content) - 2
    frames = frames[frames >= 0]
    frames, lengths = _headed(content, frames)
    ends = frames + lengths + _FRAME
    joined = np.concatenate([frames[:1] == 0, frames[1:] == ends[:-1]]) & (ends <= len(content))
    if joined.all() and len(frames) and not _more(content, int(ends[-1])):
        return frames, lengths
    return _chain(content)


def _six_zeros(content: bytes) -> NDArray[np.int64]:
    """Return where six zeros begin, and a header may: its length's last bytes."""
    zero = np.frombuffer(content, np.uint8, len(content) - _FOOTER_BYTES) == 0
    two = zero[:-1] & zero[1:]
    four = two[:-2] & two[2:]
    return np.flatnonzero(four[:-2] & two[4:])


def _headed(content: bytes, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return those places where a length and its CRC stand, and the lengths."""
    frames = frames[frames <= len(content) - HEADER.size]
    lengths = _at(content, frames, "<u2").astype(np.int64)
    good = _short_crcs()[lengths] == _at(content, frames + 8, "<u4")
    return frames[good], lengths[good]


@functools.cache
def _short_crcs() -> NDArray[np.uint32]:
    """Return the masked CRC of each short length; a CRC of two bytes is that of each, combined by XOR."""
    low, high = (np.array([_plain(crc_of_length(byte << by)) for byte in range(256)]) for by in (0, 8))
    plain = (high[:, None] ^ low[None, :] ^ low[0]).ravel().astype(np.uint32)
    return (plain >> 15 | plain << 17) + np.uint32(_MASK)


def _plain(crc: int) -> int:
    """Return a CRC without TensorFlow's mask."""
    rotated = (crc - _MASK) % (1 << 32)
    return (rotated << 15 | rotated >> 17) % (1 << 32)


def _more(content: bytes, end: int) -> bool:
    """Tell whether another whole record follows, which a search for short ones did not find."""
    if len(content) - end < _FRAME:
        return False
    length, crc = HEADER.unpack_from(content, end)
    return crc == crc_of_length(length) and end + length + _FRAME <= len(content)


def _chain(content: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Go from record to record, which finds all of them, and takes longer."""
    frames, lengths, place = [], [], 0
    while _more(content, place):
        (length, _) = HEADER.unpack_from(content, place)
        frames.append(place)
        lengths.append(length)
        place += length + _FRAME
    return np.array(frames, np.int64), np.array(lengths, np.int64)


def check(start: bytes, place: int = 0) -> int:
    """Return how many bytes the record that begins with `start` lacks, as far as can be told.

    Raises GarbageError, of `place`, where no record begins so.
    """
    if len(start) < HEADER.size:
        if start[3:8].strip(b"\0"):  # no record is longer than 16 MiB, and no text has zeros there
            raise GarbageError(place)
        return 0
    length, crc = HEADER.unpack_from(start)
    if crc != crc_of_length(length):
        raise GarbageError(place)
    return length + _FRAME - len(start)


@functools.lru_cache(maxsize=4096)
def crc_of_length(length: int) -> int:
    """Return the masked CRC-32C that follows this length."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    return masked_crc32c(struct.pack("<Q", length))


def _at(content: bytes, places: NDArray[np.int64], kind: str) -> NDArray[Any]:
    """Return the numbers of a kind that stand at these places."""
    dtype = np.dtype(kind)
    return np.ndarray((len(content) - dtype.itemsize + 1,), dtype, content, strides=(1,))[places]


def _windows(content: bytes, size: int) -> NDArray[np.void]:
    """Return the `size` bytes from each place of `content` on, without a copy."""
    return np.ndarray((len(content) - size + 1,), f"V{size}", content, strides=(1,))
