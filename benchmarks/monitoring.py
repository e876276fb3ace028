"""What recording and monitoring a run costs of a training step's time, on the CPU.

`benchmarks/monitoring.py` trains a small network in turn bare and recorded (a Run with its monitor, and two
numbers logged a step), with steps of about 30 and 300 milliseconds, and writes benchmarks/monitoring.md. On a
machine that does other things the times of steps say little: look at the load, and at what each part takes.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import trainlab
from trainlab.run.monitor import LOG_SECONDS, SAMPLE_SECONDS, Gauge

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = (0.03, 0.3)  # a step
BLOCK = 12.0  # seconds of training at a time: the monitor logs each ten
REPEATS = 5
WIDTH, ROWS = 256, 128
CALLS = 200  # to take the mean of, for the parts

Times = tuple[float, float]  # wall and CPU milliseconds a step


def main() -> None:
    head = [
        "# What recording and monitoring costs\n",
        f"Milliseconds a step, bare and recorded in turn, medians of {REPEATS} blocks of {BLOCK:.0f} s; "
        f"overheads of each pair, with their range. {os.cpu_count()} cores, torch on "
        f"{torch.get_num_threads()}, load {os.getloadavg()[0]:.1f} at the start. "
        "Made by `benchmarks/monitoring.py`.\n",
        "| step, bare | recorded | overhead, wall time | overhead, CPU time |",
        "| ---: | ---: | ---: | ---: |",
    ]
    rows = [row(seconds) for seconds in SECONDS]
    table = "\n".join([*head, *rows, *parts()]) + "\n"
    Path(__file__).with_suffix(".md").write_text(table)
    print(table)


def row(seconds: float) -> str:
    """Measure one length of step."""
    step = training(seconds)
    steps = round(BLOCK / seconds)
    pairs = [pair(step, steps, first=number % 2) for number in range(REPEATS)]
    walls = [statistics.median(times[kind][0] for times in pairs) for kind in (0, 1)]
    overheads = [[100 * (after[i] / before[i] - 1) for before, after in pairs] for i in (0, 1)]
    cells = [f"{wall:.1f}" for wall in walls] + [
        f"{statistics.median(each):.2f} % ({min(each):.2f} to {max(each):.2f})" for each in overheads
    ]
    return f"| {' | '.join(cells)} |"


def pair(step: Callable[[], float], steps: int, first: int) -> tuple[Times, Times]:
    """Return the times bare and recorded; measured in this order, or with `first` in the other."""
    if first:
        after = recorded(step, steps)
        return bare(step, steps), after
    return bare(step, steps), recorded(step, steps)


def training(seconds: float) -> Callable[[], float]:
    """Return a step of about so many seconds: as many passes of a small network as fit; it gives a loss."""
    network = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU(), torch.nn.Linear(WIDTH, WIDTH)
    )
    optimizer = torch.optim.AdamW(network.parameters())
    rows = torch.randn(ROWS, WIDTH)

    def passes(count: int) -> float:
        for _ in range(count):
            loss = (network(rows) - rows).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    passes(100)
    start = time.perf_counter()
    passes(200)
    count = max(1, round(200 * seconds / (time.perf_counter() - start)))
    return lambda: passes(count)


def bare(step: Callable[[], float], steps: int) -> Times:
    return timed(lambda _: step(), steps)


def recorded(step: Callable[[], float], steps: int) -> Times:
    with tempfile.TemporaryDirectory() as logs, trainlab.Run("benchmark", logs=Path(logs)) as run:
        run.log({"train/loss": step()}, 0)  # opens the event file, which is no step's business
        return timed(lambda number: run.log({"train/loss": step(), "train/lr": 1e-3}, 1 + number), steps)


def timed(work: Callable[[int], object], steps: int) -> Times:
    """Return the wall and CPU milliseconds that a step takes; CPU time is of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(steps):
        work(number)
    return 1000 * (time.perf_counter() - wall) / steps, 1000 * (time.process_time() - cpu) / steps


def parts() -> list[str]:
    """Return a table of the CPU time that each part takes, and its share of one CPU."""
    with (
        tempfile.TemporaryDirectory() as logs,
        trainlab.Run("benchmark", logs=Path(logs), monitor=False) as run,
    ):
        gauge = Gauge(run.folder)
        numbers = iter(range(10**9))
        measured = [
            ("two numbers logged", cpu(lambda: run.log({"a": 1.0, "b": 2.0}, next(numbers))), min(SECONDS)),
            ("a look at memory and GPUs", cpu(gauge.look), SAMPLE_SECONDS),
            ("a point of all figures", cpu(gauge.point), LOG_SECONDS),
            ("`run.json` written", cpu(run.update), 3.0),
        ]
        gauge.close()
    rows = [
        f"| {name} | {1000 * seconds:.2f} | {every:g} s | {100 * seconds / every:.3f} % |"
        for name, seconds, every in measured
    ]
    total = sum(100 * seconds / every for _, seconds, every in measured)
    return [
        "\n| part | CPU milliseconds | each | of one CPU |",
        "| --- | ---: | ---: | ---: |",
        *rows,
        f"| together | | | {total:.3f} % |",
    ]


def cpu(work: Callable[[], object]) -> float:
    """Return the CPU seconds that this process spends on one call, its other threads' included."""
    start = time.process_time()
    for _ in range(CALLS):
        work()
    return (time.process_time() - start) / CALLS


if __name__ == "__main__":
    main()
