"""What a run uses of the machine while it trains, among its curves: `vitals/...`."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import threading
import time
from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from trainlab import system
from trainlab.run.metrics import VITALS
from trainlab.system import Gpus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAMPLE_SECONDS = 1.0  # between two looks at what rises and falls
LOG_SECONDS = 10.0  # between two points of a curve
STOP_SECONDS = 5.0  # to wait for a look that has begun; a driver may hang
GIB, MIB = 1 << 30, 1 << 20
MEANS = ("gpu_percent", "gpu_watts")  # of the looks since the last point; of the others the highest counts

T = TypeVar("T")


class Monitor:
    """A thread that logs what the container uses; outside of one, this process with its children.

    Every ten seconds, if the step has moved: `cpu_percent` (100 is all that it may use), `memory_gib` and
    `memory_percent` of the limit, where there is one (the highest of a look each second), `disk_read_mib_s`,
    `disk_write_mib_s`, `disk_free_gib`; of the GPUs `gpu_percent`, `gpu_memory_gib`, `gpu_watts`,
    `gpu_celsius`. A run that logged any step has one point at least.

    `log(values, step)` is called from the thread; `step()` is the last step logged, or None; `folder` lies on
    the disk whose free space counts. Nothing of this ever fails a run.
    """

    def __init__(
        self, log: Callable[[dict[str, float], int], None], step: Callable[[], int | None], folder: Path
    ) -> None:
        self._log, self._step, self._folder = log, step, folder
        self._logged = -1  # the step of the last point
        self._process = os.getpid()
        self._halted = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="trainlab-monitor", daemon=True)

    def start(self) -> None:
        """Start to watch, until `stop` or the interpreter's end."""
        atexit.register(self.stop)
        self._thread.start()

    def stop(self) -> None:
        """Log what came since the last point, and end; in a forked child, where there is no thread, nothing.

        Call it without a lock that `log` takes: it waits for the thread, a few seconds at most.
        """
        if os.getpid() != self._process:
            return
        atexit.unregister(self.stop)
        self._halted.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _watch(self) -> None:
        gauge = Gauge(self._folder)
        due = time.monotonic() + LOG_SECONDS
        while not self._halted.wait(SAMPLE_SECONDS):
            gauge.look()
            if time.monotonic() >= due and self._point(gauge):
                due = time.monotonic() + LOG_SECONDS
        gauge.look()
        self._point(gauge)
        gauge.close()

    def _point(self, gauge: Gauge) -> bool:
        """Log a point where the step has moved since the last one, and say so."""
        step = _tried(self._step)
        if step is None or step <= self._logged:
            return False
        self._logged = step
        values = {f"{VITALS}{name}": value for name, value in gauge.point().items()}
        _tried(lambda: self._log(values, step))
        return True


class Gauge:
    """Gathers what is used between two points."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._meter = system.meter()
        self._counters: dict[str, tuple[float, float]] = {}
        self._rates()
        self._seen: defaultdict[str, list[float]] = defaultdict(list)
        self._gpus = Gpus()

    def look(self) -> None:
        """Look at what rises and falls."""
        values = dict(_tried(self._gpus.sample) or {})
        memory = _tried(self._meter.memory_bytes)
        if memory is not None:
            values["memory_gib"] = memory / GIB
        for name, value in values.items():
            self._seen[name].append(value)

    def point(self) -> dict[str, float]:
        """Return the figures since the last point; those that can't be read are left out."""
        values = self._rates()
        values |= {name: fmean(seen) if name in MEANS else max(seen) for name, seen in self._seen.items()}
        self._seen.clear()
        limit = _tried(system.memory_limit)
        if limit and "memory_gib" in values:
            values["memory_percent"] = 100 * values["memory_gib"] * GIB / limit
        if disk := _tried(lambda: shutil.disk_usage(self._folder)):
            values["disk_free_gib"] = disk.free / GIB
        return values

    def close(self) -> None:
        """Let the GPUs' library go."""
        self._gpus.close()

    def _rates(self) -> dict[str, float]:
        """Return how fast the counters have risen since they were read last."""
        cpu, disk = _tried(self._meter.cpu_seconds), _tried(self._meter.disk_bytes)
        counted = {} if cpu is None else {"cpu_percent": 100 * cpu / system.cpus()}
        if disk is not None:
            counted |= {"disk_read_mib_s": disk[0] / MIB, "disk_write_mib_s": disk[1] / MIB}
        now, rates = time.monotonic(), {}
        for name, value in counted.items():
            before, then = self._counters.get(name, (value, now))
            if now > then:
                rates[name] = max(value - before, 0.0) / (now - then)
            self._counters[name] = (value, now)
        return rates


def _tried(read: Callable[[], T]) -> T | None:
    """Return what `read` gives, None where it fails: a process has ended, a driver is gone, a run is over."""
    try:
        return read()
    except Exception:
        logging.getLogger(__name__).debug("a figure is missing", exc_info=True)
        return None
