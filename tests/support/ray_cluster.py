"""A Ray cluster of one's own: nodes as processes of this machine, in an environment that has Ray."""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from project import clean_environment, copy_checkout
from waiting import until

NODE = "TEST_RAY_NODE"  # in the environment of whatever runs on a node: its name
STORE = 80_000_000  # bytes, the least that Ray takes for the objects of a node


class Cluster:
    """A cluster of one's own, which asks for a token: Ray listens at all of a machine's addresses."""

    def __init__(self, python: Path, port: int, **environment: str) -> None:
        self.python, self.at = python, f"127.0.0.1:{port}"
        self.folder = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp")  # sockets: short paths
        self.environment = {
            **{name: each for name, each in clean_environment().items() if name != "PYTHONPATH"},
            **{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)},
            **{"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
            **environment,
        }
        head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.folder.name}")
        try:
            self.start("one", *head)
        except BaseException:
            self.end()  # what has begun of it
            raise

    def start(self, name: str, *words: str) -> None:
        """Start a node with a CPU."""
        words = words or (f"--address={self.at}",)
        command = [self.python.with_name("ray"), "start", *words, "--num-cpus=1", "--num-gpus=0"]
        self.run(*command, f"--object-store-memory={STORE}", **{NODE: name})

    def run(self, *command: Any, **environment: str) -> str:
        done = subprocess.run(
            list(map(str, command)),
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def processes(self, name: str = "", command: str = "") -> list[psutil.Process]:
        """Return what runs on a node, or on all: Ray's own, workers and runs."""
        found, token = [], self.environment["RAY_AUTH_TOKEN"]
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                known = each.environ()
                ours = known.get("RAY_AUTH_TOKEN") == token and NODE in known and name in known[NODE]
                if ours and command in " ".join(each.cmdline()):
                    found.append(each)
        return found

    def workers(self) -> list[psutil.Process]:
        """Return the workers of trainlab that live on the nodes."""
        return self.processes(command="trainlab.sweeps.tethered")

    def kill(self, name: str = "") -> None:
        """Take a node's power away, or all nodes': whatever runs there is gone at once."""

        def killed() -> bool:
            found = self.processes(name)
            for each in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.send_signal(signal.SIGKILL)
            return not found

        until(killed, f"nothing runs on {name}")

    def end(self) -> None:
        self.kill()
        self.folder.cleanup()


def node_of(pid: int) -> str:
    """Return the node that a process runs on."""
    return psutil.Process(pid).environ()[NODE]


def installed(folder: Path) -> Path:
    """Make an environment with this checkout's wheel, and Ray from the package index; return its Python."""
    source, place = copy_checkout(folder / "source"), folder / "env"
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", folder, source], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    pip = [place / "bin/pip", "install", "--quiet", f"{wheel}[ray]"]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place / "bin/python"
