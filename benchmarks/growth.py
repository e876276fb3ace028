"""What the news experiment's own work costs as the number of items grows: 1,000 to 1,000,000 made-up titles.

`benchmarks/growth.py` measures each size in a process of its own and writes benchmarks/growth.md. The network
is left out: its time is that of its texts (see news_step.py), each once; news_metrics.py has the measuring.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.news.data import draw_triplets
from experiments.news.tokens import load_tokens, tokenize
from experiments.news.train import TripletSet
from trainlab.hub import load_tokenizer, locate

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (1_000, 10_000, 100_000, 1_000_000)
CATEGORIES, WORDS_A_TITLE, TRIPLETS_PER_ITEM, BATCH = 17, 11, 5, 256
BATCHES = 200
STEPS = {
    "triplets": "draw triplets, 5 an item",
    "tokens": "make tokens",
    "load": "load tokens made before",
    "shuffle": "order an epoch",
    "batches": f"make {BATCHES} batches of {BATCH} triplets",
}


def main() -> None:
    if sys.argv[1:]:
        print(json.dumps(measure(int(sys.argv[1]))))
        return
    found = {}
    for size in SIZES:
        said = subprocess.run(
            [sys.executable, __file__, str(size)], stdout=subprocess.PIPE, check=True
        ).stdout
        found[size] = json.loads(said.splitlines()[-1])
    lines = [
        "# Cost as the data grows\n",
        f"Seconds for so many items, each size in a process of its own; made-up titles of {WORDS_A_TITLE} "
        f"words, {CATEGORIES} categories. {os.cpu_count()} cores. Made by `benchmarks/growth.py`.\n",
        f"| | {' | '.join(f'{size:,}' for size in SIZES)} |",
        "| --- |" + " ---: |" * len(SIZES),
        *(f"| {text} | {_cells(found, key, 3)} |" for key, text in STEPS.items()),
        f"| MB of tokens on disk | {_cells(found, 'disk', 1)} |",
        f"| MB of memory at most, all of these | {_cells(found, 'memory', 0)} |",
    ]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")


def _cells(found: dict[int, dict[str, float]], key: str, digits: int) -> str:
    return " | ".join(f"{found[size][key]:,.{digits}f}" for size in SIZES)


def measure(size: int) -> dict[str, float]:
    """Return the seconds of each step for so many items, and the memory."""
    import tempfile

    rng = np.random.default_rng(0)
    titles, labels = made_up(size, rng)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        since = time.perf_counter()
        done = work()
        seconds[name] = time.perf_counter() - since
        return done

    triplets = timed("triplets", lambda: draw_triplets(labels, size, TRIPLETS_PER_ITEM, seed=0))
    tokenizer = load_tokenizer(locate("minilm"), 40)
    table = timed("tokens", lambda: tokenize(tokenizer, titles))
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens"
        table.save(tokens)
        disk = sum(path.stat().st_size for path in tokens.iterdir())
        table = timed("load", lambda: load_tokens(tokens, tokenizer, 1))
        dataset = TripletSet(table, triplets, labels)
        order = timed("shuffle", lambda: dataset.shuffled(rng, BATCH))
        starts = rng.integers(len(order) - BATCH, size=BATCHES)
        timed(
            "batches", lambda: [dataset.__getitems__(order[each : each + BATCH].tolist()) for each in starts]
        )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return seconds | {"memory": memory, "disk": disk / 1e6}


def made_up(size: int, rng: np.random.Generator) -> tuple[list[list[str]], np.ndarray]:
    """Return titles of common English words, and categories as uneven as MIND's."""
    words = np.array([word for word in load_tokenizer(locate("minilm"), 40).get_vocab() if word.isalpha()])
    chosen = words[rng.integers(len(words), size=(size, WORDS_A_TITLE))]
    labels = np.minimum(rng.geometric(0.25, size=size) - 1, CATEGORIES - 1)
    return [[" ".join(row)] for row in chosen.tolist()], labels


if __name__ == "__main__":
    main()
