"""Seconds of a training step of the news experiment, and of drawing the article's most triplets.

`pip install sentence-transformers && benchmarks/news_step.py` runs its variants in turn, on the same triplets
of the sample's titles and with networks of the same size, and writes benchmarks/news_step.md. With `cuda`
behind it the steps are the GPU's, and the table is benchmarks/news_step_cuda.md.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from experiments.news.config import NewsConfig
from experiments.news.data import draw, draw_triplets
from experiments.news.model import Batch, NewsModel, pool
from experiments.news.train import TripletSet
from trainlab.hub import locate
from trainlab.training.workers import set_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from experiments.news.data import Examples
    from experiments.news.tokens import Tokens, TokenTable

DEVICE = (sys.argv[1:2] or ["cpu"])[0] if __name__ == "__main__" else "cpu"
GPU = DEVICE == "cuda"
TRIPLETS = {"loss": "triplet", "freeze": 0, "test": 0}  # the article's loss, all layers trained
REPEATS = 30 if GPU else 5  # after one more, to warm up
STEPS = (  # backbone, triplets, bfloat16
    ("minilm", 32, False),
    ("minilm", 32, True),
    ("minilm", 256, True),
    *([("minilm", 1536, True)] if GPU else []),
    ("distilbert", 32, False),
    ("distilbert", 32, True),
    *([("distilbert", 256, True)] if GPU else []),
)
VARIANTS = ("as published", "sentence-transformers", "plain", "fast")
SQUARE = 8192 if GPU else 2048  # rows and columns of the matrices whose product is the peak
PUBLISHED_TOKENS = 40  # every title padded to that
MIND = (  # items of MINDsmall's categories
    *(15774, 14510, 3107, 2551, 2479, 2350, 2068, 2048, 1885),
    *(1639, 889, 769, 606, 587, 17, 2, 1),
)
CLASS_SIZE, TRIPLETS_PER_ITEM = 200, 50  # 140,274 triplets
LISTED = (5_000, 10_000, 20_000)  # triplets drawn with the list; all of them would take too long


def main() -> None:
    threads = set_threads()
    lines = [
        "# What a step of the news experiment costs\n",
        f"Seconds, medians of {REPEATS} steps in turn, with their range; {_machine()}, {os.cpu_count()} "
        f"cores, torch {torch.__version__} on {threads}, load {os.getloadavg()[0]:.1f} at the start. "
        "Made by `benchmarks/news_step.py`.\n",
        "A step is forward, loss, backward and AdamW, with dropout. *As published*: three passes, each title "
        "padded to 40 tokens. *sentence-transformers*: its TripletLoss on the same ids. *Plain* "
        "(`fast=false`): each text once, with texts of like length. *Fast* (the default): no padding, AdamW "
        "fused. distilbert has random weights. The share is that of the matrix products a step needs, for "
        f"real tokens alone, in the fast step's time, against products of {SQUARE}² in the same run.\n",
        f"| backbone | numbers | triplets | texts | real tokens | {' | '.join(VARIANTS)} "
        "| sentence-transformers / fast | share of the peak |",
        "| --- | --- " + "| ---: " * 9 + "|",
        *(step_row(*each) for each in STEPS),
        "\nThe fast step with frozen layers: minilm, 256 triplets, bf16.\n",
        "| | seconds |",
        "| --- | ---: |",
        *frozen_rows(),
    ]
    if not GPU:  # what follows is the CPU's
        lines += [
            "\nTriplets drawn, of MINDsmall's categories, class_size=200, triplets_per_item=50. The list is "
            "that of the original, which looks each triplet up among all before it.\n",
            "| sampler | triplets | seconds |",
            "| --- | ---: | ---: |",
            *sampler_rows(),
            "\nTexts embedded to measure a fifth of these triplets, held out: each triplet's three, or each "
            "item once.\n",
            "| three a triplet | each once | times fewer |",
            "| ---: | ---: | ---: |",
            validation_row(),
        ]
    table = "\n".join(lines) + "\n"
    Path(__file__).with_name(f"news_step{'_cuda' if GPU else ''}.md").write_text(table)
    print(table)


def step_row(backbone: str, triplets: int, half: bool) -> str:
    """Measure the variants of a step, and the peak between them."""
    with tempfile.TemporaryDirectory() as folder:
        source = _distilbert(folder) if backbone == "distilbert" else backbone
        config = NewsConfig.parse(TRIPLETS | {"backbone": source})
        examples = draw(config)
        models = [
            NewsModel.pretrained(config.model_copy(update={"fast": fast})) for fast in (False, False, True)
        ]
        rival = rival_of(folder if backbone == "distilbert" else locate(backbone).name, config, DEVICE)
    for model in models:
        model.to(DEVICE)
    table = models[0].tokenize(examples.news.texts(config.text))
    categories = examples.news.codes("category")
    dataset = TripletSet(table, examples.training, categories)
    chosen = dataset.shuffled(np.random.default_rng(0), triplets)[:triplets]
    batch = on_device(dataset.__getitems__(chosen.tolist()))
    columns = [table.rows(rows).to(DEVICE) for rows in examples.training[chosen].T]
    variants = [
        step(models[0], lambda: as_published(models[0], columns), half),
        step(rival, lambda: rival_loss(rival, columns, config), half),
        step(models[1], lambda: loss_of(models[1], models[1](batch.tokens)[batch.indices].unbind(1)), half),
        step(models[2], lambda: loss_of(models[2], models[2](batch.tokens)[batch.indices].unbind(1)), half),
        product(half),
    ]
    seconds = [[spent(variant) for variant in variants] for _ in range(1 + REPEATS)][1:]
    cells = [_median([row[i] for row in seconds]) for i in range(4)]
    cells.append(_median([row[1] / row[3] for row in seconds], 2))
    needed, peak = products_needed(models[2], batch.tokens), 2 * SQUARE**3
    shares = [100 * needed / row[3] / (peak / row[4]) for row in seconds]
    cells.append(f"{_median(shares, 0)} %")
    sizes = (f"{triplets}", f"{len(batch.tokens.ids)}", f"{int(batch.tokens.mask.sum()):,}")
    return f"| {' | '.join((backbone, 'bf16' if half else 'fp32', *sizes, *cells))} |"


def frozen_rows() -> list[str]:
    """Measure the step without frozen layers, and with four of them, computed each time or remembered."""
    config = NewsConfig.parse(TRIPLETS)
    examples = draw(config)
    free, frozen = (NewsModel.pretrained(config.model_copy(update={"freeze": each})) for each in (0, 4))
    table = free.tokenize(examples.news.texts(config.text))
    ways = {
        "all layers trained": (free, table),
        "freeze=4, computed each time": (frozen, table),
        "freeze=4, computed once": (frozen, frozen.cache_frozen_layers(table)),
    }
    steps = [frozen_step(*each, examples) for each in ways.values()]
    seconds = [[spent(each) for each in steps] for _ in range(1 + REPEATS)][1:]
    return [f"| {name} | {_median([row[i] for row in seconds])} |" for i, name in enumerate(ways)]


def frozen_step(model: NewsModel, table: TokenTable, examples: Examples) -> Callable[[], None]:
    dataset = TripletSet(table, examples.training, examples.news.codes("category"))
    batch = on_device(dataset.__getitems__(dataset.shuffled(np.random.default_rng(0), 256)[:256].tolist()))
    return step(
        model.to(DEVICE), lambda: loss_of(model, model(batch.tokens)[batch.indices].unbind(1)), half=True
    )


def on_device(batch: Batch) -> Batch:
    return Batch(batch.tokens.to(DEVICE), batch.indices.to(DEVICE))


def step(model: torch.nn.Module, loss: Callable[[], torch.Tensor], half: bool) -> Callable[[], None]:
    """Return what makes a training step; sentence-transformers' own trainer has AdamW fused as well."""
    if isinstance(model, NewsModel):
        optimizer = model.train().configure_optimizers()
    else:
        optimizer = torch.optim.AdamW(model.train().parameters(), fused=True)

    def make() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return make


def product(half: bool) -> Callable[[], object]:
    kind = torch.bfloat16 if half else torch.float32
    matrix = torch.randn(SQUARE, SQUARE, device=DEVICE).to(kind)
    return lambda: matrix @ matrix


def products_needed(model: NewsModel, tokens: Tokens) -> float:
    """Return the floating point operations of a step's matrix products, forward and twice that backward.

    Each token meets every weight of the layers, and every token of its text twice in attention.
    """
    linear = [each for each in model.backbone.modules() if isinstance(each, torch.nn.Linear)]
    weights = sum(each.weight.numel() for each in linear)
    lengths = tokens.mask.sum(-1).double()
    config = model.backbone.config
    attention = 4 * config.hidden_size * config.num_hidden_layers * float((lengths**2).sum())
    head = sum(each.weight.numel() for each in model.head if isinstance(each, torch.nn.Linear))
    return 3 * (2 * weights * float(lengths.sum()) + attention + 2 * head * len(tokens.ids))


def loss_of(model: NewsModel, vectors: Iterable[torch.Tensor]) -> torch.Tensor:
    vectors = [each.float() for each in vectors]
    return torch.nn.functional.triplet_margin_loss(*vectors, margin=model.hparams["margin"])


def as_published(model: NewsModel, columns: list[Tokens]) -> torch.Tensor:
    return loss_of(model, [published(model, each) for each in columns])


def rival_of(name: str, config: NewsConfig, device: str) -> torch.nn.Module:
    """Return sentence-transformers' network of the same size."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Pooling, Transformer

    backbone = Transformer(name, max_seq_length=config.max_tokens)
    width = backbone.get_word_embedding_dimension()
    hidden = Dense(width, 512, activation_function=torch.nn.GELU())
    last = Dense(512, 256, activation_function=torch.nn.Identity())
    return SentenceTransformer(modules=[backbone, Pooling(width), hidden, last], device=device)


def rival_loss(model: Any, columns: list[Tokens], config: NewsConfig) -> torch.Tensor:
    from sentence_transformers.losses import TripletLoss

    features = [
        {"input_ids": each.ids.flatten(0, 1), "attention_mask": each.mask.flatten(0, 1)} for each in columns
    ]
    return TripletLoss(model, triplet_margin=config.margin)(features, torch.zeros(len(columns[0].ids)))


def published(model: NewsModel, tokens: Tokens) -> torch.Tensor:
    """Return the vectors [N, D] of one pass over titles padded to the most tokens that there may be."""
    more = (0, PUBLISHED_TOKENS - tokens.ids.shape[-1])
    ids, mask = (torch.nn.functional.pad(each.flatten(0, 1), more) for each in (tokens.ids, tokens.mask))
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


def validation_row() -> str:
    """Return how many texts are embedded each epoch to measure the held-out triplets."""
    categories = np.repeat(np.arange(len(MIND)), MIND)
    triplets = draw_triplets(categories, CLASS_SIZE, TRIPLETS_PER_ITEM, seed=0)
    held = np.random.default_rng(0).permutation(triplets)[: round(0.2 * len(triplets))]
    once = len(np.unique(held))
    return f"| {held.size:,} | {once:,} | {held.size / once:.1f} |"


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
    """Return the seconds that some work takes."""
    start = time.perf_counter()
    work()
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _distilbert(folder: str) -> str:
    """Write a DistilBERT of the published size with random weights, and MiniLM's tokenizer; return where."""
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    DistilBertModel(DistilBertConfig()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate("minilm").name).save_pretrained(folder)
    return folder


def _median(values: list[float], digits: int = 3) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _machine() -> str:
    if GPU:
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown CPU")


if __name__ == "__main__":
    main()
