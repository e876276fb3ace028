"""How a sweep is led from the command line: what is said, the table, a process of its own."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from trainlab import detaching
from trainlab.cleaning import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trainlab.sweeps.cluster import Cluster
    from trainlab.sweeps.definition import Definition
    from trainlab.sweeps.objective import Goal
    from trainlab.sweeps.queue import Queue, Trial
    from trainlab.sweeps.slots import Slots


def announce(definition: Definition, found: Slots | Cluster) -> None:
    """Say what begins, and how it is stopped and goes on."""
    from trainlab.sweeps.display import goal

    seeds = f" of {definition.seeds} seeds" if definition.seeds > 1 else ""
    prune = "" if definition.prune == "none" else f", pruned by {definition.prune}"
    print(f"sweep {definition.name}: {definition.trials:,} trials{seeds}, {definition.method}{prune}")
    print(f"goal: {goal(definition)}")
    print(places(found))
    print(f"stop: Ctrl-C, or {typed('stop', definition.name)}")
    print(f"go on: {typed('--resume', definition.name)}", flush=True)


def places(found: Slots | Cluster) -> str:
    """Return how many slots there are, and with how many threads, or what of a cluster."""
    from trainlab.sweeps.slots import Slots

    if not isinstance(found, Slots):
        return printable(str(found))
    count, threads = len(found.all), {each.threads for each in found.all}
    kind = "GPUs" if found.all[0].gpu else "CPUs"
    each = " to ".join(map(str, sorted({min(threads), max(threads)})))
    said = f"{count} {'slots' if count > 1 else 'slot'} on {kind}, {each} threads each"
    return printable(f"{said}. {found.remark}" if found.remark else said)


def typed(*words: str) -> str:
    """Return what to type for a command of a sweep, from where this one was typed."""
    from trainlab.run import stopping

    said = shlex.join(words)
    return f'make sweep ARGS="{said}"' if stopping.MAKE in os.environ else f"trainlab sweep {said}"


def lead(definition: Definition, found: Slots | Cluster, at: str | None, logs: Path | None) -> int:
    """Lead a sweep with its table in view; say at its end what it has found."""
    from trainlab.sweeps import cluster
    from trainlab.sweeps import worker as loop
    from trainlab.sweeps.board import Board, read_or_not
    from trainlab.sweeps.display import counts, heading

    curves, sign = Curves(definition, logs), detaching.FirstSign()
    with Board(definition, curves) as board:

        def show(queue: Queue, last: bool) -> None:
            board(queue, last)
            sign.give()

        if isinstance(found, cluster.Cluster):
            code = cluster.lead(definition, found, at=at, logs=logs, show=show)
        else:
            code = loop.lead(definition, slots=found, at=at, logs=logs, show=show)
    trials = opened(definition, at, logs).trials()
    with read_or_not():
        if code > 128:  # a signal
            print(f"{definition.name}: {counts(trials)}")
            print(f"go on: {typed('--resume', definition.name)}")
        else:
            print(f"{heading(definition, trials)}\n")
            print_summary(definition, trials, logs)
    return code


def print_summary(
    definition: Definition, trials: Sequence[Trial], logs: Path | None, weigh: bool = True
) -> None:
    """Print what a sweep has found."""
    from trainlab.sweeps import summary

    for part in summary.summary(definition, trials, Curves(definition, logs), logs, weigh):
        print(part, flush=True)


def detached(definition: Definition, words: Sequence[str], logs: Path | None) -> None:
    """Let a process of its own lead a sweep, which the terminal's end does not reach."""
    from trainlab.sweeps.definition import OUTPUT, folder

    output = folder(definition.name, logs) / OUTPUT
    detaching.start(["sweep", *words], output)
    print(f"follow: {typed('show', definition.name)}, or {output}")


def opened(definition: Definition, at: str | None, logs: Path | None) -> Queue:
    """Return a sweep's queue."""
    from trainlab.sweeps.queue import Queue

    return Queue.open(definition, at, logs)


class Curves:
    """The goal's values of a trial's runs, each run read on from where the last look ended."""

    def __init__(self, definition: Definition, logs: Path | None) -> None:
        from trainlab import paths

        self.definition, self.goal, self.logs = definition, definition.goal, logs or paths.logs()
        self.known: dict[str, Goal] = {}

    def __call__(self, trial: Trial) -> list[list[float]]:
        """Return the values of each run, one a validation."""
        from trainlab.sweeps.display import run_folder, runs_of_seeds
        from trainlab.sweeps.objective import Goal

        found = []
        for run in runs_of_seeds(self.definition, trial):
            folder = run_folder(run, self.logs)
            if folder is not None:
                found.append(self.known.setdefault(run, Goal(folder, self.goal)).values())
        return found
