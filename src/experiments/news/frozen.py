"""The news experiment's data as `trainlab data freeze news` packs it: items, triplets, tokens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.news import data
from experiments.news.config import NewsConfig
from experiments.news.data import KEPT, TEXTS, News, locate
from trainlab import freezing
from trainlab.errors import UserError
from trainlab.files import digest
from trainlab.freezing import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from experiments.news.data import Examples
    from experiments.news.model import NewsModel
    from experiments.news.tokens import TokenTable
    from trainlab.files import Report

CONFIG = NewsConfig
KEYS = (
    *("data", "text", "class_size", "triplets_per_item", "min_class_items", "split", "validation", "seed"),
    *("backbone", "max_tokens"),
)
NEWS, TOKENIZER = "news.json", "tokenizer.json"
ROWS = ("training", "unseen", "validation")  # of Examples


def recipe(config: NewsConfig) -> Recipe:
    """Return what is frozen for these settings; the raw file is `news.tsv`, where it is here."""
    path = locate(config.data)
    raw = {path.name: digest(path)} if path.is_file() else {}

    def prepare(folder: Path, report: Report) -> None:
        _prepare(config, folder, report)

    return Recipe("news", config, KEYS, raw, prepare, version=2)  # 2: tokens without padding


def thaw(config: NewsConfig) -> Examples | None:
    """Return the examples out of the archive, or None where there is none.

    Raises UserError when it was frozen from other settings or raw data, or is damaged (see `freezing`).
    """
    wanted = recipe(config)
    folder = freezing.thawed(wanted)
    if folder is None:
        return None
    with freezing.understood(wanted):
        said = json.loads((folder / NEWS).read_text())
        table = pd.DataFrame(said["rows"], columns=list(KEPT))
        unreadable = {int(row): fault for row, fault in said["unreadable"].items()}
        news = News(locate(config.data), table, said["sha256"], unreadable)
        rows = {name: _load(folder, name) for name in ROWS}
        return data.Examples(news, **rows, frozen=folder)


def tokens_of(drawn: Examples, model: NewsModel, text: str) -> TokenTable:
    """Return the tokens of all news: frozen ones, where the examples were, or the tokenizer's own.

    Raises UserError when the frozen ones were made by another tokenizer.
    """
    from experiments.news import tokens

    if drawn.frozen is None:
        return tokens.tokens_of(drawn.news, text, model.tokenizer)
    if (drawn.frozen / TOKENIZER).read_text() != model.tokenizer.to_str():
        raise UserError(
            f"{drawn.frozen} was frozen with another tokenizer than the backbone has now. Freeze it again: "
            "trainlab data freeze news, with the same settings"
        )
    return tokens.load(drawn.frozen, model.tokenizer, TEXTS[text])


def _load(folder: Path, name: str) -> NDArray[Any]:
    """Map an array into memory; what is written to it stays in this process."""
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False))


def _prepare(config: NewsConfig, folder: Path, report: Report) -> None:
    from experiments.news.tokens import tokenize
    from trainlab import hub

    drawn = data.prepare(config)
    report("drawing triplets", 1, 1)
    hub.quiet()
    tokenizer = hub.load_tokenizer(hub.locate(config.backbone), config.max_tokens)
    tokens = tokenize(tokenizer, drawn.news.texts(config.text))
    report("making tokens", 1, 1)
    arrays = {name: getattr(drawn, name) for name in ROWS}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    tokens.save(folder)
    (folder / TOKENIZER).write_text(tokenizer.to_str())
    (folder / NEWS).write_text(_as_json(drawn.news))


def _as_json(news: News) -> str:
    rows = news.table[list(KEPT)].to_numpy().tolist()
    return json.dumps({"sha256": news.sha256, "unreadable": news.unreadable, "rows": rows})
