"""Scalars out of many events at once.

A training writes the same event again and again: all but its time, its step and its value stay the same. The
first one is parsed and becomes a template; those that differ from it in these bytes alone need no parsing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

WORD = 8  # bytes compared at once
_TIME_KEY, _TIME = 0x09, slice(1, 9)  # an event's first field: a key byte, then a double
_STEP_KEY, _STEP = 0x10, 9  # its second: a varint, left out for step 0
_LONGEST_STEP = 8  # bytes of seven bits each; what has more is parsed
_KINDS = ("<f4", "<f8")  # what a value may be stored as
_MARK = -1.2345678  # a value whose bytes tell where an event holds its value
_MOST = 64  # templates kept for a length: tags that are all different must not take memory without end


class Scalar(NamedTuple):
    """What an event says that logs one number; `plugin` is the one its metadata names, '' for none."""

    tag: str
    step: int
    wall_time: float  # seconds since 1970
    value: float
    plugin: str
    simple: bool  # a plain number; a tensor is a scalar only where its plugin says so


@dataclass(frozen=True)
class Template:
    """An event's bytes less those that change, as one number, and as words that end where the event ends."""

    scalar: Scalar
    mask: int  # ones where the event's bytes stay the same
    fixed: int  # these bytes
    words: tuple[tuple[int, np.uint64, np.uint64], ...]  # number, mask and fixed bytes of those that count
    layout: np.dtype  # of the words of an event: `time`, `value`, and the step's bytes, by their numbers

    def fits(self, columns: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Tell which events, whose words are columns, differ in time, step and value alone."""
        good = np.ones(columns.shape[1], bool)
        for number, mask, fixed in self.words:
            good &= columns[number] & mask == fixed
        return good

    def points(
        self, rows: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the steps, wall times and values of rows that fit."""
        events = rows.view(self.layout)[:, 0]
        steps = np.zeros(len(rows), np.int64)
        for number, name in enumerate((self.layout.names or ())[2:]):
            steps |= (events[name] & 0x7F).astype(np.int64) << (7 * number)
        return steps, events["time"].astype(np.float64), events["value"].astype(np.float64)


class Templates:
    """The templates found so far; `parse` returns the scalar that an event logs, None for all others."""

    def __init__(self, parse: Callable[[bytes], Scalar | None]) -> None:
        self._parse = parse
        self._known: dict[int, list[Template]] = {}

    def of(self, event: bytes) -> Template | None:
        """Return the template that an event fits, made of it if need be; None for what has none."""
        known = self._known.setdefault(len(event), [])
        number = int.from_bytes(event)
        for template in reversed(known):
            if number & template.mask == template.fixed:
                return template
        made = self._made(event)
        if made is not None:
            known.append(made)
            del known[:-_MOST]
        return made

    def _made(self, event: bytes) -> Template | None:
        scalar, step_bytes = self._parse(event), _step_bytes(event)
        if scalar is None or step_bytes is None:
            return None
        for kind in _KINDS:
            packed = np.array(scalar.value, kind).tobytes()
            place = event.rfind(packed)
            mark = np.array(_MARK, kind)
            marked = self._parse(event[:place] + mark.tobytes() + event[place + len(packed) :])
            if place > _STEP and marked == scalar._replace(value=float(mark)):
                mask = _mask(len(event), step_bytes, slice(place, place + len(packed)))
                fixed = int.from_bytes(event) & int.from_bytes(mask)
                words = _words(mask, fixed.to_bytes(len(event)))
                layout = _layout(len(event), step_bytes, place, kind)
                return Template(scalar, int.from_bytes(mask), fixed, words, layout)
        return None


def padded(length: int) -> int:
    """Return the bytes of as many whole words as an event of this length needs."""
    return -(-length // WORD) * WORD


def _mask(length: int, step_bytes: int, value: slice) -> bytes:
    """Return ones where an event's bytes stay the same; of a varint, the bits 'more follow'."""
    mask = np.full(length, 0xFF, np.uint8)
    mask[_TIME], mask[value] = 0, 0
    mask[_STEP + 1 : _STEP + 1 + step_bytes] = 0x80
    return mask.tobytes()


def _words(mask: bytes, fixed: bytes) -> tuple[tuple[int, np.uint64, np.uint64], ...]:
    """Return number, mask and fixed bytes of each word that has any of these."""
    size = padded(len(mask))
    masks, bytes_ = (np.frombuffer(each.rjust(size, b"\0"), np.uint64) for each in (mask, fixed))
    return tuple((number, masks[number], bytes_[number]) for number in np.flatnonzero(masks).tolist())


def _step_bytes(event: bytes) -> int | None:
    """Return the size of the step's varint, 0 for step 0; None where the event doesn't begin as all do."""
    if len(event) < _STEP + 1 or event[0] != _TIME_KEY:
        return None
    if event[_STEP] != _STEP_KEY:
        return 0
    size = next((size for size, byte in enumerate(event[_STEP + 1 :], 1) if byte < 0x80), 0)
    return size if 0 < size <= _LONGEST_STEP else None


def _layout(length: int, step_bytes: int, place: int, kind: str) -> np.dtype:
    """Return where an event's numbers lie in its words, which end where it ends."""
    before = padded(length) - length
    steps = [_STEP + 1 + number for number in range(step_bytes)]
    return np.dtype(
        {
            "names": ["time", "value", *map(str, range(step_bytes))],
            "formats": ["<f8", kind, *["u1"] * step_bytes],
            "offsets": [before + each for each in (_TIME.start, place, *steps)],
            "itemsize": padded(length),
        }
    )
