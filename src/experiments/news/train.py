"""The news experiment: `train` runs it and returns what came out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_convert
from transformers.utils.hub import cached_file

from experiments.news.config import POOLINGS, NewsConfig, Pooling
from experiments.news.data import Examples, News, Part, draw
from experiments.news.metrics import mean_distances, sampling, triplet_distances
from experiments.news.model import Batch, Group, NewsModel
from experiments.news.recommend import check_query, embed, nearest, save_vectors
from experiments.news.tokens import Tokens, TokenTable, tokens_of
from trainlab import Run, Trainer, hub, scalars
from trainlab.cleaning import markdown, markdown_table
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.run.metrics import Direction
from trainlab.run.recorder import VIEWS
from trainlab.run.restoring import BEST, restore
from trainlab.runs.plots import plot_curves
from trainlab.training.trainer import set_threads

METRICS: dict[str, Direction] = {  # the loss grows with the margin: what comes first compares any two runs
    "val/precision_at_10": "max",
    "val/precision_at_10_subcategory": "max",
    "val/mrr": "max",
    "val/triplet_accuracy": "max",
    "val/loss": "min",
}
# Of the test, among the curves; run.json has the others
TESTED = ("precision_at_10", "mrr")
QUERIES = 3  # titles that recommendations are shown for
SHOWN = ("val/loss", "val/precision_at_10")  # on the progress bar
PROJECTED = 5_000  # points the projector in a browser still turns smoothly
TRAINED = "trained"
COSINE, EUCLIDEAN, TFIDF = BASELINES = ("untrained_cosine", "untrained_euclidean", "tfidf")
CURVES = {
    "loss": ("train/loss_epoch", "val/loss"),
    "precision at 10": (
        "val/precision_at_10",
        *(f"val_{each}/precision_at_10" for each in BASELINES),
    ),
    "mean reciprocal rank": ("val/mrr", *(f"val_{each}/mrr" for each in BASELINES)),
}


@dataclass
class Result:
    """What a run gave: folder, examples, metrics by part and system, network, embeddings [N, D] of all news.

    `pooling` is the one that the untrained backbone is compared by cosine with.
    """

    run: Path
    config: NewsConfig
    examples: Examples
    metrics: dict[Part, dict[str, dict[str, float]]]
    model: NewsModel
    vectors: NDArray[Any]
    pooling: Pooling

    @property
    def reported(self) -> Part:
        """The part that figures are reported of: the test where there is one."""
        return "validation" if self.examples.test is None else "test"

    def table(self) -> pd.DataFrame:
        """Return the metrics on the part that is reported, one column a system.

        `untrained, cosine` is the backbone's vectors as their makers compare them: scaled to length 1, pooled
        as they say or, where they don't, by the mean or the first token, whichever has the higher precision
        at 10 on the validation part. `untrained, Euclidean` is what the article compared with: vectors as
        they come. All of `trained` is of one epoch, the best by the settings' `monitor`; in `trainlab runs`
        each metric has its own best epoch. Contrastive losses compare, being of vectors of length 1; a
        triplet loss depends on its system's scale.
        """
        names = {
            EUCLIDEAN: f"untrained, Euclidean ({self.config.pooling})",
            COSINE: f"untrained, cosine ({self.pooling})",
            TFIDF: "TF-IDF",
            TRAINED: TRAINED,
        }
        found = self.metrics[self.reported]
        columns = {name: found[key] for key, name in names.items() if key in found}
        rows = [tag.removeprefix("val/") for tag in METRICS]
        count = len(self.examples.held(self.reported).items)
        return pd.DataFrame(columns).reindex(rows).rename_axis(f"{self.reported}, {count:,} items")

    def history(self) -> pd.DataFrame:
        """Return every point of the run's curves: tag, step, wall_time, value."""
        return scalars(self.run)

    def recommendations(self, titles: str | Sequence[str] | None = None, k: int = 10) -> pd.DataFrame:
        """Return the k nearest news to each title (see `recommend`); without titles, to a few unseen ones."""
        titles = self.titles() if titles is None else titles
        check_query(titles, k)
        return nearest(partial(embed, self.model), self.examples.news, self.vectors, titles, k)

    def unseen(self) -> NDArray[Any]:
        """Return the embeddings [U, D] of the unseen items."""
        return self.vectors[self.examples.unseen]

    def titles(self) -> list[str]:
        """Return a few unseen titles, of different categories."""
        table = self.examples.news.table.iloc[self.examples.unseen]
        return table.drop_duplicates("category")["title"].head(QUERIES).tolist()

    def curves(self) -> Figure:
        """Draw losses and metrics over the steps, baselines beside them."""
        return plot_curves(self.history(), CURVES)

    def similarity(self) -> Figure:
        """Draw how far apart the categories of the unseen items lie; the darker, the more alike."""
        near = category_distances(self.examples, self.unseen())
        figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
        image = axes.imshow(near, cmap="viridis")
        axes.set_xticks(range(len(near)), near.columns, rotation=90)
        axes.set_yticks(range(len(near)), near.index)
        axes.set_title("Mean distance between unseen news: dark is similar")
        figure.colorbar(image, shrink=0.8)
        plt.close(figure)
        return figure


def train(config: NewsConfig) -> Result:
    """Train, or with `trained=false` only measure; everything is recorded in a run's folder.

    With `resume` a run is resumed from its newest checkpoint, or at its last measuring if only that is left.
    With `fast_dev_run` a few batches are trained on, to see that all of it works, and nothing is recorded.

    Shows what it does on standard output and standard error. Raises UserError when data or backbone can't be
    used, before there is a run.
    """
    examples = draw(config)
    config.check_machine()
    if idle := config.without_effect():
        print(f"warning: with loss={config.loss} this changes nothing: {', '.join(idle)}", flush=True)
    print(f"{examples.news.summary()}\n{examples.summary()}", flush=True)
    with Run("news", config, seed=config.seed, data=examples.news.fingerprint(), metrics=METRICS) as run:
        print(f"run: {run.folder}", flush=True)
        return _record(run, config, examples)


def _record(run: Run, config: NewsConfig, examples: Examples) -> Result:
    set_threads()
    torch.manual_seed(config.seed)  # the head's first weights
    model = NewsModel.pretrained(config).to(config.device)
    backbone, count = Path(config.backbone).name, len(examples.unseen)
    print(f"measuring {backbone}, untrained, and TF-IDF on the {count:,} items{sampling(count)}", flush=True)
    tokens = tokens_of(examples.news, config.text, model.tokenizer)
    data = NewsData(examples, tokens, config)
    pooling, metrics = baselines(model, data)
    print(f"  untrained, cosine: pooling={pooling}", flush=True)
    validated = {
        f"val_{key}/{name}": each[name] for key, each in metrics["validation"].items() for name in each
    }
    if not config.fast_dev_run and not run.has(f"val_{COSINE}/mrr", 0):  # a resumed run has logged them
        run.log(validated, 0)
    if config.trained:
        if config.devices == 1:  # other processes would each get a copy
            data.tokens = model.cache_frozen_layers(data.tokens)
        trainer = Trainer(run, config, callbacks=[Evaluation(run, examples, config)])
        trainer.fit(model, data)
        if trainer.best_checkpoint is not None:
            model = restore(NewsModel, trainer.best_checkpoint)
            print(f"trained, below: the weights with the best {config.monitor}", flush=True)
        model, steps = model.to(config.device).eval(), trainer.global_step
    else:  # recorded as it is, so that it can recommend like any other
        own = examples.measure(as_array(model.embed(data.unseen())), config)
        run.log({f"val/{name}": value for name, value in own.items()}, 0)
        state = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
        checkpoint.save(state, run.folder / BEST)
        steps = 0
    embedded = model.embed(tokens).numpy()
    if not config.fast_dev_run and (run.folder / BEST).is_file():
        save_vectors(run.folder, examples.news, embedded)
    vectors = embedded.astype(np.float64)
    for part in metrics if config.trained else ():
        metrics[part][TRAINED] = examples.measure(vectors[examples.held(part).items], config, part)
    result = Result(run.folder, config, examples, metrics, model, vectors, pooling)
    if config.fast_dev_run:
        print("fast_dev_run: all of it works. No curves, no checkpoint: leave fast_dev_run out to train.")
        return result
    if steps:
        run.log(validated, steps)  # a second point makes a line of them
    else:
        log_distances(run, examples, result.unseen(), steps)
    if "test" in metrics:
        run.update(tested=metrics["test"], untrained_pooling=pooling)
        if config.trained:
            run.log({f"test/{name}": metrics["test"][TRAINED][name] for name in TESTED}, steps)
    log_embeddings(run, result, steps)
    run.log_text("recommendations", as_markdown(result.recommendations()), steps)
    return result


def baselines(model: NewsModel, data: NewsData) -> tuple[Pooling, dict[Part, dict[str, dict[str, float]]]]:
    """Measure the backbone as it is, and TF-IDF, on what is held out.

    Returns:
        The pooling that the cosine is taken with, and the metrics by part and system: the makers' own, or the
        one that finds more on the validation part. Vectors as they come have no contrastive loss: it is one
        of cosines.
    """
    examples, config = data.examples, data.config
    words = tfidf(examples.news, config.text)
    parts: list[Part] = ["validation"] if examples.test is None else ["validation", "test"]
    tokens = {part: data.tokens.rows(examples.held(part).items) for part in parts}
    published = published_pooling(config.backbone)
    choice = POOLINGS if published is None else (published,)
    plain = {
        (part, pooling): as_array(model.embed_raw(tokens[part], pooling))
        for part in parts
        for pooling in {*choice, config.pooling}
    }
    by_cosine = {
        (part, pooling): examples.measure(unit(plain[part, pooling]), config, part)
        for part in parts
        for pooling in choice
    }
    best = max(choice, key=lambda each: by_cosine["validation", each].get("precision_at_10", 0.0))
    metrics: dict[Part, dict[str, dict[str, float]]] = {}
    for part in parts:
        euclidean = examples.measure(plain[part, config.pooling], config, part)
        if config.loss == "contrastive":
            del euclidean["loss"]
        metrics[part] = {
            COSINE: by_cosine[part, best],
            EUCLIDEAN: euclidean,
            TFIDF: examples.measure(words[examples.held(part).items], config, part),
        }
    return best, metrics


def published_pooling(backbone: str) -> Pooling | None:
    """Return how a backbone's makers pool its tokens, where they say so in sentence-transformers' file."""
    source = hub.locate(backbone)
    try:
        path = cached_file(source.name, "1_Pooling/config.json", local_files_only=source.local)
        known = json.loads(Path(path or "").read_text())
    except (OSError, ValueError):  # no such file, out of reach, or something else
        return None
    if known.get("pooling_mode_mean_tokens"):
        return "mean"
    return "cls" if known.get("pooling_mode_cls_token") else None


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return vectors [N, D] at length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def as_array(vectors: Tensor) -> NDArray[np.float64]:
    """Return vectors in double precision: what is measured must not depend on their rounding."""
    return vectors.double().numpy()


class TripletSet(Dataset):
    """Triplets [T, 3] of rows of `tokens`, fetched a whole batch at a time.

    `labels` [N] are the items' categories as codes.
    """

    def __init__(self, tokens: TokenTable, triplets: NDArray[Any], labels: NDArray[Any]) -> None:
        self.tokens, self.labels = tokens, labels
        self.triplets = torch.from_numpy(triplets)

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, row: int) -> Batch:
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> Batch:
        """Return a batch: each item's tokens once, however many of the triplets it is part of."""
        items, indices = torch.unique(self.triplets[rows], return_inverse=True)
        return Batch(self.tokens.rows(items), indices)

    def shuffled(self, rng: np.random.Generator, batch_size: int) -> NDArray[np.int64]:
        """Return the triplets' rows in a random order in which a batch shares items.

        Categories are paired at random; a batch holds the triplets between one pair or two and another, and
        with 256 triplets half of the texts that as many drawn from all of them have. Batches are shuffled.
        """
        pair = rng.permutation(self.labels.max() + 1)[self.labels] // 2
        sides = np.sort(pair[self.triplets.numpy()[:, [0, 2]]], axis=1)
        rows = np.lexsort((rng.random(len(sides)), sides[:, 1], sides[:, 0]))
        whole = len(rows) // batch_size * batch_size
        return np.append(rng.permutation(rows[:whole].reshape(-1, batch_size)), rows[whole:])


class GroupSet(Dataset):
    """Groups of up to `size` items of one category, drawn again each time one is fetched.

    A category of n items has n / size of them, rounded up: an epoch takes each item once, on the average.
    `items` [N] are rows of `tokens`, `labels` [N] their categories as codes, `finer` [N] their
    subcategories. A group that a batch holds twice is one of more items.
    """

    def __init__(
        self, tokens: TokenTable, items: NDArray[Any], labels: NDArray[Any], finer: NDArray[Any], size: int
    ) -> None:
        self.tokens, self.size = tokens, size
        self.finer = torch.zeros(len(tokens), dtype=torch.long)  # of each row of the tokens
        self.finer[torch.from_numpy(items)] = torch.from_numpy(finer)
        order = np.argsort(labels, kind="stable")
        starts = np.unique(labels[order], return_index=True)[1]
        self.pools = [torch.from_numpy(pool) for pool in np.split(items[order], starts[1:])]
        self.categories = [
            category for category, pool in enumerate(self.pools) for _ in range(0, len(pool), size)
        ]

    def __len__(self) -> int:
        return len(self.categories)

    def __getitem__(self, group: int) -> Group:
        return self.__getitems__([group])

    def __getitems__(self, groups: list[int]) -> Group:
        """Return a batch of groups, each item once."""
        wanted, drawn = Counter(self.categories[group] for group in groups), []
        for category, count in wanted.items():
            pool = self.pools[category]
            order = torch.randperm(len(pool))  # by torch's random numbers, which the Trainer seeds
            drawn.append(pool[order[: count * self.size]])
        labels = torch.tensor(list(wanted)).repeat_interleave(torch.tensor([len(each) for each in drawn]))
        items = torch.cat(drawn)
        return Group(self.tokens.rows(items), labels, self.finer[items])


class NewsData(lightning.LightningDataModule):
    """Shuffled triplets to train on; the unseen items, all at once, to validate on."""

    def __init__(self, examples: Examples, tokens: TokenTable, config: NewsConfig) -> None:
        super().__init__()
        self.examples, self.tokens, self.config = examples, tokens, config

    def unseen(self) -> Tokens:
        """Return the tokens of the unseen items."""
        return self.tokens.rows(self.examples.unseen)

    def train_dataloader(self) -> DataLoader:
        """Return batches, shuffled; order, and workers where they pay, are the Trainer's."""
        config, codes = self.config, self.examples.news.codes("category")
        chosen: TripletSet | GroupSet
        if config.loss == "triplet" and config.mining == "sampled":
            chosen, size = TripletSet(self.tokens, self.examples.training, codes), config.batch_size
        else:
            items = np.unique(self.examples.training)
            finer = self.examples.news.codes("subcategory")
            chosen = GroupSet(self.tokens, items, codes[items], finer[items], config.items_per_class)
            size = config.classes_per_batch
        return DataLoader(chosen, batch_size=size, shuffle=True, collate_fn=default_convert)

    def val_dataloader(self) -> DataLoader:
        """Return one batch: the unseen items."""
        return DataLoader([self.unseen()], batch_size=None)  # type: ignore[arg-type]


class Evaluation(Callback):
    """Measures the unseen items' embeddings after each epoch: `val/...` and the histograms of distances."""

    def __init__(self, run: Run, examples: Examples, config: NewsConfig) -> None:
        self._run, self._examples, self._config = run, examples, config

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Measure the one batch of validation: all unseen items."""
        vectors = as_array(outputs.cpu())
        for name, value in self._examples.measure(vectors, self._config).items():
            tag = f"val/{name}"
            module.log(tag, value, prog_bar=tag in SHOWN, batch_size=len(vectors))
        if not (trainer.sanity_checking or trainer.fast_dev_run):  # type: ignore[attr-defined]
            log_distances(self._run, self._examples, vectors, trainer.global_step)


def log_distances(run: Run, examples: Examples, vectors: NDArray[Any], step: int) -> None:
    """Write histograms of the unseen triplets' distances; vectors [U, D]."""
    positive, negative = triplet_distances(vectors, examples.validation.triplets)
    run.log_histogram(f"{VIEWS}distances_positive", positive, step)
    run.log_histogram(f"{VIEWS}distances_negative", negative, step)


def log_embeddings(run: Run, result: Result, step: int) -> None:
    """Write the unseen items' vectors to the projector, and the picture of their categories."""
    columns = ["title", "category", "subcategory"]
    table = result.examples.news.table.iloc[result.examples.unseen[:PROJECTED]][columns]
    vectors = result.unseen()[:PROJECTED]
    run.log_embedding("unseen", vectors, table.to_numpy().tolist(), columns, step)
    run.log_figure(f"{VIEWS}similarity", result.similarity(), step)


def category_distances(examples: Examples, vectors: NDArray[Any]) -> pd.DataFrame:
    """Return the mean distance between unseen items of each two categories, never an item and itself."""
    categories = examples.news.table["category"].to_numpy()[examples.unseen]
    names, codes = np.unique(categories.astype(str), return_inverse=True)
    # a single item has no distance within its category: NaN, left blank
    return pd.DataFrame(mean_distances(vectors, codes), index=names, columns=names)


def as_markdown(table: pd.DataFrame) -> str:
    """Return recommendations as Markdown: one table for each query."""
    parts = []
    for query, rows in table.groupby("query", sort=False):
        cells = [(row.rank, row.title, row.category, f"{row.distance:.3f}") for row in rows.itertuples()]
        lines = markdown_table(("rank", "title", "category", "distance"), cells, ("rank", "distance"))
        parts.append(f"**{markdown(str(query))}**\n\n{lines}")
    return "\n\n".join(parts)


def tfidf(news: News, text: str) -> Any:
    """Return all items' TF-IDF vectors, sparse [N, V] of length 1.

    The words' weights come from all news: they need no categories, so nothing is given away. Euclidean
    distance orders vectors of length 1 as the cosine does.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        return TfidfVectorizer().fit_transform(" ".join(each) for each in news.texts(text)).tocsr()
    except ValueError:  # an empty vocabulary
        raise UserError(f"{news.path}: none of its texts has a word of two letters.") from None
