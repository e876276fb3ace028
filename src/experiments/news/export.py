"""How a run of news is exported, which `trainlab export-model` finds in this folder."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from experiments.news.config import NewsConfig
from experiments.news.data import TEXTS, News, read
from experiments.news.model import NewsModel, pool
from experiments.news.recommend import embed
from trainlab import datasets, hub
from trainlab.cleaning import text_key
from trainlab.errors import UserError
from trainlab.run import checkpoint, record
from trainlab.run.restoring import best_of, build
from trainlab.serving import hubfolder
from trainlab.serving.bundle import ITEMS
from trainlab.serving.export import Recipe
from trainlab.serving.gate import same_tens
from trainlab.serving.networks import Network
from trainlab.serving.texts import AT_ONCE, INPUTS, NETWORK, TOKENIZER, Texts
from trainlab.training.workers import set_threads

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from trainlab.serving.bundle import Bundle
    from trainlab.serving.gate import Gate

LISTED = ("id", "title", "category", "subcategory", "url")  # of each item, for whoever shows it
HEAD = "head.safetensors"  # in a folder for the Hub: linear layers with GELU between them, `0`, `2` ...
USAGE = """
import torch
from transformers import AutoModel, AutoTokenizer

folder = "."
tokenizer, backbone = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
tokens = tokenizer(["Ten easy pasta dinners"], padding=True, truncation=True, return_tensors="pt")
states, mask = backbone(**tokens).last_hidden_state, tokens["attention_mask"][..., None]
vectors = (states * mask).sum(1) / mask.sum(1)  # pooling=mean; with text=title+abstract both side by side
"""
UNIT_USAGE = """vectors = torch.nn.functional.normalize(vectors, dim=-1)
"""
HEAD_USAGE = """from safetensors.torch import load_file

head = load_file(f"{folder}/head.safetensors")
places = sorted({int(name.split(".")[0]) for name in head})
for place in places:
    vectors = torch.nn.functional.linear(vectors, head[f"{place}.weight"], head[f"{place}.bias"])
    vectors = vectors if place == places[-1] else torch.nn.functional.gelu(vectors)
"""
NO_INT8 = (
    "with 8 bits 83 of 100 items had other ten nearest, and a text's vector changed with what else was in "
    "its batch (measured on the sample)"
)


class TextVectors(nn.Module):
    """The network on padded texts, in the plain way that ONNX has words for."""

    def __init__(self, model: NewsModel) -> None:
        super().__init__()
        self.backbone, self.head, self.pooling = model.backbone, model.head, model.hparams["pooling"]

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the vectors [N, D] of N items of T texts, ids and mask [N, T, L]."""
        there = mask.flatten(0, 1)
        states = self.backbone(input_ids=ids.flatten(0, 1), attention_mask=there).last_hidden_state
        pooled = pool(states, there, self.pooling)
        return self.head(pooled.reshape(ids.shape[0], -1))  # by len() the number would become a constant


def recipe(folder: Path) -> Recipe:
    """Return what a run becomes: its network, and all news of its data, each title once, as vectors."""
    set_threads()
    path, recorded = best_of(folder, "news"), record.read(folder)
    config = NewsConfig.parse(recorded.config)
    news = unchanged(read(config.data), recorded.data or {})
    model = build(path, checkpoint.load(path), lambda known: NewsModel(**known | {"fast": False}))
    vectors = embed(model, news).astype(np.float32)
    text = model.hparams["text"]
    ids = torch.ones(2, TEXTS[text], 7, dtype=torch.long)
    items = news.texts(text)

    def measure(bundle: Bundle, gate: Gate) -> None:
        texts = Texts(bundle)
        gate.note("items", len(items))
        alone = texts.run_all(items, at_once=1)
        for name, found in (("alone", alone), ("in_batches", texts.run_all(items))):
            gate.close(name, vectors, found)
            gate.same_nearest(name, vectors, found)
        kept = different(news)
        gate.note("same_ten_with_items_in_16_bits", same_tens(vectors[kept], bundle.array(ITEMS)))

    def hub_files(folder: Path, gate: Gate) -> str:
        hubfolder.write(folder, model.backbone, model.tokenizer)
        layers = model.head.state_dict()
        if layers:
            save_file(layers, folder / HEAD)
        gate.note("items", len(items))
        gate.close("loaded_again", vectors, loaded_again(folder, model, items))
        return USAGE + (HEAD_USAGE if layers else UNIT_USAGE)

    return Recipe(
        "nearest",
        {
            NETWORK: Network(
                TextVectors(model),
                dict(zip(INPUTS, (ids, torch.ones_like(ids)), strict=True)),
                {name: {0: "items", 2: "tokens"} for name in INPUTS},
                ["vector"],
            )
        },
        {"texts": TEXTS[text]},
        measure,
        files={TOKENIZER: model.tokenizer.to_str().encode(), **item_files(news, vectors)},
        licences={"backbone": hub.licence(config.backbone), "data": datasets.licence(config.data)},
        no_int8=NO_INT8,
        hub=hub_files,
    )


@torch.inference_mode()
def loaded_again(folder: Path, model: NewsModel, items: list[list[str]]) -> NDArray[np.float32]:
    """Return the items' vectors [N, D] by what Transformers loads from a folder, and the head beside."""
    tokenizer, backbone = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    head = copy.deepcopy(model.head)
    if head.state_dict():
        head.load_state_dict(load_file(folder / HEAD))
    found = []
    for start in range(0, len(items), AT_ONCE):
        part = items[start : start + AT_ONCE]
        texts = [text for item in part for text in item]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        pooled = pool(
            backbone(**tokens).last_hidden_state, tokens["attention_mask"], model.hparams["pooling"]
        )
        found.append(head(pooled.reshape(len(part), -1)).numpy())
    return np.concatenate(found)


def unchanged(news: News, before: dict[str, Any]) -> News:
    """Return the news; raise UserError where they are others than the run's."""
    if before.get("sha256") not in (None, news.sha256):
        raise UserError(
            f"{news.path} has changed since the run: {before.get('rows')} rows then, {len(news.table)} now. "
            "An export has the news that its card names. Put the file back, or train again."
        )
    return news


def different(news: News) -> NDArray[np.int64]:
    """Return the rows of the news, each title once, as `recommend` has them."""
    return np.flatnonzero(~news.table["title"].map(text_key).duplicated())


def item_files(news: News, vectors: NDArray[np.float32]) -> dict[str, bytes]:
    """Return the items' vectors in 16 bits, and in their order what there is to show of them."""
    import io

    rows = different(news)
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(vectors[rows].astype(np.float16)), allow_pickle=False)
    table: pd.DataFrame = news.table.iloc[rows][list(LISTED)]
    links = table["url"].str.match(r"https?://\S+$")  # a page makes links of them
    table = table.assign(url=table["url"].where(links, ""))
    listed = json.dumps({name: table[name].tolist() for name in LISTED}, ensure_ascii=False)
    return {ITEMS: file.getvalue(), "items.json": listed.encode()}
