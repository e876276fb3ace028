"""CPU seconds from `trainlab run` to the first cell's output: for nobody's notebook, and for the examples'.

    .venv/bin/python benchmarks/headless_start.py
    git worktree add /tmp/before COMMIT; .venv/bin/python benchmarks/headless_start.py --beside /tmp/before

The cell itself adds up what the three processes before it have used: the command, which checks settings and
data; the worker, which speaks with the kernel; the kernel. They start one after the other, so on an idle
machine the sum is also about the time that one waits. An example's own notebook imports torch and Lightning
in its first cell; here each is its settings and its checks before the start alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

ROUNDS = 9
WANTED = 2.5  # seconds
SETTINGS = {
    "a notebook of one's own": "",
    "the settings of news": "experiments.news.config:NewsConfig",
    "the settings of sentiment": "experiments.sentiment.config:SentimentConfig",
    "the settings of captions": "experiments.captions.config:CaptionsConfig",
}
PROCESSES = ("command", "worker", "kernel")
CELL = """
import json, psutil
process, used = psutil.Process(), []
for _ in range(3):
    times = process.cpu_times()  # with those of children that have ended, git say
    used.insert(0, sum(times[:4]))
    process = process.parent()
print("used:", json.dumps(used))
"""


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, help="another version's folder, measured in turn")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    versions = {"now": Path(__file__).parents[1]} | ({"before": options.beside} if options.beside else {})
    found: dict[tuple[str, str], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        notebooks = {name: written(Path(folder), number) for number, name in enumerate(SETTINGS)}
        for _ in range(options.rounds):
            for name, notebook in notebooks.items():
                for version, root in versions.items():
                    used = first_output(notebook, root, Path(folder, "logs"))
                    found.setdefault((name, version), []).append(used)
    table = text(found, versions)
    Path(__file__).with_suffix(".md").write_text(table)
    print(table)


def written(folder: Path, number: int) -> Path:
    """Write a notebook that prints what its processes have used, and return its path."""
    name, settings = f"first{number}", list(SETTINGS.values())[number]
    parameters = nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(CELL)])
    if settings:
        notebook.metadata["trainlab"] = {"config": settings}
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def first_output(notebook: Path, root: Path, logs: Path) -> list[float]:
    """Return the CPU seconds of the command, the worker and the kernel by the cell's output."""
    environment = os.environ | {"PYTHONPATH": str(root / "src"), "TRAINLAB_ROOT": str(root)}
    command = [str(Path(sys.executable).with_name("trainlab")), "run", str(notebook), "seed=1"]
    environment["TRAINLAB_LOGS"] = str(logs)
    printed = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout
    (line,) = re.findall(r"^used: (.*)", printed, re.MULTILINE)
    return json.loads(line)


def pyarrow() -> str:
    """Return the CPU seconds that loading pyarrow's part takes, as papermill does."""
    cell = "import time; import pyarrow.fs; print(time.process_time())"
    bare = "import time; print(time.process_time())"
    with_it, without = (
        min(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3))
        for code in (cell, bare)
    )
    return f"{with_it - without:.2f}"


def text(found: dict[tuple[str, str], list[list[float]]], versions: dict[str, Path]) -> str:
    """Return the table."""
    rounds = len(next(iter(found.values())))
    lines = [
        "# From the command to the first cell's output\n",
        f"CPU seconds (user and system) of the processes up to a first cell's output, `seed=1` given; "
        f"medians of {rounds}, versions in turn; wanted: {WANTED}. {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} at the end: other work on the machine makes CPU time longer, too. Of the "
        f"worker's, {pyarrow()} are pyarrow's, which papermill loads where it is installed; trainlab does "
        "not need it. Made by `benchmarks/headless_start.py`.\n",
        f"| | | {' | '.join(PROCESSES)} | sum (range) |",
        f"| --- | --- |{' ---: |' * (len(PROCESSES) + 1)}",
    ]
    for name in SETTINGS:
        for version in reversed(versions):
            used = found[name, version]
            parts = " | ".join(f"{statistics.median(each):.2f}" for each in zip(*used, strict=True))
            sums = [sum(each) for each in used]
            whole = f"{statistics.median(sums):.2f} ({min(sums):.2f} to {max(sums):.2f})"
            lines.append(f"| {name} | {version} | {parts} | {whole} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
