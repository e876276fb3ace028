"""What a session of tests says at its end: what was skipped and why, and where the time went."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import side_by_side
from groups import Times
from project import CHECKOUT, clean_environment

if TYPE_CHECKING:
    from pathlib import Path


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


def test_files_with_docker_tests_are_one_unit_and_every_other_file_is_one() -> None:
    """By the text of the file: whichever test is marked, by itself or by a list of the file's marks."""
    alone, listed = "tests/stack/test_compose.py::test_one", "tests/hosts/test_agent_containers.py::test_two"
    assert side_by_side.unit(alone) == side_by_side.unit(listed) == "docker"
    assert side_by_side.unit("tests/stack/test_make.py::test_three") == "tests/stack/test_make.py"


def test_two_workers_never_run_docker_tests_at_once(tmp_path: Path) -> None:
    (tmp_path / "started.py").write_text(
        "def pytest_runtest_logreport(report):\n"
        "    if report.when == 'setup' and hasattr(report, 'node'):\n"  # not in a worker itself
        "        print('ran', report.node.gateway.id, report.nodeid)\n"
    )
    tests = [
        "tests/stack/test_compose.py",
        "tests/hosts/test_agent_containers.py",
        "tests/stack/test_head.py",
    ]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "--numprocesses", "2", "-p", "started", *tests],
        cwd=CHECKOUT,
        env=clean_environment() | {"ENGINE": "local", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    ran = re.findall(r"ran (gw\d) (\S+)::", found)
    assert {file for _, file in ran} == set(tests)
    assert len({worker for worker, _ in ran}) == 1


def test_units_stay_together_and_those_that_take_longest_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "unit", lambda test: test.partition("::")[0].replace("d.py", "docker"))
    marked = {
        "a.py::quick": (),
        "b.py::quick": (),
        "b.py::quick_too": (),
        "c.py::quick": (),
        "c.py::slow": ("slow",),
        "d.py::with_containers": ("docker",),
        "d.py::quick": (),
    }
    items = [Item(name, marks) for name, marks in marked.items()]
    side_by_side.arrange(items)
    files = [item.nodeid.replace(".py::", " ") for item in items]
    assert files == [
        *("d with_containers", "d quick"),  # one engine, one worker
        *("c quick", "c slow"),
        *("b quick", "b quick_too"),
        "a quick",
    ]


class Item:
    """As much of a test as is looked at to arrange it."""

    def __init__(self, name: str, marks: tuple[str, ...]) -> None:
        self.nodeid, self.marks = name, marks

    def get_closest_marker(self, name: str) -> bool:
        return name in self.marks


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
