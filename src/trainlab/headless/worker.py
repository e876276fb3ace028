"""Executes a prepared run: `python -m trainlab.headless.worker FOLDER [ARGUMENT]...`.

A process in a session of its own, so that it outlives the terminal and the browser. papermill executes a
notebook, cell by cell, and saves it as it fills; Python a script, with the arguments. What they print goes to
standard output as it comes (the run's `output.log`).
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

from trainlab import secrets
from trainlab.errors import UserError
from trainlab.headless.execution import ExitStatus, Screen, Script
from trainlab.run import record, stopping
from trainlab.run.recorder import unwritable


def main(folder: Path, arguments: list[str]) -> int:
    """Execute the run prepared in `folder`, write how it ended, and return the exit code."""
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    record.raise_oom_score(0)  # it watches over the run, and outlives it
    started, before, screen = time.monotonic(), 0.0, Screen()
    try:
        resumes = record.read(folder).resumes
        before = resumes[-1].seconds if resumes else 0.0
        fields = record.update(folder, pid=os.getpid()).model_dump()
        if script := fields.get("script"):
            words = [*program_words(script, fields.get("module")), *arguments]
            end = run_script(folder, screen, words, fields["working_folder"])
        else:
            end = run_notebook(folder, screen, folder, Path(fields["notebook"]).parent)
    except (OSError, UserError) as error:
        end = ExitStatus("failed", unwritable(folder, error), 1)
    except Exception as error:  # the record is to show it all the same
        screen.line(traceback.format_exc())
        end = ExitStatus("failed", f"{type(error).__name__}: {error}", 1)
    seconds = time.monotonic() - started  # by a clock that nobody sets
    last = f"{end.status} after {seconds:.0f} s"
    if end.status == "interrupted":
        last += f" by {end.reason}: {stopping.outcome(folder)}"
    elif end.reason and end.code != UserError.exit_code:  # that one shows whoever watches
        last += f": {end.reason}"
    screen.line(last)
    try:
        record.write_end(folder, end.status, end.reason, seconds=round(before + seconds, 3))
    except (OSError, UserError) as error:
        screen.line(f"How the run ended could not be written: {unwritable(folder, error)}")
    return end.code


def program_words(script: str, module: str | None) -> list[str]:
    """Return what Python is told to execute: a script, a module, or a function as `module:function`."""
    function = ["trainlab.headless.function"] if module and ":" in module else []
    return ["-m", *function, module] if module else [script]


def run_script(folder: Path, screen: Screen, words: list[str], place: str) -> ExitStatus:
    """Execute a script, or a module behind `-m`, with its arguments; return how it ended."""
    return Script(folder, screen, [sys.executable, *words], place).run()


def run_notebook(folder: Path, screen: Screen, source: Path, place: Path, *, kept: bool = True) -> ExitStatus:
    """Execute the notebook in the folder `source`, as if it lay in `place`; return how it ended.

    It is saved in the run's folder cell by cell where it is `kept`.
    """
    from trainlab.headless import notebook
    from trainlab.headless.engine import Notebook  # it takes a moment, which a script need not wait for

    nb = notebook.read(source / notebook.FILE)
    for cell in nb.cells:
        secrets.remember(secrets.named_in(cell.source))
    return Notebook(folder, screen, nb, place, kept=kept).run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
