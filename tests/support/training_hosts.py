"""Hosts that train one run together, here as processes of this machine, and the store at which they meet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from trainlab.runs.frames import scalars
from waiting import until

DEADLINE = 180.0  # seconds for a start and an end on a busy machine
WITHIN = 120.0  # seconds from a fault to a training that goes on, on a busy machine
COMMAND = "from trainlab.cli import main; main()"


class Training:
    """The one run of several hosts, as its folder shows it."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs

    @property
    def run(self) -> Path:
        """The one folder of the one run."""
        (folder,) = {each.parent for each in self.logs.glob("*/*/run.json")}
        return folder

    def record(self) -> dict[str, Any]:
        return json.loads((self.run / "run.json").read_text())

    def until_resumed(self, seen: int) -> dict[str, Any]:
        """Wait until the run has gone on once more than the times `seen`; return that entry of `resumes`."""

        def resumed() -> dict[str, Any] | None:
            known = self.record()
            more = known["status"] == "running" and known["resumes"][seen:]
            return more[-1] if more and more[-1]["step"] is not None else None

        found = until(resumed, f"resumed after {seen} times", WITHIN)
        assert found is not None
        return found

    def saved(self) -> list[str]:
        return sorted(each.name for each in self.logs.glob("*/*/checkpoints/step-*.ckpt"))

    def until_saved(self, count: int = 1) -> None:
        """Wait for as many checkpoints that are not there yet."""
        known = set(self.saved())
        seen: set[str] = set()

        def more() -> bool:
            seen.update(set(self.saved()) - known)
            return len(seen) >= count

        until(more, f"{count} new checkpoints", WITHIN)

    def logged(self) -> int:
        """The last step of the training loss, 0 before there is one."""
        if not any(self.logs.glob("*/*/run.json")):
            return 0
        return self.record()["last"].get("train/loss", {"step": 0})["step"]

    def steps(self, tag: str = "train/loss") -> list[int]:
        """The steps of a curve, as whoever looks at it sees them."""
        points = scalars(self.run)
        return points[points["tag"] == tag]["step"].tolist()


class Hosts(Training):
    """A folder with `logs/`, in which several hosts start the same line."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder / "logs")
        self.folder, self.port = folder, port
        self.started: list[subprocess.Popen[str]] = []

    def command(self, *words: str) -> subprocess.Popen[str]:
        paths = os.pathsep.join(sys.path)
        environment = os.environ | {
            "PYTHONPATH": paths,
            "TRAINLAB_LOGS": str(self.logs),
            "OMP_NUM_THREADS": "1",
        }
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *words], cwd=self.folder, env=environment, **pipes
        )
        self.started.append(started)
        return started

    def store(self) -> subprocess.Popen[str]:
        """Start the store, and wait until it serves."""
        store = self.command("store", "--port", str(self.port))
        assert store.stdout is not None
        assert store.stdout.readline().startswith("store: ")
        return store

    def host(self, *words: str, nodes: str = "1:2", name: str = "big") -> subprocess.Popen[str]:
        """Start one host's line."""
        return self.command(
            "run", *words, "--nodes", nodes, "--join", f"127.0.0.1:{self.port}", "--name", name
        )


def kill(host: subprocess.Popen[str]) -> None:
    """End a host's processes at once, as a power failure does."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(host.pid)
        for process in [first, *first.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    host.wait(timeout=DEADLINE)


def stopped(host: subprocess.Popen[str]) -> str:
    """Stop a host as Ctrl-C does; return what it printed."""
    host.send_signal(signal.SIGTERM)
    return host.communicate(timeout=DEADLINE)[0]


@contextmanager
def hosts(folder: Path, port: int) -> Iterator[Hosts]:
    """Yield hosts; end all that they started."""
    made = Hosts(folder, port)
    try:
        yield made
    finally:
        for each in made.started:
            kill(each)
