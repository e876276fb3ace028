"""CPU seconds of `trainlab.recommend` among 50,000 news, and what they are made of.

    .venv/bin/python benchmarks/recommend.py

Each round is a process of its own, so what it has to load is part of its first answer; the ways take turns.
The news are made of the sample's titles, their words shuffled; the network is the project's small one. The
vectors of all news, which training leaves in the run's folder, are made up: along 32 directions, as trained
ones are. How long it takes where they are missing is measured among fewer news.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import trainlab
from experiments.news.config import NewsConfig
from experiments.news.data import read
from experiments.news.model import NewsModel
from experiments.news.recommend import save_vectors
from trainlab.run import checkpoint
from trainlab.run.restoring import BEST

ITEMS, FEW, ROUNDS, WANTED = 50_000, 1_000, 3, 3.0
WIDTH, DIRECTIONS = 256, 32
NEW = ("Storm closes airports across the north", "Ten easy pasta dinners")
PROCESS = """
import json, sys, time
run, titles, loaded = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "loaded"
if loaded:
    import experiments.news.model
used = [time.process_time() if loaded else 0.0]
from experiments.news.recommend import recommend
for title in titles:
    recommend(run, title)
    used.append(time.process_time())
print(json.dumps([after - before for before, after in zip(used, used[1:])]))
"""


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"TRAINLAB_DATA": f"{folder}/data", "TRAINLAB_LOGS": f"{folder}/logs"}
        run, known = made(Path(folder, "many.tsv"), options.items, vectors=True)
        ways: dict[str, tuple[tuple[str, ...], str]] = {
            "titles that are news themselves": (known, ""),
            "new titles": (NEW, ""),
            "new titles, torch and Lightning loaded already, as in a notebook": (NEW, "loaded"),
        }
        rows: dict[str, list[list[float]]] = {}
        for _ in range(options.rounds):
            for name, (titles, loaded) in ways.items():
                rows.setdefault(name, []).append(asked(run, titles, loaded))
        few, _ = made(Path(folder, "few.tsv"), FEW, vectors=False)
        rows[f"new titles among {FEW:,} news without saved vectors, loaded already"] = [
            asked(few, NEW, "loaded")
        ]
    table = text(rows, options.items, options.rounds)
    Path(__file__).with_suffix(".md").write_text(table)
    print(table)


def made(data: Path, items: int, *, vectors: bool) -> tuple[Path, tuple[str, ...]]:
    """Make news and a run of them; return its folder, and two titles of the news."""
    sample, rng = read(str(Path(__file__).parents[1] / "data" / "sample")).table, np.random.default_rng(0)
    lines = []
    for number in range(items):
        row = sample.iloc[number % len(sample)]
        title = " ".join(rng.permutation(row["title"].split()))
        lines.append(f"N{number}\t{row['category']}\t{row['subcategory']}\t{title}\t\t\t[]\t[]\n")
    data.write_text("".join(lines))
    torch.manual_seed(0)
    config = NewsConfig(data=str(data))
    news, model = read(config.data), NewsModel.pretrained(config)
    with trainlab.Run("news", config, data=news.fingerprint()) as run:
        state = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
        checkpoint.save(state, run.folder / BEST)
    if vectors:
        spread = rng.normal(size=(items, DIRECTIONS)) @ rng.normal(size=(DIRECTIONS, WIDTH))
        save_vectors(run.folder, news, spread.astype(np.float32))
    return run.folder, tuple(news.table["title"].iloc[[7, 11]])


def asked(run: Path, titles: tuple[str, ...], loaded: str = "") -> list[float]:
    """Return the CPU seconds of each answer, in a process of its own."""
    command = [sys.executable, "-c", PROCESS, str(run), json.dumps(titles), loaded]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def text(rows: dict[str, list[list[float]]], items: int, rounds: int) -> str:
    """Return the table."""
    lines = [
        f"# Recommendations among {items:,} news\n",
        f"CPU seconds (user and system) of a process; medians (ranges) of {rounds}, the last row measured "
        f"once; wanted: {WANTED:g} for the first answer. {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} at the end. Made by `benchmarks/recommend.py`.\n",
        "| | first answer | second |",
        "| --- | ---: | ---: |",
    ]
    for name, found in rows.items():
        cells = []
        for each in zip(*found, strict=True):
            spread = f" ({min(each):.2f} to {max(each):.2f})" if len(each) > 1 else ""
            cells.append(f"{statistics.median(each):.2f}{spread}")
        lines.append(f"| {name} | {cells[0]} | {cells[1] if len(cells) > 1 else ''} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
