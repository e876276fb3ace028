"""Processes that take trials, or take them over, as fast as they can."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from trainlab.sweeps.definition import Definition
from trainlab.sweeps.queue import Owner, Queue


def owner(token: str) -> Owner:
    """Return an owner of this name."""
    return Owner("host", 1, 1.0, "0", token)


def take_all(ordered: Definition, logs: Path, token: str) -> list[int]:
    """Take and finish trials until none waits."""
    queue, taken = Queue.open(ordered, logs=logs), []
    while trial := queue.take(owner(token)):
        taken.append(trial.number)
        queue.finish(trial.number, owner(token), "finished", 1.0)
    return taken


def take_over(ordered: Definition, logs: Path, token: str, before: Owner) -> tuple[list[int], list[int]]:
    """Adopt each trial below 10, and let each other one wait, that `before` has lost."""
    queue = Queue.open(ordered, logs=logs)
    adopted = [number for number in range(10) if queue.adopt(number, before, owner(token))]
    return adopted, [number for number in range(10, 20) if queue.requeue(number, before, token)]


def at_once(target: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return what a function returns in processes of their own, all of which run at the same time."""
    arguments = list(arguments)
    with multiprocessing.get_context("spawn").Pool(len(arguments)) as pool:
        return pool.starmap_async(target, arguments, chunksize=1).get(timeout=300)
