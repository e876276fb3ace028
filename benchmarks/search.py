"""The ten nearest of 160,000 vectors of 256 numbers, and of a million: ours, NumPy on all, FAISS.

`pip install faiss-cpu && benchmarks/search.py [VECTORS.npy]` writes benchmarks/search.md. Without vectors of
a run, `trainlab export-model` keeps them as items.npy, they are made up. A run's are scaled up by jitter: a
point on the way from an item to one of its ten nearest, and a tenth of that way to anywhere. One thread
each, as in serving, and CPU time, which other work on the machine doesn't lengthen much.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # before NumPy is there

import faiss
import numpy as np

from trainlab.nearest import Index

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

COUNT, MANY, WIDTH, K = 160_000, 1_000_000, 256, 10
AT_ONCE = (1, 8, 32)  # queries
REPEATS = 5
QUERIES = 64  # others each time
RERANKED = 50  # of FAISS's, by distances in full
LISTS, PROBES = 1024, (4, 8, 16, 32, 64, 128, 256, 512)
ENOUGH = 0.99  # recall@10
BLAS = 20  # queries from which FAISS multiplies matrices: its default of old, and 128,000 now


def main() -> None:
    rng = np.random.default_rng(0)
    shapes: dict[str, Callable[[int], NDArray[np.float32]]] = {
        "85 % of the variance in 32 directions": lambda count: made_up(count, rng),
        "all directions alike": lambda count: rng.standard_normal((count, WIDTH), np.float32),
    }
    if sys.argv[1:]:
        items = np.load(sys.argv[1]).astype(np.float32)
        shapes = {
            f"{len(items)} items of a run, jittered": lambda count: jittered(items, count, rng)
        } | shapes
    lines = head()
    tables = [(compared, shape, COUNT) for shape in shapes] + [(million, next(iter(shapes)), MANY)]
    for table, shape, count in tables:
        lines += table(shape, shapes[shape](count), shapes[shape](QUERIES))
        Path(__file__).with_suffix(".md").write_text("\n".join(lines))
    print("\n".join(lines))


def head() -> list[str]:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return [
        "# The 10 nearest\n",
        f"CPU milliseconds a query, one thread, medians of {REPEATS} in turn; vectors of {WIDTH} numbers. "
        f"{cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. "
        f"numpy {np.__version__}, faiss-cpu {faiss.__version__}. Made by `benchmarks/search.py`.\n",
    ]


def made_up(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    spread = np.sqrt(np.where(np.arange(WIDTH) < 32, 0.85 / 32, 0.15 / (WIDTH - 32)))
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((WIDTH, WIDTH)))[0]
    return rng.standard_normal((count, WIDTH), np.float32) @ (spread[:, None] * turn).astype(np.float32)


def jittered(items: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    near = Index(items).nearest(items, 11)[1]
    found = np.empty((count, items.shape[1]), np.float32)
    for start in range(0, count, 50_000):
        part = found[start : start + 50_000]
        rows = rng.integers(len(items), size=len(part))
        way = items[near[rows, rng.integers(11, size=len(part))]] - items[rows]
        part[:] = items[rows] + rng.random((len(part), 1), np.float32) * way
        length = np.linalg.norm(way, axis=1, keepdims=True) / (10 * np.sqrt(items.shape[1]))
        part += rng.standard_normal(part.shape, np.float32) * length
    return found


def compared(shape: str, vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> list[str]:
    """Return a table of the ways to search, a column for each number of queries at once."""
    flat, coded = faiss.IndexFlatL2(WIDTH), faiss.index_factory(WIDTH, "SQ8")
    coded.train(vectors[:: len(vectors) // 20_000])
    for index in (flat, coded):
        index.add(vectors)
    squares = (vectors * vectors).sum(1)
    built, ours = timed(Index, vectors)

    def multiplied(asked: NDArray[np.float32]) -> NDArray[np.int64]:
        before, faiss.cvar.distance_compute_blas_threshold = faiss.cvar.distance_compute_blas_threshold, BLAS
        try:
            return flat.search(asked, K)[1]
        finally:
            faiss.cvar.distance_compute_blas_threshold = before

    ways: dict[str, Callable[[NDArray[np.float32]], NDArray[np.int64]]] = {
        "ours": lambda asked: ours.nearest(asked, K)[1],
        "NumPy, all distances": lambda asked: brute(asked, vectors, squares),
        "FAISS Flat": lambda asked: flat.search(asked, K)[1],
        f"FAISS Flat, matrices from {BLAS} queries on": multiplied,
        f"FAISS SQ8, {RERANKED} measured in full": lambda asked: reranked(coded, asked, vectors),
    }
    exact = flat.search(queries, K)[1]
    lines = [
        f"## {len(vectors):,}: {shape}\n",
        f"Ours was built in {built / 1000:.1f} s.\n",
        f"| queries at once | {' | '.join(map(str, AT_ONCE))} | recall@10 |",
        "| --- |" + " ---: |" * (len(AT_ONCE) + 1),
    ]
    times: dict[tuple[str, int], list[float]] = {}
    for at_once in AT_ONCE:
        for repeat in range(REPEATS):
            start = repeat * at_once % (QUERIES - at_once + 1)
            asked = queries[start : start + at_once]
            for name, work in ways.items():
                times.setdefault((name, at_once), []).append(timed(work, asked)[0] / at_once)
    for name, work in ways.items():
        cells = " | ".join(f"{statistics.median(times[name, at_once]):.2f}" for at_once in AT_ONCE)
        lines.append(f"| {name} | {cells} | {recall(work(queries), exact):.4f} |")
    return [*lines, ""]


def million(shape: str, vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> list[str]:
    """Return a table of ours and of FAISS's inverted lists; theirs by how many of them are looked through."""
    built, ours = timed(Index, vectors)
    exact = ours.nearest(queries, K)[1]
    lines = [
        f"## {len(vectors):,}: {shape}\n",
        "| | 1 | 32 | recall@10 | built, s |",
        "| --- |" + " ---: |" * 4,
    ]

    def row(name: str, work: Callable[[NDArray[np.float32]], NDArray[np.int64]], seconds: float) -> float:
        alone = statistics.median(timed(work, queries[each : each + 1])[0] for each in range(20))
        many = statistics.median(timed(work, queries[:32])[0] for _ in range(3)) / 32
        found = recall(work(queries), exact)
        lines.append(f"| {name} | {alone:.2f} | {many:.2f} | {found:.4f} | {seconds / 1000:.0f} |")
        return found

    row("ours", lambda asked: ours.nearest(asked, K)[1], built)
    index = faiss.index_factory(WIDTH, f"IVF{LISTS},SQ8")

    def build() -> None:
        index.train(vectors[:: len(vectors) // (39 * LISTS)])
        index.add(vectors)

    seconds = timed(build)[0]
    for index.nprobe in PROBES:
        name = f"FAISS IVF{LISTS},SQ8, {index.nprobe} lists, {RERANKED} in full"
        if row(name, lambda asked: reranked(index, asked, vectors), seconds) >= ENOUGH:
            break
    return [*lines, ""]


def brute(
    asked: NDArray[np.float32], vectors: NDArray[np.float32], squares: NDArray[np.float32]
) -> NDArray[np.int64]:
    near = squares - 2 * asked @ vectors.T
    least = np.argpartition(near, K, axis=1)[:, :K]
    return np.take_along_axis(least, np.take_along_axis(near, least, 1).argsort(axis=1), 1)


def reranked(index: Any, asked: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    found = index.search(asked, RERANKED)[1]
    near = np.linalg.norm(vectors[found] - asked[:, None], axis=2)
    near[found < 0] = np.inf
    return np.take_along_axis(found, near.argsort(axis=1)[:, :K], 1)


def recall(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    return float((found[:, :, None] == exact[:, None]).any(axis=2).mean())


def timed(work: Callable[..., Any], *values: Any) -> tuple[float, Any]:
    """Return the CPU milliseconds that some work took, and what it returned."""
    since = time.process_time()
    done = work(*values)
    return (time.process_time() - since) * 1000, done


if __name__ == "__main__":
    main()
