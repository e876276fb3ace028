"""What was computed of some rows, kept for as long as they are the same: many look, and few runs move."""

from __future__ import annotations

import operator
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from trainlab.runs.listing import Row

T = TypeVar("T")
PAUSES = 4  # times as long as it took to compute something, nothing newer is computed


class Kept:
    """At most `most` values, those asked for last; rows are the same if they are the same objects."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._known: OrderedDict[Hashable, tuple[Sequence[Row] | None, float, Any]] = OrderedDict()

    def get(self, key: Hashable, rows: Sequence[Row], make: Callable[[], T]) -> T:
        """Return what `make` gives, or has given for the same rows; one at a time."""
        with self._lock:
            of, until, value = self._known.pop(key, (None, 0.0, None))
            same = of is not None and len(of) == len(rows) and all(map(operator.is_, of, rows))
            if not same and time.monotonic() >= until:
                began = time.monotonic()
                of, value = rows, make()
                until = time.monotonic() + PAUSES * (time.monotonic() - began)
            self._known[key] = (of, until, value)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
            return value
