"""Seconds of training until the news network is good: ours, the article's way, sentence-transformers' ways.

`pip install sentence-transformers datasets`, then `benchmarks/news_training.py loss` (until the validation
loss is a tenth of the margin, held-out triplets) or `... precision` (to the best precision at 10, held-out
items), with the names of ways or for all of them. Each way trains in a process of its own; outcomes are kept
in benchmarks/news_training.json, the table is benchmarks/news_training.md. On two cores all of it takes an
hour or two, most of it the article's way.

Every way starts from MiniLM, sees the same items or triplets, and is measured alike: seconds are training
alone, without the looks at the validation set in between.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trainlab.news.config import NewsConfig
from trainlab.news.examples import Examples, draw
from trainlab.training.workers import set_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

HERE = Path(__file__)
PROTOCOLS = {
    "loss": NewsConfig(margin=5, class_size=60, triplets_per_item=20, split="triplet"),
    "precision": NewsConfig(margin=5, class_size=60, triplets_per_item=20),
}
TARGET = 0.1  # of the margin
MOST = {"loss": 3600, "precision": 150}  # seconds of training
WARM_UP = 0.1  # of the steps in an epoch, of sentence-transformers' ways
PUBLISHED = {"batch": 6, "tokens": 40, "learning_rate": 5e-5}
OURS: dict[str, dict[str, Any]] = {
    "trainlab, drawn triplets": {},
    "trainlab, every triplet": {"mining": "all"},
}
# Loss, texts or triplets a step, learning rate: the best of those that were tried
RIVALS: dict[str, tuple[str, int, float]] = {
    "sentence-transformers, TripletLoss": ("TripletLoss", 64, 1e-4),
    "sentence-transformers, BatchAllTripletLoss": ("BatchAllTripletLoss", 128, 1e-4),
    "sentence-transformers, BatchHardTripletLoss": ("BatchHardTripletLoss", 128, 1e-4),
    "sentence-transformers, MultipleNegativesRankingLoss": ("MultipleNegativesRankingLoss", 64, 1e-4),
}
WAYS = ("as published", *OURS, *RIVALS)


class Done(Exception):  # noqa: N818 - no error
    """The training was good enough, or long enough."""


class Watch:
    """Counts the seconds of training, and stops them to measure the network."""

    def __init__(self, protocol: str, examples: Examples) -> None:
        self.protocol, self.examples, self.config = protocol, examples, PROTOCOLS[protocol]
        self.looks: list[dict[str, float]] = []
        self.seconds, self._since = 0.0, 0.0

    def start(self) -> None:
        """Begin, or go on, to count."""
        self._since = time.perf_counter()

    def after_step(self, embed: Callable[[], NDArray[Any]]) -> None:
        """Look at the network now and then: `embed` returns the held-out items' vectors [U, D]."""
        now = self.seconds + time.perf_counter() - self._since
        last = self.looks[-1]["seconds"] if self.looks else 0
        if now - last < max(3, 0.05 * now):
            return
        self.seconds = now
        found = self.examples.measure(embed(), self.config.margin)
        self.looks.append({"seconds": now, **{name: found[name] for name in ("loss", "precision_at_10")}})
        print(", ".join(f"{name} {value:.3f}" for name, value in self.looks[-1].items()), flush=True)
        reached = self.protocol == "loss" and found["loss"] <= TARGET * self.config.margin
        if reached or now > MOST[self.protocol]:
            raise Done
        self.start()

    def outcome(self) -> dict[str, Any]:
        """Return the last or the best look, and when it was."""
        if self.protocol == "loss":
            return {"reached": self.looks[-1]["loss"] <= TARGET * self.config.margin, **self.looks[-1]}
        return max(self.looks, key=lambda look: look["precision_at_10"])


def main() -> None:
    protocol, *ways = sys.argv[1:]
    if ways[:1] == ["--here"]:
        measure(protocol, ways[1])
        return
    for way in ways or WAYS:
        print(f"{protocol}: {way}", flush=True)
        subprocess.run([sys.executable, HERE, protocol, "--here", way], check=True)
    write_table()


def measure(protocol: str, way: str) -> None:
    """Train in one way, and add what came out to the outcomes."""
    set_threads()
    watch = Watch(protocol, draw(PROTOCOLS[protocol]))
    torch.manual_seed(0)
    try:
        if way == "as published":
            train_as_published(watch)
        elif way in OURS:
            train_ours(watch, OURS[way])
        else:
            train_rival(watch, *RIVALS[way])
    except Done:
        pass
    kept = HERE.with_suffix(".json")
    outcomes = json.loads(kept.read_text()) if kept.exists() else {}
    outcomes.setdefault(protocol, {})[way] = {
        **watch.outcome(),
        "looks": watch.looks,
        "load": os.getloadavg()[2],
    }
    kept.write_text(json.dumps(outcomes, indent=1))


def train_as_published(watch: Watch) -> None:
    """Train as the article did: three passes a step, all padded to 40 tokens, AdamW as it comes."""
    from trainlab.news.model import NewsModel, pool

    examples, config = watch.examples, watch.config
    model = NewsModel.pretrained(config.model_copy(update={"fast": False})).train()
    table = model.tokenize(examples.news.texts(config.text))
    tokens = table.all()
    more = (0, PUBLISHED["tokens"] - tokens.ids.shape[-1])
    ids, mask = (torch.nn.functional.pad(each.flatten(0, 1), more) for each in tokens)
    unseen = table.rows(examples.unseen)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PUBLISHED["learning_rate"])
    rng = np.random.default_rng(0)

    def embed(rows: NDArray[np.int64]) -> torch.Tensor:
        states = model.backbone(input_ids=ids[rows], attention_mask=mask[rows]).last_hidden_state
        return model.head(pool(states, mask[rows], config.pooling))

    watch.start()
    while True:
        triplets = examples.training[rng.permutation(len(examples.training))]
        for start in range(0, len(triplets), PUBLISHED["batch"]):
            vectors = [embed(rows) for rows in triplets[start : start + PUBLISHED["batch"]].T]
            optimizer.zero_grad()
            torch.nn.functional.triplet_margin_loss(*vectors, margin=config.margin).backward()
            optimizer.step()
            watch.after_step(lambda: model.embed(unseen).double().numpy())


def train_ours(watch: Watch, settings: dict[str, Any]) -> None:
    """Train with the experiment's own data, network and Trainer."""
    import tempfile

    from lightning.pytorch.callbacks import Callback

    import trainlab
    from trainlab.news.dataset import NewsData
    from trainlab.news.model import NewsModel
    from trainlab.training.trainer import Trainer

    class Look(Callback):
        def on_train_batch_end(self, _: Any, model: Any, *__: Any) -> None:
            watch.after_step(lambda: model.embed(data.unseen()).double().numpy())

    config = watch.config.model_copy(update={"epochs": 1000, "precision": "bf16-mixed", **settings})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRAINLAB_LOGS"] = folder
        with trainlab.Run("benchmark", config) as run:
            model = NewsModel.pretrained(config)
            data = NewsData(watch.examples, model.tokenize(watch.examples.news.texts(config.text)), config)
            trainer = Trainer(run, config, callbacks=[Look()], limit_val_batches=0)
            watch.start()
            trainer.fit(model, data)


def train_rival(watch: Watch, loss: str, batch: int, learning_rate: float) -> None:
    """Train with sentence-transformers' trainer and one of its losses; the network is built like ours."""
    import tempfile

    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, losses
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.models import Dense, Pooling, Transformer
    from torch import nn
    from transformers import TrainerCallback

    from trainlab.backbones import locate

    examples, config = watch.examples, watch.config
    backbone = Transformer(locate("minilm").name, max_seq_length=config.max_tokens)
    hidden = Dense(384, 512, activation_function=nn.GELU())
    last = Dense(512, 256, activation_function=nn.Identity())
    model = SentenceTransformer(modules=[backbone, Pooling(384), hidden, last], device="cpu")
    titles = examples.news.table["title"].to_numpy()

    class Look(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.after_step(lambda: model.encode(list(titles[examples.unseen]), batch_size=64).astype(float))
            model.train()

    labelled = loss.startswith("Batch")
    with tempfile.TemporaryDirectory() as folder:
        arguments = Arguments(
            folder,
            per_device_train_batch_size=batch,
            learning_rate=learning_rate,
            num_train_epochs=1000,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=10,
            bf16=True,
            use_cpu=True,
            batch_sampler="group_by_label" if labelled else "no_duplicates",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
        )
        kind = getattr(losses, loss)
        options = (
            {}
            if loss.startswith("Multiple")
            else {("margin" if labelled else "triplet_margin"): config.margin}
        )
        trainer = SentenceTransformerTrainer(
            model,
            arguments,
            train_dataset=as_dataset(examples, labelled),
            loss=kind(model, **options),
            callbacks=[Look()],
        )
        watch.start()
        trainer.train()


def as_dataset(examples: Examples, labelled: bool) -> Any:
    """Return triplets of titles, or titles with their categories' codes."""
    from datasets import Dataset

    titles = examples.news.table["title"].to_numpy()
    if not labelled:
        anchor, positive, negative = titles[examples.training].T
        return Dataset.from_dict({"anchor": anchor, "positive": positive, "negative": negative})
    items = np.unique(examples.training)
    return Dataset.from_dict({"text": titles[items], "label": examples.news.codes("category")[items]})


def write_table() -> None:
    pass


if __name__ == "__main__":
    main()
