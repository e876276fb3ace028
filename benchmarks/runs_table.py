"""How long the table of a thousand foreign runs takes, against TensorBoard's EventAccumulator and tbparse.

`pip install tbparse && benchmarks/runs_table.py` writes runs of 10 tags and 1,000 steps into a temporary
folder (0.5 GB), and its table into benchmarks/runs_table.md. Every reader reads each of some runs in turn;
`trainlab runs` is a process of its own, first without what it remembers of event files, then with it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tbparse import SummaryReader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from trainlab.run import events
from trainlab.runs import listing

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS, STEPS = 1000, 1000
TAGS = (
    *("train/loss", "train/lr", "train/accuracy", "train/samples_per_second", "val/loss", "val/accuracy"),
    *("val/f1", "val/mrr", "vitals/cpu_percent", "vitals/memory_gib"),
)
COMPARED = 12  # runs that every reader reads
REPEATS = 5  # of the command
COMMAND = """
import atexit, pathlib, re, sys
from trainlab.cli import main
peak = lambda: re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]  # KB
atexit.register(lambda: print(peak(), file=sys.stderr))
main()
"""
LONG_AGO = 1_700_000_000  # seconds since 1970


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        logs = Path(temporary)
        folders = [write(logs / "foreign" / f"run{number:04d}", number) for number in range(RUNS)]
        text = "\n".join([*head(), *readers(folders[:COMPARED]), "", *commands(logs)]) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)


def head() -> list[str]:
    return [
        "# The table of runs\n",
        f"{RUNS:,} runs of others' writers, each {len(TAGS)} tags with {STEPS:,} steps. "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start. "
        "Made by `benchmarks/runs_table.py`.\n",
    ]


def write(folder: Path, number: int) -> Path:
    """Write one run's event file; only ten differ, for making them takes longer than reading them."""
    folder.mkdir(parents=True)
    path = folder / f"events.out.tfevents.{LONG_AGO}.host.1.0"
    first = folder.with_name(f"run{number % 10:04d}") / path.name
    if number < 10:
        with path.open("wb") as file:
            writer = RecordWriter(file)
            for event in made(number):
                writer.write(event.SerializeToString())
    else:
        shutil.copy(first, path)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return folder


def made(seed: int) -> list[Event]:
    rng = np.random.default_rng(seed)
    found = [Event(wall_time=LONG_AGO, file_version="brain.Event:2")]
    for step in range(STEPS):
        for tag in TAGS:
            value = Summary.Value(tag=tag, simple_value=float(rng.standard_normal()))
            found.append(Event(wall_time=LONG_AGO + step, step=step, summary=Summary(value=[value])))
    return found


def readers(folders: list[Path]) -> list[str]:
    ways: dict[str, Callable[[Path], object]] = {
        "trainlab, last and best of each tag": events.outcome,
        "trainlab, every point": events.read,
        "TensorBoard's EventAccumulator": accumulated,
        "tbparse": lambda folder: SummaryReader(str(folder)).scalars,
    }
    for work in ways.values():
        work(folders[0])  # imports, and what is made once
    turns = [{name: seconds(work, folder) for name, work in ways.items()} for folder in folders]
    times = {name: [turn[name] for turn in turns] for name in ways}
    ours = statistics.median(times["trainlab, last and best of each tag"])
    rows = [
        f"| {name} | {1000 * statistics.median(each):.1f} ({1000 * min(each):.1f} to {1000 * max(each):.1f}) "
        f"| {statistics.median(each) / ours:.0f} |"
        for name, each in times.items()
    ]
    title = f"| reader, {COMPARED} runs | milliseconds a run, median (range) | times ours |"
    return [title, "| --- | ---: | ---: |", *rows]


def accumulated(folder: Path) -> list[list[float]]:
    """Return all points as TensorBoard's reader has them."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return [[each.value for each in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]]


def seconds(work: Callable[[Path], object], folder: Path) -> float:
    start = time.perf_counter()
    work(folder)
    return time.perf_counter() - start


def commands(logs: Path) -> list[str]:
    few = logs / "few"
    for number in range(RUNS // 10):
        shutil.copytree(logs / "foreign" / f"run{number:04d}", few / f"run{number:04d}")
    rows = []
    for name, folder in ((f"{RUNS // 10:,} runs", few), (f"{RUNS:,} runs", logs / "foreign")):
        first = [command(folder, forget=True) for _ in range(REPEATS)]
        second = [command(folder, forget=False) for _ in range(REPEATS)]
        for when, measured in (("first", first), ("then", second)):
            walls, memory = zip(*measured, strict=True)
            rows.append(
                f"| {name}, {when} | {statistics.median(walls):.2f} ({min(walls):.2f} to {max(walls):.2f}) "
                f"| {max(memory)} |"
            )
    return ["| `trainlab runs` | seconds, median (range) | MB at most |", "| --- | ---: | ---: |", *rows]


def command(logs: Path, forget: bool) -> tuple[float, int]:
    """Return the seconds of `trainlab runs`, whole, and the memory it took at most."""
    if forget:
        (logs / listing.FILE).unlink(missing_ok=True)
    start = time.perf_counter()
    call = [sys.executable, "-c", COMMAND, "runs", "--logs", logs]
    done = subprocess.run(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, round(int(done.stderr) / 1000)


if __name__ == "__main__":
    main()
