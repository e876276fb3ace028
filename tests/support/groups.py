"""Groups of tests that a machine can lack something for, and where the time of a session went."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections import defaultdict
from typing import TYPE_CHECKING

from project import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REQUIRED_IN_CI = ("docker", "browser")
SLOWEST = 10  # tests that the summary names


@functools.cache
def docker_lacks() -> str:
    """Return why Docker cannot be used, in the words of `make`, or ''."""
    if os.environ.get("ENGINE") == "local":
        return "ENGINE=local"
    script = "source stack/choice.sh && ask_docker && docker_problem"
    return subprocess.check_output(["bash", "-c", script], cwd=CHECKOUT, text=True).strip()


@functools.cache
def browser_lacks() -> str:
    """Return why browser tests cannot run, or ''."""
    return (
        "" if any(shutil.which(name) for name in BROWSERS) else f"none of {', '.join(BROWSERS)} is installed"
    )


@functools.cache
def gpu_lacks() -> str:
    """Return why GPU tests cannot run, or ''."""
    if not shutil.which("nvidia-smi"):
        return "no NVIDIA GPU here"
    import torch

    return "" if torch.cuda.is_available() else "torch in .venv is built without CUDA, or finds no driver"


LACKS: dict[str, Callable[[], str]] = {"docker": docker_lacks, "browser": browser_lacks, "gpu": gpu_lacks}
GROUPS = (*LACKS, "slow")


def groups(item: pytest.Item) -> list[str]:
    """Return the groups that a test belongs to."""
    return [name for name in GROUPS if item.get_closest_marker(name)]


class Times:
    """Seconds of a session's tests; a fixture that is shared counts for the test that made it."""

    def __init__(self, reports: Iterable[pytest.TestReport]) -> None:
        self.of_test: dict[str, float] = defaultdict(float)
        self.of_group: dict[str, float] = defaultdict(float)
        self.of_folder: dict[str, float] = defaultdict(float)
        for report in reports:
            self.of_test[report.nodeid] += report.duration
            self.of_folder[self.folder(report.nodeid)] += report.duration
            for name in set(GROUPS) & set(report.keywords):
                self.of_group[name] += report.duration

    @staticmethod
    def folder(test: str) -> str:
        """Return `tests/stack` of a test in there, `tests` of one that lies in no folder below."""
        return "/".join(test.partition("::")[0].split("/")[:-1][:2])

    def lines(self) -> Iterator[str]:
        """Yield the time of each folder, the longest first, and the tests that took longest."""
        for name, seconds in sorted(self.of_folder.items(), key=lambda each: -each[1]):
            yield f"{seconds:7.1f} s  {name}/"
        slow = sorted(self.of_test.items(), key=lambda each: -each[1])[:SLOWEST]
        if slow and slow[0][1] >= 1:
            yield "the slowest tests, with the fixtures that they made:"
        for test, seconds in slow:
            if seconds >= 1:
                yield f"{seconds:7.1f} s  {test}"
