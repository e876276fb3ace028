"""CPU time and memory of the news experiment's metrics as the unseen items grow.

    .venv/bin/python benchmarks/news_metrics.py
    git worktree add /tmp/before COMMIT; .venv/bin/python benchmarks/news_metrics.py --beside /tmp/before

Precision by two labels, MRR, and the mean distances between categories; each in a process of its own, on
made-up vectors. Another version is asked for 10,000 items at most.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

SIZES, WIDTH, GROUPS, MOST_BEFORE = (2_500, 10_000, 20_000, 40_000), 256, (17, 100), 10_000
PROCESS = """
import json, resource, sys, time
import numpy as np
from experiments.news import metrics
size, width, groups = json.loads(sys.argv[1])
rng = np.random.default_rng(0)
codes = [rng.integers(each, size=size) for each in groups]
vectors = rng.normal(size=(size, width)) + 0.5 * rng.normal(size=(groups[0], width))[codes[0]]
def memory(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
held, since = memory(), time.process_time()
figures = [metrics.precision_at(vectors, each) for each in codes]
figures.append(metrics.mean_reciprocal_rank(vectors, codes[0]))
used, since = time.process_time() - since, time.process_time()
if hasattr(metrics, "mean_distances"):
    metrics.mean_distances(vectors, codes[0])
else:
    members = np.eye(groups[0])[codes[0]]
    members.T @ metrics.distances(vectors, vectors) @ members
print(json.dumps([figures, used, time.process_time() - since, memory() - held]))
"""


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, help="another version's folder")
    options = parser.parse_args()
    own = Path(__file__).parents[1]
    lines = [
        "# Metrics as the unseen items grow\n",
        f"Made-up vectors of {WIDTH} numbers; CPU seconds of one process with one thread, and MB of memory "
        f"beside the vectors. {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. Of more than 10,000 "
        "items 5,000 are queries, among all: the figures are exact to ±0.012 with 20,000 items, ±0.014 "
        "with any number (95 %). Made by `benchmarks/news_metrics.py`.\n",
        "| items | | precision twice, MRR: s | distances between categories: s | MB | precision, MRR |",
        "| ---: | --- | ---: | ---: | ---: | --- |",
    ]
    for size in SIZES:
        for version, root in (("before", options.beside), ("now", own)):
            if root is None or (version == "before" and size > MOST_BEFORE):
                continue
            environment = os.environ | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
            environment["OPENBLAS_NUM_THREADS"] = "1"
            words = [sys.executable, "-c", PROCESS, json.dumps([size, WIDTH, GROUPS])]
            figures, measured, between, memory = json.loads(
                subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True).stdout
            )
            shown = ", ".join(f"{each:.6f}" for each in figures)
            cells = (f"{size:,}", version, f"{measured:.1f}", f"{between:.1f}", f"{memory:,.0f}", shown)
            lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
