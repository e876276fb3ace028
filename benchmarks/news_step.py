"""CPU seconds of a training step of the news experiment, and of drawing the article's most triplets.

`benchmarks/news_step.py` runs its variants in turn, on the same triplets of the sample's titles and with the
same weights, and writes benchmarks/news_step.md. Times are the process's CPU time on one thread, so that what
else the machine does counts little.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from trainlab.news.config import NewsConfig
from trainlab.news.dataset import TripletSet
from trainlab.news.examples import draw
from trainlab.news.model import NewsModel, pool
from trainlab.news.triplets import draw_triplets

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainlab.news.model import Batch, Tokens

REPEATS = 3  # after one more, to warm up
STEPS = (("minilm", 32), ("minilm", 128), ("distilbert", 32))  # backbone, triplets
PUBLISHED_TOKENS = 40  # every title padded to that
MIND = (  # items of MINDsmall's categories
    *(15774, 14510, 3107, 2551, 2479, 2350, 2068, 2048, 1885),
    *(1639, 889, 769, 606, 587, 17, 2, 1),
)
CLASS_SIZE, TRIPLETS_PER_ITEM = 200, 50  # 140,274 triplets
LISTED = (5_000, 10_000, 20_000)  # triplets drawn with the list; all of them would take too long


def main() -> None:
    torch.set_num_threads(1)
    lines = [
        "# What a step of the news experiment costs\n",
        f"CPU seconds on one thread, medians of {REPEATS} runs in turn, with their range; {_cpu()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, torch {torch.__version__}. "
        "Made by `benchmarks/news_step.py`.\n",
        "A step is forward, loss, backward and AdamW, in fp32, with dropout. *As published*: three passes, "
        "each title padded to 40 tokens. *Plain* (`fast=false`): each text once, with texts of like length. "
        "*Fast* (the default): no padding, AdamW fused. distilbert has random weights.\n",
        "| backbone | triplets | texts | real tokens | as published | plain | fast "
        "| plain / fast | published / fast |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(step_row(backbone, triplets) for backbone, triplets in STEPS),
        "\nTriplets drawn, of MINDsmall's categories, class_size=200, triplets_per_item=50. The list is "
        "that of the original, which looks each triplet up among all before it.\n",
        "| sampler | triplets | CPU seconds |",
        "| --- | ---: | ---: |",
        *sampler_rows(),
    ]
    table = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(table)
    print(table)


def step_row(backbone: str, triplets: int) -> str:
    """Measure the three variants of a step."""
    with tempfile.TemporaryDirectory() as folder:
        config = NewsConfig(backbone=_distilbert(folder) if backbone == "distilbert" else backbone)
        examples = draw(config)
        models = [
            NewsModel.pretrained(config.model_copy(update={"fast": fast})) for fast in (False, False, True)
        ]
    tokens = models[0].tokenize(examples.news.texts(config.text))
    chosen = np.random.default_rng(0).permutation(len(examples.training))[:triplets]
    batch = TripletSet(tokens, examples.training).__getitems__(chosen.tolist())
    forwards = (published, NewsModel.forward, NewsModel.forward)
    variants = [step(*each, batch) for each in zip(models, forwards, strict=True)]
    seconds = [[spent(variant) for variant in variants] for _ in range(1 + REPEATS)][1:]
    cells = [_median([row[i] for row in seconds]) for i in range(3)]
    cells += [_median([row[i] / row[2] for row in seconds], 2) for i in (1, 0)]
    sizes = (f"{triplets}", f"{len(batch.tokens.ids)}", f"{int(batch.tokens.mask.sum()):,}")
    return f"| {' | '.join((backbone, *sizes, *cells))} |"


def step(
    model: NewsModel, forward: Callable[[NewsModel, Tokens], torch.Tensor], batch: Batch
) -> Callable[[], None]:
    """Return what makes a training step."""
    optimizer = model.train().configure_optimizers()

    def make() -> None:
        if forward is published:
            vectors = [published(model, batch.tokens.rows(items)) for items in batch.places.unbind(1)]
        else:
            vectors = list(forward(model, batch.tokens)[batch.places].unbind(1))
        torch.nn.functional.triplet_margin_loss(*vectors, margin=model.hparams["margin"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return make


def published(model: NewsModel, tokens: Tokens) -> torch.Tensor:
    """Return the vectors [N, D] of one pass over titles padded to the most tokens that there may be."""
    more = PUBLISHED_TOKENS - tokens.ids.shape[-1]
    ids, mask = (torch.nn.functional.pad(each.flatten(0, 1), (0, more)) for each in tokens)
    states = model.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    return model.head(pool(states, mask, model.hparams["pooling"]))


def sampler_rows() -> list[str]:
    categories = np.repeat(np.arange(len(MIND)), MIND)
    ours = [
        spent(lambda: draw_triplets(categories, CLASS_SIZE, TRIPLETS_PER_ITEM, seed=0))
        for _ in range(REPEATS)
    ]
    total = len(draw_triplets(categories, CLASS_SIZE, TRIPLETS_PER_ITEM, seed=0))
    listed = {count: spent(lambda count=count: list_based(categories, count)) for count in LISTED}
    squares = statistics.median(seconds / count**2 for count, seconds in list(listed.items())[-2:])
    return [
        *(f"| with a list | {count:,} | {seconds:.2f} |" for count, seconds in listed.items()),
        f"| with a list, extrapolated by the square of the number | {total:,} | {squares * total**2:.0f} |",
        f"| `draw_triplets` | {total:,} | {_median(ours, 3)} |",
        f"| extrapolated list / `draw_triplets` | | {squares * total**2 / statistics.median(ours):,.0f} |",
    ]


def list_based(categories: np.ndarray, limit: int) -> list[tuple[int, int, int]]:
    """Draw the first `limit` triplets as the original did: each looked up in the list of those before."""
    random.seed(0)
    pools = [np.flatnonzero(categories == each)[:CLASS_SIZE].tolist() for each in np.unique(categories)]
    triplets: list[tuple[int, int, int]] = []
    for own, pool_ in enumerate(pools):
        for anchor in pool_:
            wanted = min(TRIPLETS_PER_ITEM, len(pool_) - 1)
            while wanted:
                other = random.choice([each for each in range(len(pools)) if each != own])
                triplet = (anchor, random.choice(pool_), random.choice(pools[other]))
                if triplet[1] != anchor and triplet not in triplets:
                    triplets.append(triplet)
                    wanted -= 1
                if len(triplets) == limit:
                    return triplets
    return triplets


def spent(work: Callable[[], object]) -> float:
    """Return the CPU seconds that some work takes of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _distilbert(folder: str) -> str:
    """Write a DistilBERT of the published size with random weights, and MiniLM's tokenizer; return where."""
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    from trainlab import backbones

    DistilBertModel(DistilBertConfig()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(backbones.locate("minilm").name).save_pretrained(folder)
    return folder


def _median(values: list[float], digits: int = 3) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown CPU")


if __name__ == "__main__":
    main()
