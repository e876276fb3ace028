"""The ten nearest among 160,000 vectors of 256 numbers: ours, NumPy's brute force, FAISS's flat index.

`pip install faiss-cpu && benchmarks/nearest.py` asks with a thousand queries, the ways in turn, and writes
benchmarks/nearest.md. All three give exact answers; how many of the rows are the same is in the table.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import faiss
import numpy as np
import torch

from experiments.news.recommend import nearest_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CANDIDATES, WIDTH, QUERIES, K = 160_000, 256, 1_000, 10
REPEATS = 5
AT_ONCE = 250  # queries, of the brute force: 320 MB of distances


def main() -> None:
    rng = np.random.default_rng(0)
    candidates = rng.standard_normal((CANDIDATES, WIDTH), np.float32)
    queries = rng.standard_normal((QUERIES, WIDTH), np.float32)
    index = faiss.IndexFlatL2(WIDTH)
    index.add(candidates)
    ways: dict[str, Callable[[], NDArray[np.int64]]] = {
        "ours": lambda: nearest_rows(queries, candidates, K)[0],
        "FAISS, IndexFlatL2": lambda: index.search(queries, K)[1],
        "NumPy, single precision": lambda: brute(queries, candidates),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    answers = {name: work() for name, work in ways.items()}
    table = "\n".join([*head(), *(row(name, times[name], answers) for name in ways)]) + "\n"
    Path(__file__).with_suffix(".md").write_text(table)
    print(table)


def head() -> list[str]:
    return [
        f"# The {K} nearest of {CANDIDATES:,}\n",
        f"{QUERIES:,} queries, vectors of {WIDTH} numbers, {REPEATS} times in turn. {os.cpu_count()} cores, "
        f"torch on {torch.get_num_threads()}, load {os.getloadavg()[0]:.1f} at the end. "
        "Made by `benchmarks/nearest.py`.\n",
        "| | seconds, median (range) | rows as ours |",
        "| --- | ---: | ---: |",
    ]


def row(name: str, times: list[float], answers: dict[str, NDArray[np.int64]]) -> str:
    same = (answers[name] == answers["ours"]).mean()
    return f"| {name} | {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) | {same:.2%} |"


def brute(queries: NDArray[np.float32], candidates: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the nearest rows out of all distances."""
    squares = (candidates * candidates).sum(1)
    found = []
    for start in range(0, len(queries), AT_ONCE):
        near = squares - 2 * queries[start : start + AT_ONCE] @ candidates.T
        least = np.argpartition(near, K, axis=1)[:, :K]
        order = np.take_along_axis(near, least, 1).argsort(axis=1)
        found.append(np.take_along_axis(least, order, 1))
    return np.concatenate(found)


if __name__ == "__main__":
    main()
