"""What a trained network makes of any texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from experiments.sentiment.data import LONGEST
from experiments.sentiment.metrics import THRESHOLD
from experiments.sentiment.model import Classifier, load
from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def predict(run: str | Path, texts: str | Sequence[str]) -> pd.DataFrame:
    """Return each text with its label (1 positive) and the probability that it is positive.

    `run` is whatever `trainlab.find` understands; its best checkpoint answers, and needs no hub. Of a
    text the first `max_tokens` of the run are read. Raises UserError for an unknown run, one of another
    experiment or without a checkpoint yet, and for no text or an empty one.
    """
    return answer(load(run), _listed(texts))


def answer(classifier: Classifier, texts: str | Sequence[str]) -> pd.DataFrame:
    """Return what a network makes of texts (see `predict`)."""
    listed = _listed(texts)
    found = classifier.probabilities([text[:LONGEST] for text in listed])
    return pd.DataFrame({"text": listed, "label": (found >= THRESHOLD).astype(int), "positive": found})


def _listed(texts: str | Sequence[str]) -> list[str]:
    listed = [texts] if isinstance(texts, str) else list(texts)
    if not listed or not all(isinstance(text, str) and text.strip() for text in listed):
        raise UserError('No text to judge, or an empty one. Expected for instance: "A warm, funny film."')
    return listed
