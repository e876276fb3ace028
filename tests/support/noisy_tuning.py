"""A fine-tuning with dropout, by a plain Transformers Trainer: what a resume must reproduce."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, EvalPrediction, TrainerCallback

import trainlab

STEPS = 10  # two epochs of five, evaluated after 3, 6, 9 and 10
WORDS, LENGTH = 50, 8


class Texts(Dataset):
    """Random words, whose first one tells the label."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.words = torch.randint(1, WORDS, (count, LENGTH), generator=generator)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"input_ids": self.words[row], "labels": int(self.words[row][0] > WORDS // 2)}


def model() -> BertForSequenceClassification:
    """Return a network of 3,000 parameters; its first weights are always the same."""
    transformers.set_seed(7)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForSequenceClassification(BertConfig(vocab_size=WORDS, max_position_embeddings=LENGTH, **size))


def arguments(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return what a TrainingArguments is told; nothing of ours but the folder."""
    usual = {"output_dir": str(folder), "use_cpu": True, "disable_tqdm": True, "num_train_epochs": 2}
    steps = {"logging_steps": 3, "eval_strategy": "steps", "save_strategy": "steps", "save_steps": 3}
    sizes = {"per_device_train_batch_size": 4, "learning_rate": 0.01, "warmup_steps": 2}
    return usual | steps | sizes | changes


def measure(told: EvalPrediction) -> dict[str, float]:
    right = told.predictions.argmax(1) == told.label_ids
    return {"accuracy": float(right.mean()), "noise": random.random()}


def tuner(
    run: trainlab.Run,
    *callbacks: TrainerCallback,
    kind: type[transformers.Trainer] = transformers.Trainer,
    config: Any = None,
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> transformers.Trainer:
    """Return a Trainer that records into the run; `changes` are those of its TrainingArguments."""
    usual: dict[str, Any] = {
        "model": model(),
        "args": transformers.TrainingArguments(**arguments(run.checkpoints, **changes)),
        "train_dataset": Texts(18, seed=1),
        "eval_dataset": Texts(10, seed=2),
        "compute_metrics": measure,
        "callbacks": [*callbacks, trainlab.RunCallback(run, config)],
    }
    return kind(**usual | (options or {}))


def tune(run: trainlab.Run, *callbacks: TrainerCallback, **changes: Any) -> transformers.Trainer:
    """Train, from the run's checkpoint if it goes on from one."""
    done = tuner(run, *callbacks, **changes)
    done.train(resume_from_checkpoint=run.checkpoint)
    return done
