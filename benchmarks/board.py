"""What the board costs, beside TensorBoard and MLflow's server, on the same thousand runs.

    .venv/bin/python benchmarks/board.py --output benchmarks/board.md

Writes runs of 5 curves with 100 points each into a temporary folder, and the same figures into a database of
MLflow's; then each server in turn is started, asked for what its first page shows, and left alone for a
while. For TensorBoard and MLflow that is what their pages ask for (`/data/runs`, `runs/search`): what the
browser draws of it is not measured, nor is the board's drawing.

A point counts as shown when an answer of the board has it; it is asked every two seconds, as the open page
does. Each viewer keeps a connection, and asks every two seconds for 20 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

import trainlab

RUNS, STEPS, REPEATS = 1000, 100, 10
VIEWERS, WATCHED, EVERY = 50, 20, 2  # people, seconds, seconds between two questions of each
IDLE = 20  # seconds
POINTS = 8  # that are waited for
FIRST = 300  # seconds until a server shows all runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="where the table goes; default: printed")
    parser.add_argument("--runs", type=int, default=RUNS)
    options = parser.parse_args()
    began = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        logs = folder / "logs"
        write(logs, options.runs)
        rows = [board(logs, options.runs), tensorboard(logs, options.runs), mlflow(folder, options.runs)]
        watching = viewers(logs)
        moving = points(logs)
    header = (
        "server",
        "start to all runs shown, s",
        "asked again, ms",
        "answer, kB",
        "memory, MiB",
        "of a core when idle, %",
    )
    lines = [
        f"{options.runs:,} runs of 5 curves with {STEPS} points; {os.cpu_count()} cores, load {began:.1f} at "
        "the start. Made by `benchmarks/board.py`.",
        "",
        f"| {' | '.join(header)} |",
        "|---|" + "---|" * (len(header) - 1),
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        watching,
        "",
        moving,
    ]
    text = "\n".join(lines) + "\n"
    if options.output:
        options.output.write_text(text)
    print(text)


def write(logs: Path, runs: int) -> None:
    """Record runs of twenty settings with fifty seeds each."""
    for number in range(runs):
        config = {"learning_rate": 10.0 ** -(number % 5), "margin": number % 4, "seed": number // 20}
        name = f"run{number:05d}"
        with trainlab.Run("mine", config, logs=logs, name=name, monitor=False) as run:
            for step in range(STEPS):
                value = (1 + number % 20) / (step + 1)
                run.log({"train/loss": value, "val/loss": value * 1.1, "val/accuracy": 1 - value / 21}, step)
                run.log({"val/f1": 1 - value / 25, "train/lr": config["learning_rate"]}, step)


@contextmanager
def served(command: list[str], ready: Callable[[str], str]) -> Iterator[tuple[psutil.Process, str]]:
    """Start a server; yield its process and its address, which `ready` reads from its first line."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield psutil.Process(process.pid), ready(process.stdout.readline() if ready is own_address else "")
    finally:
        for each in psutil.Process(process.pid).children(recursive=True):
            each.terminate()
        process.terminate()
        process.wait(30)


def own_address(line: str) -> str:
    return line.strip()


def figures(name: str, process: psutil.Process, began: float, ask: Callable[[], bytes | None]) -> list[str]:
    """Return a row of the table: `ask` returns what shows all runs, None where it doesn't yet."""
    while (shown := asked(ask)) is None:
        if time.monotonic() - began > FIRST:
            raise SystemExit(f"{name} does not show all runs within {FIRST} s.")
        time.sleep(0.1)
    start = time.monotonic() - began
    again = []
    for _ in range(REPEATS):
        time.sleep(1.1)  # longer than the board remembers what it has looked at
        since = time.monotonic()
        ask()
        again.append(1000 * (time.monotonic() - since))
    before = spent(process)
    time.sleep(IDLE)
    idle = 100 * (spent(process) - before) / IDLE
    memory = sum(each.memory_info().rss for each in family(process)) / 2**20
    spread = f"{statistics.median(again):.0f} ({min(again):.0f} to {max(again):.0f})"
    return [name, f"{start:.1f}", spread, f"{len(shown) / 1000:.0f}", f"{memory:.0f}", f"{idle:.1f}"]


def asked(ask: Callable[[], bytes | None]) -> bytes | None:
    """Return an answer, None while nobody answers."""
    try:
        return ask()
    except (OSError, http.client.HTTPException):
        return None


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def spent(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and those below it."""
    return sum(sum(each.cpu_times()[:2]) for each in family(process))


def got(address: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=FIRST) as answer:
        return answer.read()


def board_command(logs: Path) -> list[str]:
    return [str(Path(sys.executable).with_name("trainlab")), "board", "--logs", str(logs), "--port", port()]


def board(logs: Path, runs: int) -> list[str]:
    began = time.monotonic()
    with served(board_command(logs), own_address) as (process, address):

        def ask() -> bytes | None:
            page = got(address)
            return page if f"{runs:,}".encode() in page or str(runs).encode() in page else None

        return figures("board, its first page", process, began, ask)


def tensorboard(logs: Path, runs: int) -> list[str]:
    began, at = time.monotonic(), port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", at]
    with served(command, lambda _: f"http://127.0.0.1:{at}") as (process, address):

        def ask() -> bytes | None:
            names = got(f"{address}/data/runs")
            return names if len(json.loads(names)) >= runs else None

        return figures("TensorBoard, `/data/runs`", process, began, ask)


def mlflow(folder: Path, runs: int) -> list[str]:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    store = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(store)
    experiment = client.create_experiment("mine")
    for number in range(runs):
        run = client.create_run(experiment).info.run_id
        value = (1 + number % 20) / STEPS
        tags = ("train/loss", "val/loss", "val/accuracy", "val/f1", "train/lr")
        metrics = [Metric(tag, value, 0, step) for tag in tags for step in range(STEPS)]
        client.log_batch(run, metrics, [Param("margin", str(number % 4)), Param("seed", str(number // 20))])
        client.set_terminated(run)
    began, at = time.monotonic(), port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--port", at]
    with served(command, lambda _: f"http://127.0.0.1:{at}") as (process, address):
        question = json.dumps({"experiment_ids": [experiment], "max_results": runs}).encode()

        def ask() -> bytes | None:
            told = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{address}/api/2.0/mlflow/runs/search", question, told)
            with urllib.request.urlopen(request, timeout=FIRST) as answer:
                found = answer.read()
            return found if len(json.loads(found)["runs"]) >= runs else None

        return figures("MLflow's server, `runs/search`", process, began, ask)


def viewers(logs: Path) -> str:
    """Return what many people who look at the table at once wait for."""

    async def look(host: str, path: str, times: list[float]) -> None:
        seen = ""
        reader, writer = await asyncio.open_connection(*host.split(":"))
        until = time.monotonic() + WATCHED
        while time.monotonic() < until:
            since = time.monotonic()
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {host}\r\nHX-Request: true\r\nX-Seen: {seen}\r\n\r\n".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            told = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
            await reader.readexactly(int(told.get("content-length", 0)))
            seen = told.get("x-seen", seen)
            times.append(1000 * (time.monotonic() - since))
            await asyncio.sleep(max(0.0, EVERY - (time.monotonic() - since)))
        writer.close()

    with served(board_command(logs), own_address) as (process, address):
        got(address)
        host, _, path = address.removeprefix("http://").partition("/")
        before, times = spent(process), []

        async def all_of_them() -> None:
            await asyncio.gather(*(look(host, f"/{path}table", times) for _ in range(VIEWERS)))

        asyncio.run(all_of_them())
        share = 100 * (spent(process) - before) / WATCHED
    times.sort()
    return (
        f"{VIEWERS} people look at the table for {WATCHED} s: {len(times):,} answers, p50 "
        f"{statistics.median(times):.0f} ms, p95 {times[int(0.95 * len(times))]:.0f} ms, {share:.0f} % of a "
        "core."
    )


def points(logs: Path) -> str:
    """Return how long after it is logged a point is in the page of its run."""
    waited = []
    with served(board_command(logs), own_address) as (_, address):
        got(address)
        with trainlab.Run("mine", {"seed": -1}, logs=logs, name="moving", monitor=False) as run:
            page = f"{address}run/mine/{run.folder.name}"
            for step in range(POINTS):
                value = 0.1231 + step / 1000
                run.log({"val/loss": value}, step)
                since = time.monotonic()
                while f"{value:.4f}".encode() not in (asked(lambda: got(page)) or b""):
                    time.sleep(EVERY)
                    if time.monotonic() - since > FIRST:
                        raise SystemExit(f"{page} does not show {value:.4f}.")
                waited.append(time.monotonic() - since)
    return (
        f"A point is on the page of its run {statistics.median(waited):.1f} s after it is logged "
        f"({min(waited):.1f} to {max(waited):.1f})."
    )


def port() -> str:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


if __name__ == "__main__":
    main()
