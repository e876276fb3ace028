"""What a sweep has found: its best trials, what sets them apart, which settings matter, and how to go on."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import paths
from trainlab.cleaning import lines, printable
from trainlab.errors import UserError
from trainlab.run import record, resuming, stopping
from trainlab.runs.display import Column, short, table_text
from trainlab.sweeps import space
from trainlab.sweeps.display import (
    curves_of,
    no_curves,
    ranked,
    reason,
    run_folder,
    runs_of_seeds,
    value_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trainlab.sweeps.definition import Definition
    from trainlab.sweeps.display import Curves
    from trainlab.sweeps.queue import Trial

BEST = 5  # trials that are shown
LONGER = 2  # times as long as in the sweep runs the best one on
_PARALLEL = ("--kind", "parallel", "-o", "parallel.svg")
_MOST_FAULTS = 3  # reasons of failed trials
_PATIENCE = 120  # seconds for the weighing of settings; some thousand trials need fewer than twenty


def summary(
    definition: Definition,
    trials: Sequence[Trial],
    curves: Curves = no_curves,
    logs: Path | None = None,
    weigh: bool = True,
) -> Iterator[str]:
    """Yield what a sweep has found, part by part: weighing the settings takes seconds.

    The best five trials and why some failed; what sets the best apart and how much each setting matters; the
    commands to go on with.

    Args:
        definition: The sweep.
        trials: All its trials.
        curves: Gives the goal's values of each run of a trial, one a validation; for the spread of seeds.
        logs: The folder of runs, by default `logs/`: a run's record says how long it was.
        weigh: Whether to weigh the settings.
    """
    order = ranked(definition, trials)
    if order:
        yield _best(definition, order[:BEST], curves)
    else:
        yield "No trial has finished with a value."
    if failed := [each for each in trials if each.state == "failed"]:
        parts = [f"trial {each.number} failed: {reason(definition, each)}" for each in failed[:_MOST_FAULTS]]
        more = len(failed) - _MOST_FAULTS
        yield "\n" + "\n".join(parts + ([f"... and {more} more that failed"] if more > 0 else []))
    if order and weigh:
        yield "\n" + weighed(definition, trials)
    if order:
        chosen = ["--sweep", definition.name, "--metric", definition.goal]
        yield "\n".join(
            printable(each)
            for each in (
                "",
                f"The best one, longer: {longer(definition, order[0], logs)}",
                f"Parallel coordinates: {_typed('runs', 'plot', *chosen, *_PARALLEL)}",
                f"All on one page: {_typed('runs', 'report', *chosen)}",
                f"In a notebook: notebooks/compare.ipynb with sweep = {definition.name!r}",
            )
        )


def _best(definition: Definition, top: Sequence[Trial], curves: Curves) -> str:
    """Return the best trials as a table, with the settings that vary and their runs."""
    values = [value_text(definition, each, curves_of(curves, each)) for each in top]
    settings = [
        Column(printable(name), [short(each.settings.get(name)) for each in top]) for name in definition.space
    ]
    shown = [
        Column("trial", [str(each.number) for each in top], right=True),
        Column(printable(definition.goal), values, right=True),
        *settings,
        Column("run", [printable(next(iter(runs_of_seeds(definition, each)), "")) for each in top]),
    ]
    return f"The best {len(top)}\n{table_text(shown)}" if len(top) > 1 else f"The best\n{table_text(shown)}"


def _typed(verb: str, *words: str) -> str:
    """Return what to type for a command, from where this one was typed."""
    typed = shlex.join(words)
    return f'make {verb} ARGS="{typed}"' if stopping.MAKE in os.environ else f"trainlab {verb} {typed}"


def longer(definition: Definition, trial: Trial, logs: Path | None = None) -> str:
    """Return the command that runs a trial's settings once more, for longer where a setting says how long."""
    settings: dict[str, Any] = {**definition.fixed, **trial.settings}
    if definition.seeds > 1:
        settings["seed"] = definition.seed  # of its first run
    known: dict[str, Any] = {}
    if trial.runs and (folder := run_folder(runs_of_seeds(definition, trial)[0], logs)):
        with suppress(UserError):
            known = record.read(folder).config
    fixed = {word.partition("=")[0] for word in definition.arguments}  # which count, whatever stands before
    for name in resuming.LENGTHS:
        if f"--{name}" in fixed:
            break
        now: Any = settings.get(name, known.get(name))
        with suppress(TypeError, ValueError):
            settings[name] = int(now) * LONGER
            break
    words = [f"{name}={space.text(value)}" for name, value in settings.items()]
    start = [*(["-m"] if definition.module else []), program(definition)]
    arguments = ["--", *definition.arguments] if definition.arguments else []
    return _typed("run", *start, *words, *arguments)


def program(definition: Definition) -> str:
    """Return what `trainlab run` calls the program: a notebook's bare name where it lies in notebooks/."""
    path = Path(definition.program)
    if definition.module or path.suffix != ".ipynb" or path.parent != paths.notebooks().resolve():
        return definition.program
    return path.stem


def weighed(definition: Definition, trials: Sequence[Trial]) -> str:
    """Return what sets the best trials apart from the rest, and how much each setting matters.

    Both as `trainlab runs report` has them, of the finished trials; in a process of its own, because what it
    imports would stay in the memory of a process that leads a sweep. Where it can't be told, why not.
    """
    order = ranked(definition, trials)
    told = {
        "goal": definition.goal,
        "mode": definition.mode,
        "best": BEST,
        "trials": [{"settings": each.settings, "value": each.value} for each in order],
    }
    command = [sys.executable, "-m", "trainlab.sweeps.weighing"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(told, default=str),
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"The settings were not weighed: it took more than {_PATIENCE} s."
    text = (
        done.stdout
        if done.returncode == 0
        else f"The settings were not weighed: {done.stderr.strip()[-300:]}"
    )
    return lines(text.strip("\n"))
