"""What every test shares: groups that a machine can lack, and a last word on which of them were skipped.

A group is a mark (docker, browser, gpu, slow). Where a machine lacks what a group needs, its tests are
skipped with the reason; with CI=true a skip of docker or browser is a failure: CI is where everything runs.
The last word also says where the time went: by group, by folder, and the slowest tests.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import socket
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import side_by_side
from fake_machine import Machine
from groups import GROUPS, LACKS, REQUIRED_IN_CI, Times, groups
from lab import Lab, processes
from project import CHECKOUT, Project, copy_checkout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

# What needs torch from its first lines on. The rest is collected without it
WITH_TORCH = (
    *("checks", "experiments", "stack", "training"),
    *("run/test_checkpoint.py", "run/test_metrics.py", "run/test_restoring.py", "run/test_run_plain_loop.py"),
    "run/test_run_storage.py",
    *("runs/test_listing.py", "runs/test_listing_remembered.py"),
    *("test_faults.py", "test_files_texts.py", "test_hub.py", "trackers/test_csv.py"),
)
collect_ignore = [] if importlib.util.find_spec("torch") else list(WITH_TORCH)

CHROMIUM = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
PORT_RANGE = (20000, 32000)  # below the range that the system gives to outgoing connections

os.environ.pop("COLUMNS", None)  # of the terminal at hand, or what a worker has in its place: 80
os.environ.setdefault("TRAINLAB_QUIET", "1")  # runs say where they lie only where a test wants it
side_by_side.share_the_cores()

skipped: dict[str, str] = {}
deselected: Counter[str] = Counter()


def pytest_configure(config: pytest.Config) -> None:
    side_by_side.configure(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where there are two workers, keep units together, and start with those that take longest."""
    if side_by_side.is_worker(config):
        side_by_side.arrange(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal out whole files."""
    return side_by_side.scheduler(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose group this machine cannot run; in CI that is a failure."""
    for name in groups(item):
        if reason := LACKS.get(name, str)():
            skipped[name] = reason
            if os.environ.get("CI") == "true" and name in REQUIRED_IN_CI:
                pytest.fail(f"{name} tests must run in CI, and cannot: {reason}", pytrace=False)
            pytest.skip(f"{name}: {reason}")


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what -k or -m left out, group by group."""
    deselected.update(name for item in items for name in groups(item))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints the summary what this worker has skipped and left out."""
    if side_by_side.is_worker(session.config):
        session.config.workeroutput |= {"skipped": skipped, "deselected": dict(deselected)}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker told; all of them have left out the same tests, and one that died tells nothing."""
    told = getattr(node, "workeroutput", {})
    skipped.update(told.get("skipped", {}))
    deselected.update(Counter(told.get("deselected", {})) - deselected)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which groups were skipped and why, and where the time went, just above pytest's closing line."""
    reports = [each for kind in terminalreporter.stats.values() for each in kind]
    times = Times(each for each in reports if isinstance(each, pytest.TestReport))
    terminalreporter.section("groups")
    for name in GROUPS:
        if name in skipped:
            terminalreporter.line(f"{name:8} skipped: {skipped[name]}")
        elif deselected[name]:
            terminalreporter.line(f"{name:8} {deselected[name]} not selected (-k, -m)")
        else:
            terminalreporter.line(f"{name:8} nothing skipped, {times.of_group[name]:.1f} s")
    for line in times.lines():
        terminalreporter.line(line)


@pytest.fixture(autouse=True)
def own_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs and models of a test lie in its own folder, never among the user's."""
    monkeypatch.setenv("TRAINLAB_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("TRAINLAB_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("TRAINLAB_RUN", raising=False)
    return tmp_path / "logs"


def free_ports() -> Iterator[int]:
    """Yield ports nobody listens on, each once and none that another worker yields."""
    number, workers = side_by_side.place()
    session = os.getpid() if workers == 1 else os.getppid()
    first = PORT_RANGE[0] + session % 10000
    for port in range(first + number, PORT_RANGE[1], workers):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                yield port


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Return a function that names a port nobody listens on, another at each call."""
    return functools.partial(next, free_ports())


@pytest.fixture(scope="module")
def local_project(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Project]:
    """Copy the checkout for the local engine, with our .venv and ports of its own, stopped at the end."""
    subprocess.run([CHECKOUT / "develop/install-tests"], check=True)
    folder = copy_checkout(tmp_path_factory.mktemp("local"))
    (folder / ".venv").symlink_to(CHECKOUT / ".venv")
    ports = {"JUPYTER_PORT": str(free_port()), "TENSORBOARD_PORT": str(free_port())}
    project = Project(folder, {"ENGINE": "local", "GPU": "0", **ports})
    yield project
    project.make("down")


@pytest.fixture
def machine(tmp_path: Path, free_port: Callable[[], int]) -> Machine:
    found = Machine(tmp_path / "project", free_port)
    found.tool("df", "#!/bin/bash\nprintf 'Filesystem 1024-blocks Used Available\\nx 9 9 104857600\\n'\n")
    return found


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A project; whatever its tests started is ended."""
    lab = Lab(tmp_path)
    yield lab
    for process in processes(str(tmp_path)):
        process.kill()


@pytest.fixture
def here(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The same project, for calls in this process that start nothing."""
    monkeypatch.setenv("TRAINLAB_ROOT", str(lab.root))
    for name in ("LOGS", "NOTEBOOKS", "DATA", "MODELS"):
        monkeypatch.delenv(f"TRAINLAB_{name}", raising=False)
    return lab


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, that asks nobody for anything of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        yield started
        started.close()
