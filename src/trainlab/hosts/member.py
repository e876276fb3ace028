"""One process of a training over hosts: executes the notebook or script, as torchrun's agent tells it.

`python -m trainlab.hosts.member FOLDER OWN STORE PROGRAM MODULE [ARGUMENT]...`

The first process of all records the run; the first of each host shows what the code prints.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from trainlab.errors import UserError
from trainlab.headless.execution import ExitStatus, Screen
from trainlab.headless.finding import SCRIPT
from trainlab.headless.worker import program_words, run_notebook, run_script
from trainlab.hosts import rendezvous

WATCHED_EVERY = 0.5  # seconds
FIRST, FAILURE = "first", "failure"  # files for the agent: rank 0 is here; how a process failed by itself
# What torch raises in a process that has lost another one, or the network: not this process's own fault
_LOST = re.compile(
    r"\b(DistBackendError|DistNetworkError|DistStoreError|DistError)\b"
    r"|\bRuntimeError: .*(gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out)",
    re.IGNORECASE | re.DOTALL,
)


def main(folder: Path, own: Path, store: str, program: Path, module: str, arguments: list[str]) -> int:  # noqa: PLR0913, PLR0917
    """Execute it; return the exit code, by which the agent starts all processes again unless it is 0."""
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    first, first_here = (os.environ[name] == "0" for name in ("RANK", "LOCAL_RANK"))
    if first:
        (own / FIRST).touch()
    elif first_here:
        (own / FIRST).unlink(missing_ok=True)
    if not first_here:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - until the process ends
    screen = Screen()
    with suppress(UserError):  # its name may not be known while this host is cut off
        os.environ |= rendezvous.networks(rendezvous.endpoint(store))
    screen.line(f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}, in {_hosts()}")
    try:
        if program.suffix == SCRIPT:
            words = [*program_words(str(program), module), *arguments]
            end = run_script(folder, screen, words, str(Path.cwd()))
        else:
            end = run_notebook(folder, screen, own, program.parent, kept=first)
    except (OSError, UserError) as error:
        end = ExitStatus("failed", str(error), UserError.exit_code)
    if end.status == "failed" and not _LOST.search(end.reason or ""):
        _give_up(own, end)
    if end.status == "failed":
        screen.line("another process was lost: all start again from the last checkpoint")
    return end.code


def _hosts() -> str:
    count = int(os.environ["GROUP_WORLD_SIZE"])
    return "one host" if count == 1 else f"{count} hosts"


def _give_up(own: Path, end: ExitStatus) -> None:
    """Tell the agent why this host is to leave, and wait until the agent ends this process."""
    try:
        with (own / FAILURE).open("x") as file:  # a second process failed because of the first
            json.dump({"reason": end.reason, "code": end.code}, file)
    except FileExistsError:
        pass
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getppid(), signal.SIGTERM)
    while True:
        signal.pause()


def _end_with(agent: int) -> None:
    """End this process, as by a stop, where its agent was killed: nobody would know of it any more."""
    while os.getppid() == agent:
        time.sleep(WATCHED_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _folder, _own, _store, _program, _module, *_arguments = sys.argv[1:]
    sys.exit(main(Path(_folder), Path(_own), _store, Path(_program), _module, _arguments))
