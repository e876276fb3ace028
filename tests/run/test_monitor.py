from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from trainlab import system
from trainlab.run import monitor as monitoring
from trainlab.run.monitor import Monitor

GIB, MIB = 1 << 30, 1 << 20
DEADLINE = 20.0


@pytest.fixture
def quick(monkeypatch):
    """Looks each hundredth of a second, points each tenth."""
    monkeypatch.setattr(monitoring, "SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(monitoring, "LOG_SECONDS", 0.1)


class Curves:
    """Stands for a run: its last step, and the points that were logged."""

    def __init__(self) -> None:
        self.last: int | None = None
        self.asked = 0
        self.points: list[tuple[int, dict[str, float]]] = []

    def log(self, values, step) -> None:
        self.points.append((step, values))

    def step(self) -> int | None:
        self.asked += 1
        return self.last

    def wait_until_asked(self, times: int) -> None:
        before, end = self.asked, time.monotonic() + DEADLINE
        while self.asked < before + times:
            assert time.monotonic() < end, "nobody asked for the step"
            time.sleep(0.01)


def test_a_run_however_short_has_one_point(tmp_path):
    curves = Curves()
    monitor = Monitor(curves.log, curves.step, tmp_path)
    monitor.start()
    curves.last = 7
    monitor.stop()
    [(step, values)] = curves.points
    assert step == 7
    assert values["vitals/memory_gib"] > 0.01
    assert values["vitals/disk_free_gib"] > 0
    assert values["vitals/cpu_percent"] >= 0
    assert all(name.startswith("vitals/") for name in values)


def test_rates_and_highest_and_mean_values_are_those_since_the_last_point(monkeypatch, tmp_path):
    now = {"time": 100.0, "cpu": 50.0, "memory": 0, "disk": (7 * MIB, 9 * MIB), "gpu": 0}
    meter = SimpleNamespace(
        cpu_seconds=lambda: now["cpu"], memory_bytes=lambda: now["memory"], disk_bytes=lambda: now["disk"]
    )
    monkeypatch.setattr(system, "meter", lambda: meter)
    monkeypatch.setattr(system, "cpus", lambda: 2.0)
    monkeypatch.setattr(system, "memory_limit", lambda: 10 * GIB)
    monkeypatch.setattr(monitoring.time, "monotonic", lambda: now["time"])
    monkeypatch.setattr(
        monitoring.Gpus, "sample", lambda _: {"gpu_percent": now["gpu"], "gpu_celsius": now["gpu"]}
    )
    gauge = monitoring.Gauge(tmp_path)
    for memory, gpu in ((3, 10), (5, 90), (4, 20)):
        now |= {"memory": memory * GIB, "gpu": gpu}
        gauge.look()
    now |= {"time": 110.0, "cpu": 65.0, "disk": (17 * MIB, 29 * MIB)}
    first = gauge.point()
    del first["disk_free_gib"]
    assert first == {
        "cpu_percent": 75,  # 15 of 20 seconds
        "memory_gib": 5,
        "memory_percent": 50,
        "disk_read_mib_s": 1,
        "disk_write_mib_s": 2,
        "gpu_percent": 40,
        "gpu_celsius": 90,
    }
    now |= {"time": 115.0, "memory": GIB}
    gauge.look()
    second = gauge.point()
    assert (second["cpu_percent"], second["memory_gib"], second["disk_read_mib_s"]) == (0, 1, 0)


def test_there_is_one_point_a_step_and_none_before_the_first(quick, tmp_path):
    curves = Curves()
    monitor = Monitor(curves.log, curves.step, tmp_path)
    monitor.start()
    curves.wait_until_asked(2)
    assert curves.points == []
    for step in (3, 4):
        curves.last = step
        curves.wait_until_asked(3)
    monitor.stop()
    monitor.stop()
    assert [step for step, _ in curves.points] == [3, 4]


def test_a_run_without_a_step_has_no_point(tmp_path):
    curves = Curves()
    monitor = Monitor(curves.log, curves.step, tmp_path)
    monitor.start()
    monitor.stop()
    assert curves.points == []


@pytest.mark.parametrize("broken", ["log", "step", "meter", "folder"])
def test_what_fails_in_it_never_fails_a_run(quick, monkeypatch, tmp_path, broken):
    tried = []

    def fail(*_):
        tried.append(1)
        raise OSError("broken")

    curves = Curves()
    curves.last = 1
    if broken == "meter":
        monkeypatch.setattr(system, "meter", lambda: system.Meter(fail, fail, fail))
    if broken in ("log", "step"):
        monkeypatch.setattr(curves, broken, fail)
    monitor = Monitor(curves.log, curves.step, tmp_path / "gone" if broken == "folder" else tmp_path)
    monitor.start()
    end = time.monotonic() + DEADLINE
    while not (curves.points or tried):
        assert time.monotonic() < end
        time.sleep(0.01)
    monitor.stop()
    assert "trainlab-monitor" not in [thread.name for thread in threading.enumerate()]
    if broken in ("meter", "folder"):
        [(_, values)] = curves.points
        assert ("vitals/disk_free_gib" in values) == (broken == "meter")


def test_a_forked_child_neither_logs_nor_hangs(quick, tmp_path):
    curves = Curves()
    monitor = Monitor(curves.log, curves.step, tmp_path)
    monitor.start()
    child = os.fork()
    if child == 0:
        curves.last = 1
        monitor.stop()
        os._exit(len(curves.points))
    assert os.waitpid(child, 0)[1] == 0
    monitor.stop()


def test_the_interpreter_ends_at_once_with_a_monitor_that_nobody_stopped(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom trainlab.run.monitor import Monitor\n"
        "Monitor(lambda values, step: print(step), lambda: 5, Path(sys.argv[1])).start()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    assert (ended.stdout, ended.stderr) == ("5\n", "")


def test_watching_costs_less_than_a_hundredth_of_one_cpu(tmp_path):
    gauge = monitoring.Gauge(tmp_path)
    start = time.thread_time()
    for _ in range(3):  # what comes in 30 seconds
        for _ in range(10):
            gauge.look()
        gauge.point()
    gauge.close()
    assert time.thread_time() - start < 0.3


def test_torch_is_not_imported():
    code = "import sys, trainlab.run.monitor; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
