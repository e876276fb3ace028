"""The two containers of a fresh clone, driven with `docker compose`, HTTP and commands inside."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from project import clean_environment, copy_checkout, lend_images

USER = 1000 if os.geteuid() == 0 else os.geteuid()
GROUP = 1000 if os.geteuid() == 0 else os.getegid()
# bash that sets $server to a process inside, for `Stack.inside`
CHILD = "read -r server _ </proc/$server/task/$server/children"
KEEPER = f"server=1; {CHILD}"  # process 1 is the init: its child keeps the server going,
SERVER = f"{KEEPER}; {CHILD}"  # and has it as its own child


@dataclass
class Stack:
    """A clone with its own ports, and what a person does in it."""

    folder: Path
    environment: dict[str, str]

    def whole_environment(self) -> dict[str, str]:
        return clean_environment() | self.environment

    def run(self, *command: str, check: bool = True, **changes: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.whole_environment() | changes,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def compose(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run("docker", "compose", *arguments, **options)

    def inside(self, service: str, command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a line of bash in a service's container."""
        return self.compose("exec", "-T", service, "bash", "-c", command, **options)

    def up(self, **changes: str) -> None:
        self.compose("up", "--detach", "--wait", **changes)

    def state(self, service: str) -> dict[str, Any]:
        name = self.compose("ps", "--all", "--quiet", service).stdout.strip()
        return json.loads(self.run("docker", "inspect", name).stdout)[0]

    def url(self, service: str, path: str) -> str:
        return f"http://127.0.0.1:{self.environment[f'{service.upper()}_PORT']}{path}"

    def drawn_token(self) -> str:
        """Return the token in the address that JupyterLab last printed."""
        printed = self.compose("logs", "jupyter").stdout
        address = re.escape(self.url("jupyter", "/lab?token="))
        return re.findall(address + r"([0-9a-f]{32,})", printed)[-1]

    def jupyter(self, method: str, path: str, token: str, body: Any = None) -> Any:
        """Call JupyterLab's REST interface."""
        request = urllib.request.Request(self.url("jupyter", path), method=method)
        request.add_header("Authorization", f"token {token}")
        request.data = json.dumps(body or {}).encode() if method != "GET" else None
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def tensorboard(self, path: str) -> Any:
        with urllib.request.urlopen(self.url("tensorboard", path), timeout=20) as answer:
            return json.load(answer)


@contextmanager
def started(folder: Path, free_port: Callable[[], int], **settings: str) -> Iterator[Stack]:
    """Start a fresh clone in a folder, whose name is the project's, with ports of its own; end it."""
    copy_checkout(folder)
    commit_all(folder)
    own(folder)
    environment = {f"{name}_PORT": str(free_port()) for name in ("JUPYTER", "TENSORBOARD")} | settings
    if USER != 1000:
        environment |= {"TRAINLAB_UID": str(USER), "TRAINLAB_GID": str(GROUP)}
    clone = Stack(folder, environment)
    lend_images(folder.name)
    try:
        clone.up()
        yield clone
    finally:
        clone.compose("down", "--volumes", "--rmi=all", "--remove-orphans", "--timeout", "5", check=False)


def commit_all(folder: Path) -> None:
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "-C", str(folder)]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=clone"]):
        subprocess.run([*git, *command], check=True)


def own(folder: Path) -> None:
    """Give a folder to the user of the containers; tests run as root own too much."""
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{USER}:{GROUP}", str(folder)], check=True)
