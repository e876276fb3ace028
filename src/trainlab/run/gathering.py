"""The points of one run out of its event files, in arrays.

A training writes the same event again and again: all but its time, its step and its value stay the same. The
first one is parsed, and tells where the value lies; those that are the same around it need no parsing. It is
ten times as fast as TensorBoard's EventAccumulator and more.
"""

from __future__ import annotations

import functools
import struct
import time
from array import array
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from trainlab.run.messages import START, Event, HParams
from trainlab.run.tfrecords import FRAME, GarbageError, blocks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_TENSORS = {  # the `dtype` of a tensor that can hold a number: as NumPy has it, and the field that it lies in
    1: ("<f4", "float_val"),
    2: ("<f8", "double_val"),
    3: ("<i4", "int_val"),
    4: ("u1", "int_val"),
    5: ("<i2", "int_val"),
    6: ("i1", "int_val"),
    9: ("<i8", "int64_val"),
    10: ("?", "bool_val"),
    17: ("<u2", "int_val"),
    19: ("<f2", "half_val"),
}
_SCALARS = "scalars"  # the plugin's name in a scalar tensor's metadata
_TIME_KEY, _STEP_KEY = 0x09, 0x10  # an event begins with a double, then a varint, left out for step 0
_TIME_END = 9  # bytes
_LONGEST_STEP = 8  # bytes of seven bits each; what has more is parsed
_LONGEST = 4096  # bytes of an event that may be like others: longer ones are pictures
_DOUBLE = struct.Struct("<d")
_MARK = -1.2345678  # a value whose bytes tell where an event holds its value
_MOST_TEMPLATES = 20_000  # events that are alike but for their numbers, in one file, and
_MOST_PLACES = 4  # places of the value in events of one length: more would be a trap
_EARLIEST = 946_684_800.0  # 2000-01-01, in seconds since 1970: no writer of event files is older
_CLOCKS = 86_400.0  # seconds that another machine's clock may be ahead of this one's

# Of one run; with all of them reached, reading it takes a minute and 1 GB, however large its files are.
MOST_TAGS = 10_000
LONGEST_TAG = 1000  # letters
MOST_KINDS = 100_000  # tags of any kind, in one file
MOST_POINTS = 20_000_000
MOST_PARSED = 3_000_000  # events that are parsed one by one: pictures, histograms
MOST_RESTARTS = 10_000


class Points(NamedTuple):
    """Points of a tag: `order` is each one's record, counted through all files.

    Wall times are as they were written; see `plausible`.
    """

    order: NDArray[np.int64]
    steps: NDArray[np.int64]
    wall_times: NDArray[np.float64]
    values: NDArray[np.float64]

    def chosen(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Points:
        """Return some of the points, by their numbers or by a mask."""
        return Points(self.order[which], self.steps[which], self.wall_times[which], self.values[which])


class _Column(NamedTuple):
    """The points of a tag whose values are stored as one kind of number, as they come in."""

    order: array[int]
    steps: array[int]
    wall_times: bytearray  # doubles
    values: bytearray


class EventReader:
    """What the event files of one folder hold; files are added oldest first.

    Attributes: `config` from the hparams plugin; `count`, the number of events; `left_out`, what was more
    than is taken in, in words.
    """

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.left_out: list[str] = []
        self.count = 0
        self._columns: dict[str, dict[str, _Column]] = {}  # tag -> kind of number
        self._restarts: list[tuple[int, int]] = []  # (order, step)
        self._edges: list[tuple[float, float]] = []  # wall times of each block's first and last event
        self._kinds: dict[str, str] = {}  # tag -> plugin: writers may name it in a tag's first event only
        # Of events less time and step: {length: where a value may lie}, {(before it, behind it): its column}
        self._places: dict[int, list[tuple[int, int]]] = {}
        self._templates: dict[tuple[bytes, bytes], _Column] = {}
        self._parsed = 0

    def add(self, file: IO[bytes]) -> None:
        """Take in a file; raise GarbageError at the first byte that is no event, after what stands before."""
        for known in (self._kinds, self._places, self._templates):
            known.clear()
        for place, block in blocks(file):
            good = self._add_block(block)
            if good:
                first, last = (Event.FromString(block[at]).wall_time for at in (0, good - 1))
                self._edges.append((first, last))
            self.count += good
            if good < len(block):
                raise GarbageError(place + sum(map(len, block[:good])) + FRAME * good)
            points = sum(len(each.order) for kinds in self._columns.values() for each in kinds.values())
            if points > MOST_POINTS or self._parsed > MOST_PARSED:
                self._leave_out(f"more than {MOST_POINTS:,} points, or {MOST_PARSED:,} events of other kinds")
                return

    def curves(self) -> dict[str, Points]:
        """Return each tag's points in the order of logging, less those that a resumed run has taken back.

        Steps that start again without its mark take nothing back: several trainings may share a folder, and
        some programs log without steps.
        """
        found = {}
        for tag, kinds in self._columns.items():
            parts = [
                Points(
                    np.array(each.order, np.int64),
                    np.array(each.steps, np.int64),
                    np.frombuffer(each.wall_times, "<f8"),
                    np.frombuffer(each.values, kind).astype(np.float64),
                )
                for kind, each in kinds.items()
            ]
            points = Points(*(np.concatenate(each) for each in zip(*parts, strict=True)))
            found[tag] = self._kept(points.chosen(np.argsort(points.order, kind="stable")))
        return found

    def _kept(self, points: Points) -> Points:
        """Leave out the points that stand before a restart, at its step or a later one."""
        if not self._restarts:
            return points
        at, steps = np.array(self._restarts, np.int64).T
        lowest_from = np.append(np.minimum.accumulate(steps[::-1])[::-1], np.iinfo(np.int64).max)
        return points.chosen(points.steps < lowest_from[np.searchsorted(at, points.order)])

    def span(self) -> tuple[float | None, float | None]:
        """Return when the first and the last event were written, None for what can't be known."""
        firsts, lasts = np.array(self._edges, np.float64).reshape(-1, 2).T
        if not plausible(np.concatenate([firsts, lasts])).all():
            points = [points.wall_times for points in self.curves().values()]
            firsts, lasts = np.concatenate([firsts, *points]), np.concatenate([lasts, *points])
        firsts, lasts = firsts[plausible(firsts)], lasts[plausible(lasts)]
        return (float(firsts.min()) if len(firsts) else None), (float(lasts.max()) if len(lasts) else None)

    def _add_block(self, block: list[bytes]) -> int:
        """Take in events, those that are like one before without parsing; return how many are good."""
        places, templates = self._places.get, self._templates.get
        end, step, field = 0, 0, b""  # of the event before: mostly several tags are logged at a step
        for order, event in enumerate(block, self.count):
            if not field or event[_TIME_END:end] != field or event[0] != _TIME_KEY:
                end = _step_end(event)
                field = event[_TIME_END:end]
                step = _step(field)
            rest = event[end:] if end else b""
            for start, stop in places(len(rest), ()):
                column = templates((rest[:start], rest[stop:]))
                if column is not None:
                    column.order.append(order)
                    column.steps.append(step)
                    column.wall_times.extend(event[1:_TIME_END])
                    column.values.extend(rest[start:stop])
                    break
            else:
                if not self._parse(event, order):
                    return order - self.count
        return len(block)

    def _parse(self, content: bytes, order: int) -> bool:
        """Take in one event; return False where it is none."""
        self._parsed += 1
        try:
            event = Event.FromString(content)
        except DecodeError:
            return False
        resumed = event.session_log.status == START
        if resumed and len(self._restarts) < MOST_RESTARTS:  # `purge_step`: a resumed run takes back the rest
            self._restarts.append((order, event.step))
        for value in event.summary.value:
            if (plugin := value.metadata.plugin_data.plugin_name) and len(self._kinds) < MOST_KINDS:
                if self._kinds.get(value.tag, plugin) != plugin:
                    self._templates.clear()
                self._kinds[value.tag] = plugin
            kind = self._kinds.get(value.tag)
            if kind == "hparams":
                self.config |= _hyperparameters(value)
            elif value.HasField("simple_value") or kind == _SCALARS:
                number = scalar(value)
                if number is not None and self._takes(value.tag):
                    column = self._column(value.tag, "<f8")
                    column.order.append(order)
                    column.steps.append(event.step)
                    column.wall_times.extend(_DOUBLE.pack(event.wall_time))
                    column.values.extend(_DOUBLE.pack(number))
                    self._learn(content, event, number)
        return True

    def _learn(self, content: bytes, event: Any, number: float) -> None:
        """Remember where an event that logs one number holds it, so that those like it need no parsing."""
        end = _step_end(content)
        begin, rest = content[:end], content[end:]
        parsed = (_DOUBLE.pack(event.wall_time), event.step)
        alone = len(event.summary.value) == 1 and len(self._templates) < _MOST_TEMPLATES
        if not end or not alone or parsed != (begin[1:_TIME_END], _step(begin[_TIME_END:])):
            return
        for kind in ("<f4", "<f8"):
            packed, mark = np.array(number, kind).tobytes(), np.array(_MARK, kind)
            start = rest.rfind(packed)
            place = (start, start + len(packed))
            places = self._places.setdefault(len(rest), [])
            if start < 0 or (place not in places and len(places) == _MOST_PLACES):
                continue
            before, behind = rest[:start], rest[place[1] :]
            try:
                marked = Event.FromString(begin + before + mark.tobytes() + behind)
            except DecodeError:
                continue
            if len(marked.summary.value) == 1 and scalar(marked.summary.value[0]) == float(mark):
                places += [place] * (place not in places)
                self._templates[before, behind] = self._column(event.summary.value[0].tag, kind)
                return

    def _column(self, tag: str, kind: str) -> _Column:
        kinds = self._columns.setdefault(tag, {})
        if kind not in kinds:
            kinds[kind] = _Column(array("q"), array("q"), bytearray(), bytearray())
        return kinds[kind]

    def _takes(self, tag: str) -> bool:
        """Tell whether a tag is one of those taken in, of which there are not without end."""
        known = tag in self._columns or (len(self._columns) < MOST_TAGS and len(tag) <= LONGEST_TAG)
        if not known:
            self._leave_out(f"more than {MOST_TAGS:,} tags, or longer ones than {LONGEST_TAG:,} letters")
        return known

    def _leave_out(self, what: str) -> None:
        sentence = f"{what}: the rest is left out."
        if sentence not in self.left_out:
            self.left_out.append(sentence)


def plausible(wall_times: ArrayLike) -> NDArray[np.bool_]:
    """Tell which times can be when an event was written: writers also leave NaN, 0 and milliseconds."""
    times = np.asarray(wall_times)
    return (times >= _EARLIEST) & (times <= time.time() + _CLOCKS)


def _step_end(event: bytes) -> int:
    """Return where an event's step ends; 0 for one that doesn't begin as most do."""
    if not _TIME_END < len(event) <= _LONGEST or event[0] != _TIME_KEY:
        return 0
    if event[_TIME_END] != _STEP_KEY:
        return _TIME_END
    end = _TIME_END + 1
    last = min(end + _LONGEST_STEP, len(event))
    while end < last:
        end += 1
        if event[end - 1] < 0x80:
            return end
    return 0


@functools.lru_cache(maxsize=1 << 12)
def _step(field: bytes) -> int:
    """Return the number that a step's bytes stand for: a key, and seven bits of each that follows."""
    return sum((byte & 0x7F) << (7 * number) for number, byte in enumerate(field[1:]))


def scalar(value: Any) -> float | None:
    """Return the one number that a value holds, None where it holds something else."""
    which = value.WhichOneof("value")
    if which == "simple_value":
        return value.simple_value
    if which != "tensor":
        return None
    if any(each.size != 1 for each in value.tensor.tensor_shape.dim):  # 2^60, say, of one number repeated
        return None
    if len(value.tensor.float_val) == 1:
        return value.tensor.float_val[0]
    return _only(value.tensor)


def _only(tensor: Any) -> float | None:
    """Return the one number of a tensor, None where it holds another count or something else."""
    kind, field = _TENSORS.get(tensor.dtype, ("V1", "string_val"))
    content = tensor.tensor_content
    if not content:
        numbers = getattr(tensor, field)
        if len(numbers) != 1 or field == "string_val":
            return None
        if field != "half_val":
            return float(numbers[0])
        content = (numbers[0] & 0xFFFF).to_bytes(2, "little")
    fits = kind != "V1" and len(content) == np.dtype(kind).itemsize
    return float(np.frombuffer(content, kind)[0]) if fits else None


def _hyperparameters(value: Any) -> dict[str, Any]:
    try:
        data = HParams.FromString(value.metadata.plugin_data.content)
    except DecodeError:
        return {}
    settings = {each.key: each.value for each in data.session_start_info.hparams}
    return {key: getattr(each, kind) for key, each in settings.items() if (kind := each.WhichOneof("kind"))}
