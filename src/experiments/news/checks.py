"""The news experiment as a subject of the checks before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from experiments.news.config import NewsConfig
from experiments.news.data import TEXTS, Examples, draw
from experiments.news.model import Batch, NewsModel, pool
from experiments.news.tokens import Tokens, tokens_of
from experiments.news.train import NewsData, tfidf
from trainlab.checks.subject import Items, Subject
from trainlab.cleaning import text_key
from trainlab.errors import UserError
from trainlab.hub import load_tokenizer, locate

# Enough to learn from, and little enough for all checks together to take a minute or so on two cores.
# The loss is the one whose value at first is known, and all layers learn.
SMALL = {
    **{"class_size": 8, "triplets_per_item": 2, "batch_size": 12, "max_tokens": 24},
    **{"loss": "triplet", "learning_rate": 1e-4, "freeze": 0},
}
SMALLER_WIDTH = 2  # of the smaller network's embeddings


def subject(settings: Mapping[str, Any]) -> NewsSubject:
    """Return the subject under these settings; those not given are `SMALL`, or the experiment's defaults.

    Raises UserError for settings, data or a backbone that can't be used.
    """
    config = NewsConfig.parse(SMALL | NewsConfig.named(settings))
    if not config.trained:
        raise UserError("trained=false: nothing is trained, so there is nothing to check. Leave it out.")
    if config.loss != "triplet":
        raise UserError(f"loss={config.loss}: the checks look at triplets one by one. Leave it out.")
    if config.mining != "sampled":
        raise UserError(f"mining={config.mining}: the checks look at triplets one by one. Leave it out.")
    config.check_machine()
    found = NewsSubject(config)
    assert found.examples, "read here: data that can't be used is the user's mistake, and no finding"
    return found


class NewsSubject(Subject):
    """Triplets of news, and the network that learns to place them.

    An example is a triplet, its answer whether the anchor lies nearer to the positive than to the negative,
    and that is always right. Outputs are the embeddings of a batch's items.
    """

    steps = 16
    overfit_steps = 60
    metric = "precision at 10"

    def __init__(self, config: NewsConfig) -> None:
        super().__init__("news", self._model, self._data, margin=config.margin)
        self.config = config

    @cached_property
    def examples(self) -> Examples:
        """The news, split, and their triplets."""
        return draw(self.config)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that belongs to the backbone, whatever the network's own may be."""
        return load_tokenizer(locate(self.config.backbone), self.config.max_tokens)

    def inputs(self, batch: Batch) -> Tokens:
        """Return the items' tokens."""
        return batch.tokens

    def targets(self, batch: Batch) -> Tensor:
        """Return that the positive is nearer [B]."""
        return torch.ones(len(batch.indices), dtype=torch.long)

    def size(self, batch: Batch | Tokens) -> int:
        """Return the number of triplets in training, of items in validation."""
        return len(batch.indices if isinstance(batch, Batch) else batch.ids)

    def zeroed(self, batch: Batch) -> Batch:
        """Return the same triplets of items that are all one and the same token."""
        ids, mask, _ = batch.tokens
        first = torch.zeros_like(mask)
        first[..., 0] = 1
        return Batch(Tokens(torch.zeros_like(ids), first), batch.indices)

    def neutral(self, batch: Batch) -> Batch:
        """Return each triplet twice, the second time with positive and negative exchanged.

        With d = ‖a-p‖ - ‖a-n‖ the two losses are max(0, margin + d) and max(0, margin - d). Their mean is the
        margin, whatever the network knows already, as long as no |d| exceeds it; beyond, it is half of
        |d| - margin more. So a pretrained network too starts at the margin, unless its distances are far too
        large for it.
        """
        return Batch(batch.tokens, torch.cat([batch.indices, batch.indices[:, [0, 2, 1]]]))

    def initial_loss(self) -> tuple[float, str]:
        """Return the margin."""
        return self.config.margin, "the margin, each triplet read both ways"

    def outputs(self, module: NewsModel, batch: Batch) -> Tensor:  # type: ignore[override]
        """Return the embeddings [N, D] of the batch's items."""
        return module(batch.tokens)

    def followed(self, module: NewsModel, batch: Batch) -> Tensor:  # type: ignore[override]
        """Return the embeddings made with padding.

        Packed embeddings hold tokens, not items; that packed items leak nothing into each other is what the
        comparison with every text alone finds.
        """
        attention, module.attention = module.attention, None
        try:
            return self.outputs(module, batch)
        finally:
            module.attention = attention

    def predictions(self, module: NewsModel, batch: Batch) -> Tensor:  # type: ignore[override]
        """Return whether the positive is nearer [B]."""
        near, far = self._distances(module, batch)
        return (near < far).long()

    def slow(self, module: NewsModel, batch: Batch) -> Tensor:  # type: ignore[override]
        """Return the embeddings made triplet by triplet, three passes each, every text alone and unpadded."""
        embeddings = torch.empty_like(self.outputs(module, batch))
        for item in batch.indices.flatten().tolist():
            vectors = []
            for ids, mask in zip(batch.tokens.ids[item], batch.tokens.mask[item], strict=True):
                alone, real = ids[mask > 0][None], mask[mask > 0][None]
                states = module.backbone(input_ids=alone, attention_mask=real).last_hidden_state
                vectors.append(pool(states, real, self.config.pooling)[0])
            embeddings[item] = module.head(torch.cat(vectors))
        return embeddings

    def smaller(self) -> NewsModel:
        """Return a network with a single layer on top that leaves two numbers of each item."""
        model = self._model()
        width = model.backbone.config.hidden_size * TEXTS[self.config.text]
        model.head = nn.Sequential(nn.Linear(width, SMALLER_WIDTH))
        return model

    def decode(self, batch: Batch) -> list[str]:
        """Return the texts of the batch's items, one after the other."""
        return self.tokenizer.decode_batch(batch.tokens.ids.flatten(0, 1).tolist())

    def texts(self, data: NewsData, rows: Sequence[int]) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        """Return the texts of the items of these triplets, in the order of their rows."""
        texts = self.examples.news.texts(self.config.text)
        items = np.unique(self.examples.training[list(rows)])
        return [text for item in items for text in texts[item]]

    def describe(self, module: NewsModel, batch: Batch) -> list[str]:  # type: ignore[override]
        """Return a line a triplet: its anchor, and how far it is to the other two."""
        items, texts = self.decode(batch), batch.tokens.ids.shape[1]
        distances = torch.stack(self._distances(module, batch), 1).tolist()
        return [
            f"{'right' if near < far else 'wrong'}: {near:.2f} to positive, {far:.2f} to negative: "
            f"{items[anchor * texts]}"
            for anchor, (near, far) in zip(batch.indices[:, 0].tolist(), distances, strict=True)
        ]

    def items(self, data: NewsData, split: str) -> Items | None:  # type: ignore[override]  # noqa: ARG002
        """Return the items of training triplets, or those held out; equal titles are the same item."""
        held = {"validation": self.examples.validation, "test": self.examples.test}.get(split)
        if split != "train" and held is None:
            return None
        rows = np.unique(self.examples.training) if held is None else held.items
        table = self.examples.news.table.iloc[rows]
        return Items(
            table["title"].map(text_key).tolist(),
            table["category"].tolist(),
            [len(title.split()) for title in table["title"]],
        )

    def validation_size(self, data: NewsData) -> int:  # type: ignore[override]  # noqa: ARG002
        """Return the number of unseen items."""
        return len(self.examples.unseen)

    def measure(self, module: NewsModel, data: NewsData) -> float:  # type: ignore[override]
        """Return the precision at 10 among unseen items."""
        return self._precision(module.embed(data.unseen()).double().numpy())

    def baselines(self, data: NewsData) -> dict[str, float]:  # type: ignore[override]  # noqa: ARG002
        """Return the precision at 10 of TF-IDF and of vectors drawn at random."""
        words = tfidf(self.examples.news, self.config.text)
        chance = np.random.default_rng(self.config.seed).normal(size=(len(self.examples.unseen), 16))
        return {
            "random order": self._precision(chance),
            "TF-IDF": self._precision(words[self.examples.unseen]),
        }

    def _precision(self, vectors: Any) -> float:
        return self.examples.measure(vectors, self.config)["precision_at_10"]

    def _distances(self, module: NewsModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return how far the anchors are from their positives and from their negatives, both [B]."""
        anchor, positive, negative = self.outputs(module, batch)[batch.indices].unbind(1)
        return (anchor - positive).norm(dim=-1), (anchor - negative).norm(dim=-1)

    def _model(self) -> NewsModel:
        return NewsModel.pretrained(self.config)

    def _data(self) -> NewsData:
        tokens = tokens_of(self.examples.news, self.config.text, self._model().tokenizer)
        return NewsData(self.examples, tokens, self.config)
