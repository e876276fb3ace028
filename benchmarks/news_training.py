"""Seconds of training until the news network is good: ours, the article's way, sentence-transformers' ways.

`pip install sentence-transformers datasets && benchmarks/news_training.py`; or with `loss` (until the
validation loss is a tenth of the margin, held-out triplets) or `precision` (to the best precision at 10,
held-out items), and the names of ways behind it. Each way trains in a process of its own; outcomes are kept
in benchmarks/news_training.json, the table is benchmarks/news_training.md. On two cores all of it takes an
hour, most of it the article's way, and ten minutes for one whose loss collapses to the margin.

`DEVICE=cuda` before it trains on the GPU; outcomes and table are then news_training_cuda's.

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
from news_step import as_published, rival_of

from experiments.news.config import NewsConfig
from experiments.news.data import Examples, draw
from experiments.news.model import NewsModel
from trainlab.hub import locate
from trainlab.training.workers import set_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

HERE = Path(__file__)
DEVICE = os.environ.get("DEVICE", "cpu")
KEPT = HERE.with_name(f"news_training{'_cuda' if DEVICE == 'cuda' else ''}.json")
PROTOCOLS = {
    split: NewsConfig.parse(
        {"margin": 5, "class_size": 60, "triplets_per_item": 20, "split": chosen}
        | {"loss": "triplet", "freeze": 0, "test": 0}
    )
    for split, chosen in (("loss", "triplet"), ("precision", "item"))
}
TARGET = 0.1  # of the margin
MOST = (
    {"loss": 900, "precision": 60} if DEVICE == "cpu" else {"loss": 60, "precision": 15}
)  # seconds of training
PUBLISHED_BATCH, PUBLISHED_RATE = 6, 5e-5
RATES = {"learning_rate": 2e-4, "head_learning_rate": 2e-3, "precision": "bf16-mixed"}
OURS: dict[str, dict[str, Any]] = {
    "trainlab, drawn triplets": RATES,
    "trainlab, every triplet": RATES | {"mining": "all"},
}
# Loss, texts or triplets a step, learning rate: the best of those that were tried
RIVALS: dict[str, tuple[str, int, float]] = {
    "sentence-transformers, TripletLoss": ("TripletLoss", 64, 1e-4),
    "sentence-transformers, BatchAllTripletLoss": ("BatchAllTripletLoss", 64, 3e-4),
    "sentence-transformers, BatchHardTripletLoss": ("BatchHardTripletLoss", 128, 1e-4),
    "sentence-transformers, MultipleNegativesRankingLoss": ("MultipleNegativesRankingLoss", 64, 3e-4),
}
WAYS = ("as published", *OURS, *RIVALS)
LEFT_OUT = {  # its loss knows no margin; an epoch of it takes a quarter of an hour
    "loss": "sentence-transformers, MultipleNegativesRankingLoss",
    "precision": "as published",
}


class Done(Exception):  # noqa: N818 - no error
    """The training was good enough, or long enough."""


class Watch:
    """Counts the seconds of training, and stops them to measure the network."""

    def __init__(self, protocol: str, config: NewsConfig, most: float) -> None:
        self.protocol, self.examples, self.config, self.most = protocol, draw(config), config, most
        self.looks: list[dict[str, float]] = []
        self.seconds, self._since = 0.0, 0.0

    def start(self) -> None:
        """Begin, or go on, to count."""
        self._since = time.perf_counter()

    def after_step(self, embed: Callable[[], NDArray[Any]]) -> None:
        """Look at the network now and then: `embed` returns the held-out items' vectors [U, D]."""
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        now = self.seconds + time.perf_counter() - self._since
        last = self.looks[-1]["seconds"] if self.looks else 0
        if now - last < max(2 if DEVICE == "cpu" else 0.2, 0.05 * now):
            return
        self.seconds = now
        found = self.examples.measure(embed(), self.config)
        self.looks.append({"seconds": now, **{name: found[name] for name in ("loss", "precision_at_10")}})
        print(", ".join(f"{name} {value:.3f}" for name, value in self.looks[-1].items()), flush=True)
        reached = self.protocol == "loss" and found["loss"] <= TARGET * self.config.margin
        if reached or now > self.most:
            raise Done
        self.start()

    def outcome(self) -> dict[str, Any]:
        """Return the last or the best look, and when it was."""
        if self.protocol == "loss":
            return {"reached": self.looks[-1]["loss"] <= TARGET * self.config.margin, **self.looks[-1]}
        return max(self.looks, key=lambda look: look["precision_at_10"])


def main() -> None:
    if "--here" in sys.argv:
        measure(sys.argv[1], sys.argv[3])
        return
    for protocol in sys.argv[1:2] or PROTOCOLS:
        for way in sys.argv[2:] or [each for each in WAYS if each != LEFT_OUT[protocol]]:
            print(f"{protocol}: {way}", flush=True)
            subprocess.run([sys.executable, HERE, protocol, "--here", way], check=True)
            write_table()


def measure(protocol: str, way: str) -> None:
    """Train in one way, and add what came out to the outcomes."""
    outcomes = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    outcomes.setdefault(protocol, {})[way] = trained(protocol, way, PROTOCOLS[protocol], MOST[protocol])
    KEPT.write_text(json.dumps(outcomes, indent=1))


def trained(protocol: str, way: str, config: NewsConfig, most: float) -> dict[str, Any]:
    """Train in one way, for so many seconds at most, and return what came out."""
    set_threads()
    watch = Watch(protocol, config, most)
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
    return {**watch.outcome(), "looks": watch.looks, "load": os.getloadavg()[2]}


def train_as_published(watch: Watch) -> None:
    """Train as the article did: three passes a step, all padded to 40 tokens, AdamW as it comes."""
    examples, config = watch.examples, watch.config
    model = NewsModel.pretrained(config.model_copy(update={"fast": False})).to(DEVICE).train()
    table = model.tokenize(examples.news.texts(config.text))
    unseen = table.rows(examples.unseen)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PUBLISHED_RATE)
    rng = np.random.default_rng(0)
    watch.start()
    while True:
        triplets = examples.training[rng.permutation(len(examples.training))]
        for start in range(0, len(triplets), PUBLISHED_BATCH):
            optimizer.zero_grad()
            columns = [table.rows(rows).to(DEVICE) for rows in triplets[start : start + PUBLISHED_BATCH].T]
            as_published(model, columns).backward()
            optimizer.step()
            watch.after_step(lambda: model.embed(unseen).double().numpy())


def train_ours(watch: Watch, settings: dict[str, Any]) -> None:
    """Train with the experiment's own data, network and Trainer."""
    import tempfile

    from lightning.pytorch.callbacks import Callback

    import trainlab
    from experiments.news.train import NewsData
    from trainlab.training.trainer import Trainer

    class Look(Callback):
        def on_train_batch_end(self, _: Any, model: Any, *__: Any) -> None:
            watch.after_step(lambda: model.embed(data.unseen()).double().numpy())

    config = watch.config.model_copy(update={"epochs": 1000, "accelerator": DEVICE, **settings})
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

    from sentence_transformers import SentenceTransformerTrainer, losses
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from transformers import TrainerCallback

    examples, config = watch.examples, watch.config
    model = rival_of(locate("minilm").name, config, DEVICE)
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
            use_cpu=DEVICE == "cpu",
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
    """Write the outcomes side by side."""
    outcomes = json.loads(KEPT.read_text())
    machine = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{os.cpu_count()} cores"
    lines = [
        "# Training until the news network is good\n",
        f"From MiniLM, on the sample, seed 0; {machine}. Seconds of training alone. "
        "Made by `benchmarks/news_training.py`.\n",
        "**loss**: seconds until the held-out triplets' mean loss is at most a tenth of the margin of 5 (60 "
        "items of a category, 20 triplets an item, split by triplet: all ways see all items).\n",
        *_rows(outcomes.get("loss", {}), "loss"),
        "\n**precision**: the best precision at 10 among held-out items (split by item), and the seconds "
        f"until then, of {MOST['precision']}.\n",
        *_rows(outcomes.get("precision", {}), "precision"),
    ]
    KEPT.with_suffix(".md").write_text("\n".join(lines) + "\n")


def _rows(found: dict[str, Any], protocol: str) -> list[str]:
    rows = [
        "| | seconds | times ours | loss | precision at 10 | load |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    best = min((each["seconds"] for way, each in found.items() if way in OURS), default=float("nan"))
    for way in sorted(found, key=WAYS.index):
        each = found[way]
        failed = protocol == "loss" and not each["reached"]
        seconds = f"{'not within ' if failed else ''}{each['seconds']:.0f}"
        times = "" if failed else f"{each['seconds'] / best:.1f}"
        rows.append(
            f"| {way} | {seconds} | {times} | {each['loss']:.3f} | {each['precision_at_10']:.3f} "
            f"| {each['load']:.1f} |"
        )
    return rows


if __name__ == "__main__":
    main()
