"""Looks at a program's settings, and starts its runs, for whoever can't do either: a server that lives on.

Settings may import torch, and change meanwhile. So each look is a process of its own, and so is each start:
`python -m trainlab.headless.starting`, told what to do by JSON on standard input.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from trainlab import paths
from trainlab.cleaning import printable
from trainlab.config import SettingsError
from trainlab.errors import UserError
from trainlab.headless import fields, launcher, programs
from trainlab.headless.finding import SCRIPT
from trainlab.headless.parameters import given

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def ask(path: Path, **order: Any) -> dict[str, Any]:
    """Have a process of its own do what `answered` does, and return what that returns.

    Args:
        path: A notebook or script.
        order: What `answered` takes besides.

    Raises:
        UserError: The process has died: its last words.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps({"path": str(path), **order}),
        capture_output=True,
        text=True,
        check=False,
        cwd=paths.root(),
        start_new_session=True,
    )
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"{path.name} can't be started: {printable(said[-500:])}") from None


def answered(  # noqa: PLR0913
    path: str,
    *,
    values: Mapping[str, str] | None = None,
    words: list[str] | None = None,
    arguments: list[str] | None = None,
    name: str = "",
    resume: str = "",
    start: bool = False,
) -> dict[str, Any]:
    """Return what a program takes, and start a run of it, as `trainlab run -d` does, where that is wanted.

    Args:
        path: The program.
        values: Settings; one that is what the program takes anyway is not given to it.
        words: Others, as key=value.
        arguments: Of a script, behind these.
        name: Of the run.
        resume: The folder of the run to go on with.
        start: Whether to start it.

    Returns:
        `fields`, as `fields.of` has them; the settings that are `changed`; `faults`, a sentence for each
        setting that can't be, under '' for anything else; and the new run's `folder`, where it has started.
    """
    answer: dict[str, Any] = {"fields": [], "changed": {}, "faults": {}}
    try:
        if not resume:
            found = programs.find(path, {})
            answer["fields"] = fields.of(found)
            usual = {each["name"]: each["default"] for each in answer["fields"]}
            changed = {key: value for key, value in (values or {}).items() if value != usual.get(key)}
            told = [each.partition("=") for each in words or []]  # of a script without fields
            answer["changed"] = changed | {name: value for name, _, value in told}
            words = [*(f"{key}={value}" for key, value in changed.items()), *(words or [])]
            if start and path.endswith(SCRIPT):  # a notebook's settings are read before its folder is made
                found.read(given(words), True)
        if start:
            signal.pthread_sigmask(signal.SIG_BLOCK, launcher.PASSED_ON)
            folder, held, behind = launcher.prepared(
                path, words or (), arguments or (), name=name or None, resume=resume or None
            )
            launcher.start(folder, held, behind)
            answer["folder"] = str(folder)
    except SettingsError as error:
        answer["faults"] = error.faults
    except UserError as error:
        answer["faults"] = {at(str(error), [each["name"] for each in answer["fields"]]): str(error)}
    return answer


def at(said: str, names: list[str]) -> str:
    """Return the setting that a sentence begins with, '' where it is about something else."""
    return next((name for name in names if said.startswith((f"{name}=", f"{name}:"))), "")


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # what is imported may print
        said = answered(**json.load(sys.stdin))
    print(json.dumps(said))
