"""Two workers of pytest at once (pytest-xdist), as `make test` starts them: what they get, and in what order.

The unit that is dealt out is a file, so that its fixtures are made once; all files with Docker tests are one.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from typing import Any

import pytest

from project import CHECKOUT

ENGINE = "docker"  # the mark of tests that would build and stop, beside one another, what the other one needs


def configure(config: pytest.Config) -> None:
    """Deal out units where workers were asked for, `--numprocesses 2`, whatever else was."""
    if getattr(config.option, "numprocesses", None):
        config.option.dist, config.option.loadscopereorder = "loadscope", False


def is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def place() -> tuple[int, int]:
    """Return which worker this is, and how many there are; (0, 1) where there is one process."""
    name = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return int(name.removeprefix("gw")), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def share_the_cores() -> None:
    """Give each worker its share of threads: more of them than cores slow each other (OpenMP's spin)."""
    _, workers = place()
    if workers > 1:
        share = max(1, len(os.sched_getaffinity(0)) // workers)
        os.environ.setdefault("OMP_NUM_THREADS", str(share))


def unit(test: str) -> str:
    """Return the unit of a test: its file, or the one of all files with Docker tests.

    By the file's text: the process that deals out the units knows names alone, and pytest 9.2 leaves out the
    groups that pytest-xdist 3.8 would put into these.
    """
    file = test.partition("::")[0]
    return ENGINE if _needs_engine(file) else file


@functools.cache
def _needs_engine(file: str) -> bool:
    return f"pytest.mark.{ENGINE}" in (CHECKOUT / file).read_text()


def arrange(items: list[pytest.Item]) -> None:
    """Put the units that take longest first, so that at the end no worker waits long for the other.

    Docker's tests take a third of all time; a file the longer, the more tests it has that are marked slow.
    """
    units = {item: unit(item.nodeid) for item in items}
    tests = Counter(units.values())
    slow = Counter(units[item] for item in items if item.get_closest_marker("slow"))
    order = sorted(tests, key=lambda each: (each != ENGINE, -slow[each], -tests[each]))
    items.sort(key=lambda item: order.index(units[item]))


def scheduler(config: pytest.Config, log: Any) -> Any:
    """Return what deals out the units, each as a whole to one worker, in the order that they came in."""
    from xdist.scheduler import LoadScopeScheduling

    class OfUnits(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    return OfUnits(config, log)
