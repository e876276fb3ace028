"""What a session of tests says at its end: what was skipped and why, and where the time went."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import side_by_side
from groups import Times
from project import CHECKOUT, clean_environment


@pytest.mark.parametrize("workers", [(), ("--numprocesses", "2")], ids=["one process", "two workers"])
def test_docker_tests_are_skipped_with_the_engine_s_name_as_the_reason(workers: tuple[str, ...]) -> None:
    tests = ["tests/stack/test_compose.py", "tests/stack/test_entry.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *workers, *tests, "-k", "two_services"],
        cwd=CHECKOUT,
        env=clean_environment() | {"ENGINE": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "docker   skipped: ENGINE=local\n" in done.stdout
    assert "1 skipped" in done.stdout
    assert re.search(r"^slow +\d not selected", done.stdout, re.MULTILINE)
    assert "browser  nothing skipped, 0.0 s\n" in done.stdout
    assert re.search(r"^ +\d\.\d s  tests/stack/$", done.stdout, re.MULTILINE)


def test_units_stay_together_and_those_that_take_longest_come_first() -> None:
    marked = {
        "a.py::quick": (),
        "a.py::with_containers": ("docker", "slow"),
        "b.py::quick": (),
        "b.py::quick_too": (),
        "c.py::quick": (),
        "c.py::slow": ("slow",),
        "d.py::with_containers": ("docker",),
    }
    items = [Item(name, marks) for name, marks in marked.items()]
    side_by_side.arrange(items)
    files = [item.nodeid.replace(".py::", " ") for item in items]
    assert files == [
        *("a with_containers", "d with_containers"),  # one engine, one worker
        *("c quick", "c slow"),
        *("b quick", "b quick_too"),
        "a quick",
    ]
    assert [bool(item.added) for item in items] == [True, True, *[False] * 5]
    assert side_by_side.own_name("a.py::with_containers@docker") == "a.py::with_containers"


class Item:
    """As much of a test as is looked at to arrange it."""

    def __init__(self, name: str, marks: tuple[str, ...]) -> None:
        self.nodeid, self.marks, self.added = name, marks, []

    def get_closest_marker(self, name: str) -> bool:
        return name in self.marks

    def add_marker(self, mark: pytest.MarkDecorator) -> None:
        self.added.append(mark)


def report(test: str, when: str, seconds: float, *marks: str) -> pytest.TestReport:
    place = (test, 0, test)
    return pytest.TestReport(test, place, dict.fromkeys(marks, 1), "passed", None, when, duration=seconds)


def test_the_time_is_summed_by_group_and_folder_and_the_slowest_tests_are_named() -> None:
    times = Times(
        [
            report("tests/stack/test_stack.py::test_up", "setup", 300, "docker", "slow"),
            report("tests/stack/test_stack.py::test_up", "call", 2, "docker", "slow"),
            report("tests/experiments/news/test_data.py::test_read", "call", 5, "slow"),
            report("tests/test_config.py::test_parse[a/b]", "call", 0.5),
        ]
    )
    assert times.of_group == {"docker": 302, "slow": 307}
    assert list(times.lines()) == [
        "  302.0 s  tests/stack/",
        "    5.0 s  tests/experiments/",
        "    0.5 s  tests/",
        "the slowest tests, with the fixtures that they made:",
        "  302.0 s  tests/stack/test_stack.py::test_up",
        "    5.0 s  tests/experiments/news/test_data.py::test_read",
    ]
