"""All that is to be measured on an NVIDIA GPU, by one command: a table, and a file to send.

    make bench ARGS=gpu                   # installs what is missing first
    .venv/bin/python benchmarks/gpu.py

Measures the news experiment's training step in three kinds of numbers beside sentence-transformers, with
titles as long as MIND's and the share of the peak of matrix products; torch.compile and torch's attention
for texts of any lengths beside ours; two processes on one GPU; what a run records of the GPU beside
nvidia-smi; trainings of three experiments; and runs the tests marked gpu. Each row is a process of its own:
one that fails says why, and leaves the others theirs. Of several GPUs the first one that CUDA shows is used.

Without a GPU it says so in a sentence, with exit code 2. `--device cpu --steps 1` is for its tests: networks
are tiny then, and no time means anything.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

HERE = Path(__file__).parent
STEPS = 30
LONGEST = 1800  # seconds, of a row
ENDING = 10  # seconds, of its process afterwards
Size = tuple[str, int, str]  # backbone, triplets, numbers
TINY: Size = ("tiny", 4, "bf16")
SIZES: dict[str, list[Size]] = {
    "cuda": [
        ("distilbert", 32, "fp32"),
        ("distilbert", 32, "bf16"),
        ("distilbert", 256, "bf16"),
        ("distilbert", 256, "fp16"),
        ("distilbert", 1536, "bf16"),
        ("minilm", 256, "bf16"),
    ],
    "cpu": [TINY],
}
BESIDE: dict[str, list[Size]] = {
    "cuda": [("distilbert", 256, "bf16"), ("distilbert", 1536, "bf16")],
    "cpu": [TINY],
}


class Row(NamedTuple):
    """A process: its first cells, what of gpu_parts.py it calls, and with what beside device and steps."""

    label: tuple[str, ...]
    work: str
    arguments: tuple[Any, ...] = ()


class Table(NamedTuple):
    """A table: its heading, what its figures are, its columns, and what makes its rows."""

    heading: str
    said: str
    columns: tuple[str, ...]
    rows: list[Row]


def tables(device: str) -> list[Table]:
    """Return what is measured, in this order."""
    label = ("backbone", "triplets", "numbers")
    spoken = {"fp16": "16-mixed", "bf16": "bf16-mixed", "fp32": "32-true"}

    def named(size: Size) -> tuple[str, ...]:
        return size[0], f"{size[1]}", spoken[size[2]]

    other = (*label, "way", "first step", "seconds", "times fast", "share of the peak", "vectors differ by")
    return [
        Table(
            "A training step",
            "Seconds of forward, loss, backward and AdamW with dropout: medians of the steps in turn, with "
            "their range; benchmarks/news_step.md says what the ways are. Titles are the sample's words, 11 "
            "of them as MIND's have in the mean, with an assumed spread of 3. The share is that of the "
            "matrix products a step needs, for real tokens alone, in the fast step's time; the peak is of "
            "products in turn with the steps.",
            (
                *(*label, "texts", "real tokens", "as published", "plain", "fast", "sentence-transformers"),
                *("sentence-transformers / fast", "share of the peak", "peak, TFLOP/s"),
            ),
            [Row(named(size), "step", (size,)) for size in SIZES[device]],
        ),
        Table(
            "torch.compile",
            "The plain step compiled, beside ours; its first step is the one that compiles. Vectors are of "
            "the texts, before any training, without dropout; they differ from the fast one's by so much of "
            "the spread that these have.",
            other,
            [Row(named(size), "beside", (size, ("compiled",))) for size in BESIDE[device]],
        ),
        Table(
            "Attention for texts of any lengths",
            "The fast step with torch's own: varlen_attn, which has no dropout, and nested tensors.",
            other,
            [Row(named(size), "varlen", (size,)) for size in BESIDE[device]]
            + [Row(named(size), "beside", (size, ("nested",))) for size in BESIDE[device]],
        ),
        Table(
            "Two processes on one GPU",
            "The same training in one process and by DDP in two: 32-true, no dropout. NCCL may refuse a GPU "
            "twice.",
            ("backend", "steps", "first loss", "last loss, one", "last loss, two", "they differ by at most"),
            [Row((name,), "two", (name,)) for name in ("gloo", *(["nccl"] if device == "cuda" else []))],
        ),
        Table(
            "Vitals",
            "What a run records, and what nvidia-smi says between two such looks, under matrix products.",
            ("figure", "trainlab", "nvidia-smi", "differ by at most", "samples"),
            [Row((), "vitals")],
        ),
        Table(
            "Trainings",
            "News until its loss target (see benchmarks/news_training.md), seconds of training alone; an "
            "epoch of the others with their own settings, seconds of all of it, data and test included.",
            ("training", "seconds", "what came out"),
            [Row((f"news, {name}",), "news", (f"trainlab, {name}",)) for name in ("drawn triplets",)]
            + [Row((name,), "epoch", (name,)) for name in ("sentiment", "captions")],
        ),
        Table(
            "Tests",
            "`pytest -m gpu`.",
            ("passed", "failed", "errors", "skipped", "what it said"),
            [Row((), "tests")],
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each way, and looks at the GPU")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the file to send goes")
    parser.add_argument("--check", action="store_true", help="only say whether there is a GPU; without torch")
    options = parser.parse_args()
    refused = refusal(options.device, options.check)
    if not refused and not options.check:
        one_gpu(options.device)
        found, failed = outcome(Row((), "device_facts"), options.device, options.steps)
        refused = "" if found else f"torch finds no CUDA GPU: {failed or 'see nvidia-smi'}."
    if refused:
        print(f"error: {refused} Expected: a GPU that CUDA can use. Nothing was measured.", file=sys.stderr)
        return 2
    if not options.check:
        measure(options.device, options.steps, options.folder, found[0])
    return 0


def refusal(device: str, early: bool) -> str:
    """Return why there is nothing to measure on, as far as it is known without loading torch; '' if none."""
    if device == "cpu":
        return ""
    if not shutil.which("nvidia-smi"):
        return "no NVIDIA GPU here: there is no nvidia-smi."
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    if "GPU" not in listed:
        return f"no NVIDIA GPU here: nvidia-smi lists none ({listed.strip() or 'it says nothing'})."
    if early:
        return ""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "torch is not installed: `make bench ARGS=gpu` installs it."
    return (
        f"torch {version} is built for the CPU; `GPU=1 develop/install-tests`." if "+cpu" in version else ""
    )


def one_gpu(device: str) -> None:
    """Let all that follows see one GPU, by the name that nvidia-smi takes too."""
    if device == "cuda":
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def measure(device: str, steps: int, folder: Path, facts: list[str]) -> None:
    """Measure everything; the file to send is written after each table."""
    name = re.sub(r"[^a-z0-9]+", "-", facts[0].lower()).strip("-")
    file = folder / f"gpu-{name}.md"
    said = [
        f"# {facts[0]}\n",
        f"{', '.join(facts[1:])}; {datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {os.cpu_count()} cores; "
        f"--steps {steps}. Made by `benchmarks/gpu.py`.\n",
    ]
    print("\n".join(said), flush=True)
    for table in tables(device):
        lines = [f"## {table.heading}\n", f"{table.said}\n", line(table.columns)]
        lines.append("|" + " --- |" * len(table.columns))
        for row in table.rows:
            print(f"{table.heading}: {', '.join(row.label) or row.work} ...", file=sys.stderr, flush=True)
            lines += shown(row, len(table.columns), *outcome(row, device, steps))
        print("\n".join(lines), end="\n\n", flush=True)
        said += [*lines, ""]
        file.write_text("\n".join(said))
    print(f"Written: {file}\nPlease send this file: attach it to an issue of the project.")


def shown(row: Row, columns: int, found: list[list[str]], failed: str) -> list[str]:
    """Return a row's lines; one that failed says why in place of its figures."""
    if failed:
        found = [*found, [f"not measured: {failed}"]]
    lines = [[*row.label, *cells] for cells in found]
    return [line([*cells, *[""] * (columns - len(cells))]) for cells in lines]


def line(cells: Any) -> str:
    return f"| {' | '.join(each.replace('|', '/') for each in cells)} |"


def outcome(row: Row, device: str, steps: int) -> tuple[list[list[str]], str]:
    """Do a row's work in a process of its own; return its lines, and why it failed."""
    # A process that is to use CUDA starts anew; on the CPU, which is the tests', all share the imports
    context: Any = multiprocessing.get_context("spawn" if device == "cuda" else "forkserver")
    if device == "cpu":
        known = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(HERE), *known]))  # else it isn't found
        context.set_forkserver_preload(["gpu_parts"])
    receiving, sending = context.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        given = (sending, log.name, row.work, (device, steps, *row.arguments))
        process = context.Process(target=work, args=given)
        process.start()
        sending.close()
        try:
            if not receiving.poll(LONGEST):
                return [], f"not done after {LONGEST} s"
            with suppress(EOFError):
                return receiving.recv()
            process.join()
            last = (Path(log.name).read_text(errors="replace").strip().splitlines() or [""])[-1]
            return [], f"ended with code {process.exitcode}. {last}"
        finally:
            process.join(ENDING)
            if process.is_alive():
                process.kill()
                process.join()


def work(sending: Connection, log: str, name: str, arguments: tuple[Any, ...]) -> None:
    """Do a row's work, and send its lines; what it prints goes into a file."""
    with Path(log).open("w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    found: list[list[str]] = []
    failed = ""
    try:
        import gpu_parts

        found.extend(getattr(gpu_parts, name)(*arguments))  # those before a failure stay
    except Exception as error:
        told = next(iter(f"{error}".strip().splitlines()), "")
        failed = told if type(error).__name__ == "NotHereError" else f"{type(error).__name__}: {told}"
    sending.send((found, failed))


def commit() -> str:
    """Return the commit that is measured."""
    command = ["git", "describe", "--always", "--dirty"]
    with suppress(OSError):
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
        return done.stdout.strip() or "unknown"
    return "unknown"


if __name__ == "__main__":
    sys.exit(main())
