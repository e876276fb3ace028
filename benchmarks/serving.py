"""What an export costs and saves: bytes, and CPU time and time of one text, torch in fp32 beside onnxruntime.

    trainlab run news && trainlab export-model last
    .venv/bin/python benchmarks/serving.py --run last --output benchmarks/serving.md

One thread each; the ways take turns, so that whatever else runs on the machine slows all of them. Of each
way the least time of all rounds counts, and the CPU time of a whole round.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from experiments.news.data import Tokens
from experiments.news.model import NewsModel
from trainlab import paths
from trainlab.run import find, record
from trainlab.run.restoring import BEST, restore
from trainlab.serving import bundle
from trainlab.serving.texts import Texts
from trainlab.system import hardware

ROUNDS, TEXTS = 5, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="last", help="a run of news")
    parser.add_argument("--output", type=Path, help="where the table goes; default: printed")
    options = parser.parse_args()
    folder = find.find(options.run, experiment="news", having=BEST)
    noted = record.read(folder).exports[-1]  # type: ignore[attr-defined]
    exported = bundle.read(paths.models() / noted["folder"])
    texts, model = Texts(exported), restore(NewsModel, folder / BEST)
    torch.set_num_threads(1)
    titles = exported.json("items.json")["title"][:TEXTS]
    ways: dict[str, Callable[[list[str]], object]] = {
        "torch fp32": lambda item: model.embed(tokens_of(model, item)),
        "onnxruntime fp32": lambda item: texts.run([item]),
    }
    times = measured(ways, [texts.item(title) for title in titles])
    sizes = {name: len(content) for name, content in exported.content.items()}
    table = text_of(times, sizes, exported.json("card.json")["gate"])
    if options.output:
        options.output.write_text(table)
    print(table)


def tokens_of(model: NewsModel, item: list[str]) -> Tokens:
    """Return an item's tokens, without the tokenizer's copy that `tokenize` makes for a data set."""
    encoded = model.tokenizer.encode_batch(item)
    return Tokens(
        torch.tensor([[each.ids for each in encoded]]),
        torch.tensor([[each.attention_mask for each in encoded]]),
    )


def measured(
    ways: dict[str, Callable[[list[str]], object]], items: list[list[str]]
) -> dict[str, tuple[float, float]]:
    """Return each way's least milliseconds, and least CPU milliseconds, a text."""
    found = dict.fromkeys(ways, (float("inf"), float("inf")))
    for way in ways.values():
        way(items[0])
    for _ in range(ROUNDS):
        for name, way in ways.items():
            used = time.process_time()
            least = float("inf")
            for item in items:
                one = time.perf_counter()
                way(item)
                least = min(least, time.perf_counter() - one)
            cpu = (time.process_time() - used) / len(items)
            found[name] = min(found[name][0], 1e3 * least), min(found[name][1], 1e3 * cpu)
    return found


def text_of(times: dict[str, tuple[float, float]], sizes: dict[str, int], figures: dict[str, float]) -> str:
    base = times["torch fp32"][1]
    rows = "\n".join(
        f"| {name} | {least:.1f} | {cpu:.1f} | {cpu / base:.2f} |" for name, (least, cpu) in times.items()
    )
    held = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items())
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in figures.items() if value)
    return (
        f"One news title through a network of news, one thread of {platform.machine()} "
        f"({hardware().get('cpu', 'CPU not known')}), torch {torch.__version__}; "
        f"the machine's load was {os.getloadavg()[0]:.0f}:\n\n"
        "| | least ms | CPU ms | of torch's CPU |\n|---|---|---|---|\n"
        f"{rows}\n\nThe bundle: {held}.\n\nThe gate: {shown}.\n"
    )


if __name__ == "__main__":
    main()
