"""The command that tells somebody elsewhere what happens to the runs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainlab import extras, paths
from trainlab.cleaning import printable
from trainlab.cli.options import Logs
from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from trainlab.notify.watch import SweepEnd

_PATIENCE = 120.0  # seconds for a list of sweeps, of which some may lie in a database elsewhere
_ENDED = ("done", "stopped")


def notify(
    test: Annotated[bool, typer.Option("--test", help="Send one message to each address, and end.")] = False,
    logs: Logs = None,
) -> None:
    """Tell the addresses in NOTIFY when a run finishes, fails, stalls or logs NaN; until Ctrl-C."""
    from trainlab.notify import channel, send, service

    addresses = send.taken() or send.known(_in_env_file())
    if not addresses:
        raise UserError(
            "NOTIFY names nobody to tell. In .env: NOTIFY='ntfy://a-long-secret-topic', or another address "
            "that Apprise knows (docs/notify.md), then make up."
        )
    extras.need("apprise", "trainlab notify")
    if not test:
        place = logs or paths.logs()
        service.run(place, addresses, lambda names: ended_sweeps(names, place))
        return
    codes = []
    for name, code in send.test(addresses):
        print(f"{name}  {send.WHAT_HAPPENED.get(code, send.WHAT_HAPPENED[channel.FAILED])}")
        codes.append(code)
    if any(code != channel.SENT for code in codes):
        raise typer.Exit(1)


def _in_env_file() -> str:
    """Return what `.env` says of NOTIFY, as the stack reads it: shells in the stack don't inherit it."""
    from trainlab.cli.doctor import READ_ENV

    command = ["bash", "-c", f'cd "$0" && {READ_ENV}', str(paths.root()), "NOTIFY"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=15, check=True).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""


def ended_sweeps(names: Collection[str], logs: Path) -> dict[str, SweepEnd]:
    """Return those of some sweeps that go on no more, and how they have ended.

    Another process lists them: it needs much that the watcher would keep in memory.
    """
    from trainlab.notify.watch import SweepEnd
    from trainlab.run import lock
    from trainlab.sweeps import definition

    led = {name for name in names if lock.taken(definition.folder(name, logs), definition.LEADER)}
    if not set(names) - led:
        return {}
    words = ["sweep", "list", "--format", "json", "--logs", str(logs)]
    command = [sys.executable, "-P", "-c", "from trainlab.cli import main; main()", *words]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=True)
        known = {each["sweep"]: each for each in json.loads(done.stdout)}
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return {}  # it is asked for again
    gone = {name: SweepEnd(state="deleted") for name in set(names) - led - known.keys()}
    return gone | {
        name: SweepEnd(state=each["state"], trials=_trials(each), goal=_goal(each))
        for name in set(names) - led
        if (each := known.get(name)) and each["state"] in _ENDED
    }


def _trials(known: dict[str, Any]) -> str:
    counted = ", ".join(f"{count} {state}" for state, count in known["by_state"].items() if count)
    return printable(f"{known['trials']} trials: {counted}" if counted else "no trials")


def _goal(known: dict[str, Any]) -> str:
    best = known["best"]
    return printable(f"best {known['goal']} {best:.4g}") if isinstance(best, int | float) else ""
