"""CPU seconds of an epoch of the sentiment experiment's network, with and without padding.

    .venv/bin/python benchmarks/sentiment_epoch.py

Transformers' own Trainer each time, the same weights at first, the experiment's arguments: batches in random
order padded to their longest text, which is what a plain Trainer does; the same batches without padding
(`unpadded`); and batches of like length, which Transformers makes and which are other batches. The losses are
those of each step, without dropout, whose random numbers would differ. Each is a process of its own with one
thread; the ways take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from experiments.sentiment.config import SentimentConfig
from experiments.sentiment.data import draw
from experiments.sentiment.model import Classifier
from trainlab.training.unpadded import unpadded

ROUNDS, WANTED = 3, 1.5
WAYS = {
    "plain": "plain Trainer: random batches, padded",
    "unpadded": "the same batches, unpadded",
    "grouped": "batches of like length, padded",
}
TEXTS = {
    "sample": "the sample's training part, batches of 8",
    "long": "made-up texts, lengths log-normal around 220 and cut at 512, batches of 16",
}
LONG, MEDIAN, SPREAD, MOST = 64, 220, 0.65, 512  # about as films' reviews on IMDb are


def main() -> None:
    """Write the table, or, given a way and texts, measure it once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("once", nargs="*")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(epoch(*options.once)))
        return
    found: dict[tuple[str, str], list[float]] = {}
    losses: dict[tuple[str, str], list[float]] = {}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for texts in TEXTS:
        for _ in range(options.rounds):
            for way in WAYS:
                command = [sys.executable, __file__, way, texts]
                said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
                seconds, losses[texts, way] = json.loads(said.splitlines()[-1])
                found.setdefault((texts, way), []).append(seconds)
    table = text(found, losses, options.rounds)
    Path(__file__).with_suffix(".md").write_text(table)
    print(table)


def epoch(way: str, texts: str) -> tuple[float, list[float]]:
    """Train an epoch; return its CPU seconds and the loss of each step."""
    torch.set_num_threads(1)
    transformers.set_seed(0)
    config = SentimentConfig()
    classifier = Classifier.pretrained(config)
    for each in classifier.model.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.0
    if way == "unpadded":
        unpadded(classifier.model)
    size = config.batch_size if texts == "sample" else 2 * config.batch_size
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=size,
            learning_rate=config.learning_rate,
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            train_sampling_strategy="group_by_length" if way == "grouped" else "random",
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
            seed=0,
        )
        data = classifier.encode(draw(config))["training"] if texts == "sample" else made_up()
        trainer = transformers.Trainer(
            classifier.model, arguments, train_dataset=data, data_collator=classifier.collate
        )
        since = time.process_time()
        trainer.train()
        used = time.process_time() - since
    return used, [each["loss"] for each in trainer.state.log_history if "loss" in each]


def made_up() -> list[dict[str, object]]:
    """Return texts of random words, as tokens, whose lengths spread as those of long reviews."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(MEDIAN), SPREAD, size=LONG), 20, MOST).astype(int)
    return [
        {"input_ids": rng.integers(1000, 20_000, size=size).tolist(), "attention_mask": [1] * size}
        | {"labels": int(number % 2)}
        for number, size in enumerate(lengths.tolist())
    ]


def text(
    found: dict[tuple[str, str], list[float]], losses: dict[tuple[str, str], list[float]], rounds: int
) -> str:
    """Return the table."""
    lines = [
        "# An epoch of sentiment, with and without padding\n",
        f"CPU seconds of `Trainer.train` with one thread, minilm, float32, medians (ranges) of {rounds}, the "
        f"ways in turn; wanted: {WANTED} times faster than the plain Trainer, losses within 1e-5. "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end. Made by "
        "`benchmarks/sentiment_epoch.py`.\n",
        "| texts | | CPU s | times faster | losses differ by at most |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for (texts, way), seconds in found.items():
        plain = found[texts, "plain"]
        faster = statistics.median(plain) / statistics.median(seconds)
        apart = np.abs(np.subtract(losses[texts, way], losses[texts, "plain"])).max()
        cells = (
            f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
            "" if way == "plain" else f"{faster:.2f}",
            f"{apart:.1e}" if way == "unpadded" else "" if way == "plain" else "other batches",
        )
        lines.append(f"| {TEXTS[texts]} | {WAYS[way]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
