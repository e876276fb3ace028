"""The points of one run out of its event files, in arrays."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from trainlab.run.templates import Scalar, Templates, padded
from trainlab.run.tfrecords import HEADER, GarbageError, blocks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from tensorboard.compat.proto.summary_pb2 import Summary

    from trainlab.run.tfrecords import Block

_SCALARS = "scalars"  # the plugin's name in a scalar tensor's metadata
_LONGEST = 4096  # bytes of an event that may be like others: longer ones are pictures
_FEW = 4  # events of a length: parsing them is faster
_TRIES = 2048  # templates tried on the events of a length, each of which looks at all of them
_RARE = 32  # tries that a template costs which fits few
_MISSES = 8  # events of a length that are no scalars, after which the rest is parsed one by one
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

    def lowest(self) -> int | None:
        """Return the place of the lowest value, None where all are NaN."""
        return None if np.isnan(self.values).all() else int(np.nanargmin(self.values))

    def highest(self) -> int | None:
        """Return the place of the highest value, None where all are NaN."""
        return None if np.isnan(self.values).all() else int(np.nanargmax(self.values))


class Gathered:
    """What the event files of one folder hold; files are added oldest first.

    Attributes: `config` from the hparams plugin; `count`, the number of events; `left_out`, what was more
    than is taken in, in words.
    """

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.left_out: list[str] = []
        self._parts: dict[str, list[Points]] = defaultdict(list)
        self._single: dict[str, list[tuple[int, int, float, float]]] = defaultdict(list)
        self._restarts: list[tuple[int, int]] = []  # (order, step)
        self.count = 0
        self._edges: list[tuple[float, float]] = []  # wall times of each block's first and last event
        self._kinds: dict[str, str] = {}  # tag -> plugin: writers may name it in a tag's first event only
        self._tags: set[str] = set()
        self._points = self._parsed = 0

    def add(self, file: IO[bytes]) -> None:
        """Take in a file; raise GarbageError at the first byte that is no event, after what stands before."""
        self._kinds = {}
        for place, block in blocks(file):
            bad = self._add(block)
            if bad is not None:
                raise GarbageError(place + int(block.starts[bad]) - HEADER.size)
            if self._points > MOST_POINTS or self._parsed > MOST_PARSED:
                self._leave_out(f"more than {MOST_POINTS:,} points, or {MOST_PARSED:,} events of other kinds")
                return

    def curves(self) -> dict[str, Points]:
        """Return each tag's points in the order of logging, less those that a resumed run has taken back.

        Steps that start again without its mark take nothing back: several trainings may share a folder, and
        some programs log without steps.
        """
        restarts = sorted(self._restarts)
        tags = dict.fromkeys([*self._parts, *self._single])
        return {tag: _kept(self._joined(tag), restarts) for tag in tags}

    def span(self) -> tuple[float | None, float | None]:
        """Return when the first and the last event were written, None for what can't be known."""
        firsts, lasts = np.array(self._edges, np.float64).reshape(-1, 2).T
        if not plausible(np.concatenate([firsts, lasts])).all():
            points = [points.wall_times for points in self.curves().values()]
            firsts, lasts = np.concatenate([firsts, *points]), np.concatenate([lasts, *points])
        firsts, lasts = firsts[plausible(firsts)], lasts[plausible(lasts)]
        return (float(firsts.min()) if len(firsts) else None), (float(lasts.max()) if len(lasts) else None)

    def _joined(self, tag: str) -> Points:
        parts = list(self._parts.get(tag, ()))
        if single := self._single.get(tag):
            order, steps, wall_times, values = map(np.array, zip(*single, strict=True))
            parts.append(Points(order, steps, wall_times, values))
        if len(parts) == 1:
            return parts[0]
        parts.sort(key=lambda part: part.order[0])  # mostly they follow one another
        return Points(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def _add(self, block: Block) -> int | None:
        """Take in a block up to its first bytes that are no event; return that one's number."""
        bad: list[int] = []
        waiting = np.ones(len(block.lengths), bool)
        while waiting[first := int(waiting.argmax())]:
            length = int(block.lengths[first])
            (numbers,) = (block.lengths == length).nonzero()
            waiting[numbers] = False
            if len(numbers) >= _FEW and length <= _LONGEST:
                numbers = self._alike(block, numbers, length)
            bad += [number for number in numbers.tolist() if not self._parse(block, number)]
        good = min(bad, default=len(block.lengths))
        if bad:
            self._forget(self.count + good)
        if good:
            self._edges.append((_time(block, 0), _time(block, good - 1)))
        self.count += good
        return good if bad else None

    def _forget(self, first: int) -> None:
        """Drop what records from `first` on have said."""
        for parts in self._parts.values():
            parts[:] = [each if each.order[-1] < first else each.chosen(each.order < first) for each in parts]
        for single in self._single.values():
            while single and single[-1][0] >= first:
                single.pop()
        self._restarts = [restart for restart in self._restarts if restart[0] < first]

    def _alike(self, block: Block, numbers: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Take in the events that are like others of their length; return the numbers of those left."""
        rows = block.ends(numbers, padded(length))
        columns = np.ascontiguousarray(rows.T)
        waiting = np.ones(len(numbers), bool)
        missed: list[int] = []
        tries = _TRIES
        while len(missed) < _MISSES and tries > 0 and waiting[first := int(waiting.argmax())]:
            template = _templates.of(block.event(numbers[first]))
            if (
                template is None
                or not self._means_scalar(template.scalar)
                or not self._takes(template.scalar.tag)
            ):
                missed.append(first)
                waiting[first] = False
                continue
            (which,) = template.fits(columns).nonzero()
            points = template.points(rows[which])
            self._parts[template.scalar.tag].append(Points(numbers[which] + self.count, *points))
            waiting[which] = False
            self._points += len(which)
            tries -= 1 if len(which) >= _FEW else _RARE
        waiting[missed] = True
        return numbers[waiting]

    def _means_scalar(self, scalar: Scalar) -> bool:
        if scalar.plugin:
            self._name_kind(scalar.tag, scalar.plugin)
        return scalar.simple or self._kinds.get(scalar.tag) == _SCALARS

    def _parse(self, block: Block, number: int) -> bool:
        """Take in one event; return False where it is none."""
        self._parsed += 1
        try:
            event = Event.FromString(block.event(number))
        except DecodeError:
            return False
        order = self.count + number
        resumed = event.session_log.status == SessionLog.START
        if resumed and len(self._restarts) < MOST_RESTARTS:  # `purge_step`: a resumed run takes back the rest
            self._restarts.append((order, event.step))
        for value in event.summary.value:
            self._take(value, event, order)
        return True

    def _take(self, value: Summary.Value, event: Event, order: int) -> None:
        if value.metadata.plugin_data.plugin_name:
            self._name_kind(value.tag, value.metadata.plugin_data.plugin_name)
        kind = self._kinds.get(value.tag)
        if kind == "hparams":
            self.config |= _hyperparameters(value)
            return
        number = _number(value) if value.HasField("simple_value") or kind == _SCALARS else None
        if number is not None and self._takes(value.tag):
            self._single[value.tag].append((order, event.step, event.wall_time, number))
            self._points += 1

    def _name_kind(self, tag: str, plugin: str) -> None:
        if len(self._kinds) < MOST_KINDS:
            self._kinds[tag] = plugin

    def _takes(self, tag: str) -> bool:
        """Tell whether a tag is one of those taken in, of which there are not without end."""
        if tag not in self._tags:
            if len(self._tags) >= MOST_TAGS or len(tag) > LONGEST_TAG:
                self._leave_out(f"more than {MOST_TAGS:,} tags, or longer ones than {LONGEST_TAG:,} letters")
                return False
            self._tags.add(tag)
        return True

    def _leave_out(self, what: str) -> None:
        sentence = f"{what}: the rest is left out."
        if sentence not in self.left_out:
            self.left_out.append(sentence)


def _time(block: Block, number: int) -> float:
    return Event.FromString(block.event(number)).wall_time


def plausible(wall_times: ArrayLike) -> NDArray[np.bool_]:
    """Tell which times can be when an event was written: writers also leave NaN, 0 and milliseconds."""
    times = np.asarray(wall_times)
    return (times >= _EARLIEST) & (times <= time.time() + _CLOCKS)


def _kept(points: Points, restarts: list[tuple[int, int]]) -> Points:
    """Put points into the order of their records; leave out those that a later restart takes back.

    A restart (order, step) takes back what stands before it at its step or a later one.
    """
    if not (points.order[1:] > points.order[:-1]).all():
        points = points.chosen(np.argsort(points.order, kind="stable"))
    if not restarts:
        return points
    at, steps = np.array(restarts, np.int64).T
    lowest_from = np.append(np.minimum.accumulate(steps[::-1])[::-1], np.iinfo(np.int64).max)
    return points.chosen(points.steps < lowest_from[np.searchsorted(at, points.order)])


def _scalar(event: bytes) -> Scalar | None:
    """Return what an event logs where that is one number, and nothing else."""
    try:
        parsed = Event.FromString(event)
    except DecodeError:
        return None
    if len(parsed.summary.value) != 1:
        return None
    (value,) = parsed.summary.value
    number, plugin = _number(value), value.metadata.plugin_data.plugin_name
    if number is None or plugin not in ("", _SCALARS):
        return None
    simple = value.HasField("simple_value")
    return Scalar(value.tag, parsed.step, parsed.wall_time, number, plugin, simple)


def _number(value: Summary.Value) -> float | None:
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
    try:
        array = tensor_util.make_ndarray(value.tensor)
    except (ValueError, TypeError, KeyError):  # it doesn't hold what it says
        return None
    return float(array.item()) if array.size == 1 and array.dtype.kind in "fiub" else None


def _hyperparameters(value: Summary.Value) -> dict[str, Any]:
    try:
        data = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
    except DecodeError:
        return {}
    hparams = data.session_start_info.hparams
    return {key: getattr(each, kind) for key, each in hparams.items() if (kind := each.WhichOneof("kind"))}


_templates = Templates(_scalar)
