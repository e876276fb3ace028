"""A fine-tuning that draws random numbers everywhere: what a resume must reproduce bit for bit."""

from __future__ import annotations

import random
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, EvalPrediction, TrainerCallback

import trainlab
from trainlab.training.finetuning import FineTuner
from trainlab.training.finetuning_config import FineTuneConfig

STEPS = 10  # two epochs of five, evaluated after 3, 6, 9 and 10
WORDS, LENGTH = 50, 8


class Texts(Dataset):
    """Random words, whose first one tells the label; the others are masked at random."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.words = torch.randint(1, WORDS, (count, LENGTH), generator=generator)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, row: int) -> dict[str, Any]:
        words = self.words[row].clone()
        words[random.randrange(1, LENGTH)] = 0
        return {"input_ids": words, "labels": int(words[0] > WORDS // 2)}


def model() -> BertForSequenceClassification:
    """Return a network of 3,000 parameters; its first weights are always the same."""
    transformers.set_seed(7)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForSequenceClassification(BertConfig(vocab_size=WORDS, max_position_embeddings=LENGTH, **size))


def settings(**changes: Any) -> FineTuneConfig:
    usual = {"accelerator": "cpu", "num_workers": 0, "checkpoint_every": "1h", "keep": 99, "epochs": 2}
    steps = {"batch_size": 4, "logging_steps": 3, "warmup_steps": 2, "learning_rate": 0.01}
    return FineTuneConfig(**usual | steps | changes)


def measure(told: EvalPrediction) -> dict[str, float]:
    right = told.predictions.argmax(1) == told.label_ids
    return {"accuracy": float(right.mean()), "noise": random.random()}


def tuner(
    run: trainlab.Run, config: FineTuneConfig, *callbacks: TrainerCallback, **options: Any
) -> FineTuner:
    data = {"train_dataset": Texts(18, seed=1), "eval_dataset": Texts(10, seed=2)}
    usual = {"model": model(), "compute_metrics": measure, "callbacks": callbacks}
    return FineTuner(run, config, **usual | data | options)


def tune(run: trainlab.Run, config: FineTuneConfig, *callbacks: TrainerCallback, **options: Any) -> FineTuner:
    done = tuner(run, config, *callbacks, **options)
    done.train()
    return done
