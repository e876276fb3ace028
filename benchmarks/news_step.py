"""Seconds of a training step of the news experiment, and of drawing the article's most triplets.

`pip install sentence-transformers && benchmarks/news_step.py` runs its variants in turn, on the same triplets
of the sample's titles and with networks of the same size, and writes benchmarks/news_step.md. With `cuda`
behind it the steps are the GPU's, and the table is benchmarks/news_step_cuda.md. gpu.py measures such steps
beside others.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from experiments.news.config import NewsConfig
from experiments.news.data import draw, draw_triplets
from experiments.news.model import Batch, NewsModel, pool
from experiments.news.train import TripletSet
from trainlab.hub import locate
from trainlab.training.workers import set_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from experiments.news.data import Examples
    from experiments.news.tokens import Tokens, TokenTable

    Variant = tuple[torch.nn.Module, Callable[[], torch.Tensor]]  # the network, and what gives its loss

DEVICE = (sys.argv[1:2] or ["cpu"])[0] if __name__ == "__main__" else "cpu"
GPU = DEVICE == "cuda"
TRIPLETS = {"loss": "triplet", "freeze": 0, "test": 0}  # the article's loss, all layers trained
REPEATS = 30 if GPU else 5  # after one more, to warm up
STEPS = (  # backbone, triplets, numbers
    ("minilm", 32, "fp32"),
    ("minilm", 32, "bf16"),
    ("minilm", 256, "bf16"),
    *([("minilm", 1536, "bf16")] if GPU else []),
    ("distilbert", 32, "fp32"),
    ("distilbert", 32, "bf16"),
    *([("distilbert", 256, "bf16")] if GPU else []),
)
NUMBERS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # of the matrix products
SIZES: dict[str, dict[str, float]] = {  # of networks with random weights
    "distilbert": {},  # as published
    # for the tests; its weights as much larger as its layers are narrower, so that attention matters as there
    "tiny": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "initializer_range": 0.1},
}
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


def step_row(backbone: str, triplets: int, numbers: str) -> str:
    """Measure the variants of a step, and the peak between them."""
    found = measure(backbone, triplets, numbers, VARIANTS, device=DEVICE, repeats=REPEATS)
    rival, fast = (found.seconds[name] for name in ("sentence-transformers", "fast"))
    cells = (
        *(f"{triplets}", f"{found.texts}", f"{found.tokens:,}"),
        *(median(found.seconds[name]) for name in VARIANTS),
        median([theirs / ours for theirs, ours in zip(rival, fast, strict=True)], 2),
        f"{median(found.shares('fast'), 0)} %",
    )
    return f"| {' | '.join((backbone, numbers, *cells))} |"


class Measured(NamedTuple):
    """What steps took in turn: seconds of each variant, and of the matrix product, by turn."""

    texts: int
    tokens: int
    seconds: dict[str, list[float]]
    first: dict[str, float]  # seconds of the first step, which isn't among them
    vectors: dict[str, torch.Tensor]  # of the texts, before any step and without dropout; not the rival's
    needed: float  # floating point operations of a step's matrix products
    product: list[float]
    peak: float  # operations of the product

    def shares(self, name: str) -> list[float]:
        """Return the percents of the measured peak that a variant's needed products reach, by turn."""
        pairs = zip(self.seconds[name], self.product, strict=True)
        return [100 * self.needed / spent / (self.peak / product) for spent, product in pairs]


def measure(  # noqa: PLR0913
    backbone: str,
    triplets: int,
    numbers: str,
    names: Sequence[str],
    *,
    device: str,
    repeats: int,
    square: int = SQUARE,
    variant: Callable[[str, Batch, NewsConfig], Variant] | None = None,
    **settings: Any,
) -> Measured:
    """Make steps of some variants in turn, on the same triplets, from the same weights.

    Args:
        backbone: minilm, or a name in `SIZES`.
        triplets: How many a step has.
        numbers: A name in `NUMBERS`.
        names: Variants, of `VARIANTS` or of those that `variant` knows.
        device: cpu or cuda.
        repeats: Turns, after one more, to warm up.
        square: Rows and columns of the matrices whose product is the peak.
        variant: Returns the network and the loss for a name that isn't in `VARIANTS`.
        **settings: More settings of the news experiment.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = made_up(folder, **SIZES[backbone]) if backbone in SIZES else backbone
        config = NewsConfig.parse(TRIPLETS | {"backbone": source} | settings)
        examples = draw(config)
        plain = built(config, False, device)
        table = plain.tokenize(examples.news.texts(config.text))
        dataset = TripletSet(table, examples.training, examples.news.codes("category"))
        chosen = dataset.shuffled(np.random.default_rng(0), triplets)[:triplets]
        batch = to_device(dataset.__getitems__(chosen.tolist()), device)
        columns = [table.rows(rows).to(device) for rows in examples.training[chosen].T]
        made: dict[str, Variant] = {}
        for name in names:
            if name == "sentence-transformers":
                rival = rival_of(folder if backbone in SIZES else locate(backbone).name, config, device)
                made[name] = rival, partial(rival_loss, rival, columns, config)
            elif name in VARIANTS:
                model = plain if name == "plain" else built(config, name == "fast", device)
                loss = partial(as_published, model, columns) if name == "as published" else None
                made[name] = model, loss or partial(batch_loss, model, batch)
            else:
                assert variant is not None, name
                made[name] = variant(name, batch, config)
    vectors = {
        name: embedded(each, batch, numbers)
        for name, (each, _) in made.items()
        if isinstance(each, NewsModel)
    }
    steps = [step(*each, numbers) for each in made.values()] + [product(numbers, device, square)]
    first, *turns = [[spent(each) for each in steps] for _ in range(1 + repeats)]
    by_step = [list(each) for each in zip(*turns, strict=True)]
    return Measured(
        len(batch.tokens.ids),
        int(batch.tokens.mask.sum()),
        dict(zip(made, by_step, strict=False)),
        dict(zip(made, first, strict=False)),
        vectors,
        products_needed(plain, batch.tokens),
        by_step[-1],
        2 * square**3,
    )


def built(config: NewsConfig, fast: bool, device: str) -> NewsModel:
    """Return the network, its head the same each time."""
    torch.manual_seed(0)
    return NewsModel.pretrained(config.model_copy(update={"fast": fast})).to(device)


def batch_loss(model: NewsModel, batch: Batch) -> torch.Tensor:
    return loss_of(model, model(batch.tokens)[batch.indices].unbind(1))


@torch.no_grad()
def embedded(model: NewsModel, batch: Batch, numbers: str) -> torch.Tensor:
    """Return the vectors [N, D] of a batch's texts without dropout, on the CPU."""
    with casting(model.eval(), numbers):
        return model(batch.tokens).float().cpu()


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
    return [f"| {name} | {median([row[i] for row in seconds])} |" for i, name in enumerate(ways)]


def frozen_step(model: NewsModel, table: TokenTable, examples: Examples) -> Callable[[], None]:
    dataset = TripletSet(table, examples.training, examples.news.codes("category"))
    chosen = dataset.shuffled(np.random.default_rng(0), 256)[:256]
    batch = to_device(dataset.__getitems__(chosen.tolist()), DEVICE)
    return step(model.to(DEVICE), partial(batch_loss, model, batch), "bf16")


def to_device(batch: Batch, device: str) -> Batch:
    return Batch(batch.tokens.to(device), batch.indices.to(device))


def casting(model: torch.nn.Module, numbers: str) -> torch.autocast:
    device = next(model.parameters()).device.type
    return torch.autocast(device, NUMBERS[numbers], enabled=numbers != "fp32")


def step(model: torch.nn.Module, loss: Callable[[], torch.Tensor], numbers: str) -> Callable[[], None]:
    """Return what makes a training step; sentence-transformers' own trainer has AdamW fused as well."""
    scaler = torch.amp.GradScaler(next(model.parameters()).device.type, enabled=numbers == "fp16")
    if isinstance(model, NewsModel):
        optimizer = model.train().configure_optimizers()
    else:
        optimizer = torch.optim.AdamW(model.train().parameters(), fused=True)

    def make() -> None:
        with casting(model, numbers):
            value = loss()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return make


def product(numbers: str, device: str, square: int) -> Callable[[], object]:
    matrix = torch.randn(square, square, device=device).to(NUMBERS[numbers])
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
        f"| `draw_triplets` | {total:,} | {median(ours, 3)} |",
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
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def made_up(folder: str, **sizes: Any) -> str:
    """Write a DistilBERT with random weights and MiniLM's tokenizer; the published size unless given."""
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    torch.manual_seed(0)
    DistilBertModel(DistilBertConfig(**sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate("minilm").name).save_pretrained(folder)
    return folder


def median(values: Sequence[float], digits: int = 3) -> str:
    """Return the median, and the range in brackets."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _machine() -> str:
    if GPU:
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown CPU")


if __name__ == "__main__":
    main()
