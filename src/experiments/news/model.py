"""The siamese network: a transformer, its texts' vectors, and what places news by their distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple, Self

import lightning
import torch
from psutil import virtual_memory
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, AutoModel
from transformers.masking_utils import sdpa_mask

from experiments.news.config import NewsConfig
from experiments.news.data import TEXTS
from experiments.news.tokens import Tokens, TokenTable, tokenize
from trainlab import hub
from trainlab.system import memory_limit
from trainlab.training import unpadded
from trainlab.training.dropout import quick_dropout

Runs = Sequence[tuple[int, int]]  # so many texts of so many tokens, one after the other

TITLE_WIDTHS = (512, 256)  # V. Visheratin, part 1: linear 512, GELU, linear 256
PAIR_WIDTHS = (1024, 512, 256)  # title and abstract side by side
HEAD_GAIN = 2.0  # on the sample, 1 and 3 give less precision on unseen items; so does torch's default
PADDED_AT_ONCE = 64  # texts in one pass, of like length, so that little is padding
EMBEDDED_AT_ONCE = 4096  # items, sorted by length among themselves: no more of them need be in memory
CACHED = 0.25  # of the memory, at most, for what the frozen layers make of the tokens
PACKED_AT_ONCE = 256  # without padding: as fast as fewer on a CPU
PADDED_ON = ("cuda",)  # where one call for all texts is faster than one for each of their lengths
GPU_TOKENS_AT_ONCE = 1 << 16  # with the padding of attention: what a step of a GPU costs is calls, not tokens
ATTENTION = "trainlab-packed"  # Transformers' name for it
PACKABLE = ("bert", "distilbert")  # whose attention asks Transformers, and whose positions start at 0


class Padding(NamedTuple):
    """Where the real tokens [T] stand in padded texts, one after the other, and the texts' mask [N, L].

    So attention is one call for all texts, padded.
    """

    indices: Tensor
    mask: Tensor

    def padded(self, packed: Tensor) -> Tensor:
        """Return the real tokens' values [T, ...] as [N, L, ...], 0 in between."""
        blank = packed.new_zeros(self.mask.numel(), *packed.shape[1:])
        return blank.index_copy(0, self.indices, packed).unflatten(0, self.mask.shape)


class Batch(NamedTuple):
    """Triplets of a batch: its different items' tokens once, and where each triplet's three are [B, 3]."""

    tokens: Tokens
    indices: Tensor


class Group(NamedTuple):
    """A batch of items of several categories: their tokens; as codes [N] categories and subcategories."""

    tokens: Tokens
    labels: Tensor
    finer: Tensor


class UnitLength(nn.Module):
    """Scales vectors [..., D] to length 1: Euclidean distance then orders them as the cosine does."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Return them in fp32: in 16 bits the distances of near ones would be mostly rounding."""
        return functional.normalize(vectors.float(), dim=-1)


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Return a vector a text [N, H] from token states [N, L, H]: the first, or the mean without padding."""
    if pooling == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def build_head(width: int, texts: int) -> nn.Sequential:
    """Return the head: H → 512 → 256 for one text, 2H → 1024 → 512 → 256 for two; GELU between layers."""
    widths = [width * texts, *(TITLE_WIDTHS if texts == 1 else PAIR_WIDTHS)]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layer = nn.Linear(before, after)
        # at first distances keep their proportions, and with them what the backbone knows
        nn.init.orthogonal_(layer.weight, gain=HEAD_GAIN)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.GELU()]
    return nn.Sequential(*layers[:-1])


class NewsModel(lightning.LightningModule):
    """Embeds news; trained so that news of one category lie closer together than news of two.

    With `loss=contrastive` an item's vector is the backbone's, scaled to length 1; with `loss=triplet` it is
    what the article's head makes of it.

    Its checkpoint holds everything: the backbone's architecture, the tokenizer and the settings, so
    `restore(NewsModel, path)` needs no hub and no further argument.
    """

    def __init__(  # noqa: PLR0913
        self,
        backbone_config: dict[str, Any],
        tokenizer: str,
        *,
        pooling: str,  # noqa: ARG002 - save_hyperparameters() keeps it, and others
        text: str,
        margin: float,  # noqa: ARG002
        learning_rate: float,  # noqa: ARG002
        head_learning_rate: float,  # noqa: ARG002
        trained: bool = True,
        loss: str = "triplet",  # of checkpoints from before there was another
        temperature: float = 0.2,  # noqa: ARG002
        subcategories: float = 0.0,  # noqa: ARG002
        mining: str = "sampled",  # noqa: ARG002
        average: str = "all",  # noqa: ARG002
        freeze: int = 0,  # noqa: ARG002
        fast: bool = True,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        hub.quiet()
        config = hub.architecture(backbone_config)
        self.attention = ATTENTION if fast and config.model_type in PACKABLE else None
        self.backbone = AutoModel.from_config(
            config, attn_implementation=self.attention, trust_remote_code=False
        )
        if fast:
            quick_dropout(self.backbone)
        for each in self.frozen():
            each.requires_grad_(False).eval()
        texts = TEXTS[text]  # of a checkpoint that names another one: now, and not when it reads
        if loss == "contrastive":
            self.head: nn.Module = UnitLength()
        elif loss == "triplet":
            self.head = build_head(config.hidden_size, texts) if trained else nn.Identity()
        else:
            raise ValueError(f"loss={loss!r}: expected contrastive or triplet")
        self.tokenizer = hub.tokenizer(tokenizer)

    @classmethod
    def pretrained(cls, config: NewsConfig) -> Self:
        """Return the network with the backbone's published weights and, if it is to be trained, a head.

        Raises UserError when the backbone can't be found (see `trainlab.hub.locate`).
        """
        hub.quiet()
        source = hub.locate(config.backbone)
        backbone = hub.load(AutoModel, source)
        names = (
            *("pooling", "text", "margin", "learning_rate", "head_learning_rate"),
            *("trained", "loss", "temperature", "subcategories", "mining", "average", "freeze", "fast"),
        )
        tokenizer = hub.load_tokenizer(source, config.max_tokens).to_str()
        model = cls(backbone.config.to_dict(), tokenizer, **{name: getattr(config, name) for name in names})
        model.backbone.load_state_dict(backbone.state_dict())
        return model

    def frozen(self) -> list[nn.Module]:
        """Return what is not to be trained: the embeddings and the lowest layers, none with `freeze=0`."""
        count = self.hparams["freeze"]
        return [self.backbone.embeddings, *layers(self.backbone)[:count]] if count else []

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what is frozen stays without dropout."""
        super().train(mode)
        for each in self.frozen():
            each.eval()
        return self

    def tokenize(self, items: Sequence[Sequence[str]]) -> TokenTable:
        """Return the tokens of N items of T texts each."""
        return tokenize(self.tokenizer, items)

    def pooled(self, tokens: Tokens, pooling: str | None = None) -> Tensor:
        """Return the backbone's vectors [N, T·H] of N items, their texts side by side.

        Args:
            tokens: The items'.
            pooling: What makes one vector of a text's tokens, `mean` or `cls`; the settings' unless given.
        """
        ids, mask = tokens.ids.flatten(0, 1), tokens.mask.flatten(0, 1)
        order, indices = mask.sum(-1).argsort(stable=True), token_indices(mask)
        pooling, trained = pooling or self.hparams["pooling"], slice(self.hparams["freeze"], None)
        vectors = []
        at_once = PACKED_AT_ONCE if self.attention else PADDED_AT_ONCE
        if mask.device.type in PADDED_ON:
            at_once = max(1, GPU_TOKENS_AT_ONCE // mask.shape[1])
        for rows in order.split(at_once):
            real = mask[rows]
            if self.attention:
                hidden = None if tokens.hidden is None else tokens.hidden[indices[rows][real > 0]]
                which = slice(None) if hidden is None else trained
                for block, there in run_layers(self.backbone, ids[rows], real, which, hidden):
                    vectors.append(pool(block, there, pooling))
            else:
                real = real[:, : int(real.sum(-1).max())]
                states = self.backbone(input_ids=ids[rows, : real.shape[1]], attention_mask=real)
                vectors.append(pool(states.last_hidden_state, real, pooling))
        return torch.cat(vectors)[order.argsort()].view(len(tokens.ids), -1)

    def cache_frozen_layers(self, table: TokenTable) -> TokenTable:
        """Return the table with the states behind the frozen layers, computed once for all epochs.

        As it is without frozen layers, with padding, and where they would fill too much of the memory.
        """
        size = 4 * len(table.ids) * self.backbone.config.hidden_size  # bytes
        room = CACHED * min(memory_limit() or math.inf, virtual_memory().available)
        if not (self.hparams["freeze"] and self.attention) or size > room:
            return table
        parts = [self.run_frozen_layers(part.to(self.device)) for part in table.batches(EMBEDDED_AT_ONCE)]
        return replace(table, hidden=torch.cat(parts))

    @torch.no_grad()
    def run_frozen_layers(self, tokens: Tokens) -> Tensor:
        """Return the states [S, H] of all real tokens, on the CPU, behind the layers that are frozen."""
        ids, mask = tokens.ids.flatten(0, 1), tokens.mask.flatten(0, 1)
        order, indices = mask.sum(-1).argsort(stable=True), token_indices(mask)
        frozen = slice(self.hparams["freeze"])
        states = mask.new_empty(int(mask.sum()), self.backbone.config.hidden_size, dtype=torch.float32)
        for rows in order.split(PACKED_AT_ONCE):
            blocks = run_layers(self.backbone, ids[rows], mask[rows], frozen)
            packed = torch.cat([block[there > 0] for block, there in blocks])
            states[indices[rows][mask[rows] > 0]] = packed.float()
        return states.cpu()

    def forward(self, tokens: Tokens) -> Tensor:
        """Return the embeddings [N, D] of N items."""
        return self.head(self.pooled(tokens))

    def embed(self, tokens: Tokens | TokenTable) -> Tensor:
        """Return embeddings [N, D] on the CPU; no dropout."""
        return self._embed(tokens, self.forward)

    def embed_raw(self, tokens: Tokens | TokenTable, pooling: str | None = None) -> Tensor:
        """Return the backbone's own vectors [N, T·H] on the CPU (see `pooled`); no dropout."""
        return self._embed(tokens, lambda part: self.pooled(part, pooling))

    @torch.inference_mode()
    def _embed(self, tokens: Tokens | TokenTable, network: Callable[[Tokens], Tensor]) -> Tensor:
        training = self.training
        parts = tokens.batches(EMBEDDED_AT_ONCE) if isinstance(tokens, TokenTable) else [tokens]
        self.eval()
        vectors = [network(part.to(self.device)).cpu() for part in parts]
        self.train(training)
        return torch.cat(vectors)

    def training_step(self, batch: Batch | Group) -> Tensor:
        """Return the batch's loss: the contrastive one, or the mean of max(0, ‖a-p‖ - ‖a-n‖ + margin)."""
        vectors, margin = self(batch.tokens), self.hparams["margin"]
        if isinstance(batch, Batch):
            anchor, positive, negative = vectors[batch.indices].unbind(1)
            loss = functional.triplet_margin_loss(anchor, positive, negative, margin=margin)
        elif self.hparams["loss"] == "contrastive":
            loss, share = (
                contrastive(vectors, batch.labels, self.hparams["temperature"]),
                self.hparams["subcategories"],
            )
            if share:
                finer = contrastive(vectors, batch.finer, self.hparams["temperature"])
                loss = (1 - share) * loss + share * finer
        elif self.hparams["mining"] == "hard":
            loss = batch_hard(vectors, batch.labels, margin)
        else:
            loss = batch_all(vectors, batch.labels, margin, self.hparams["average"])
        size = len(batch.indices if isinstance(batch, Batch) else batch.labels)
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        self.log("train/loss_epoch", loss, on_step=False, on_epoch=True, batch_size=size)
        return loss

    def validation_step(self, tokens: Tokens) -> Tensor:
        """Return the embeddings [U, D] of the unseen items; `Evaluation` measures them."""
        return self(tokens)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW, its step one pass over the weights if `fast`; a fresh head learns faster."""
        trained = [each for each in self.backbone.parameters() if each.requires_grad]
        groups: list[dict[str, Any]] = [{"params": trained, "lr": self.hparams["learning_rate"]}]
        if head := list(self.head.parameters()):
            groups.append({"params": head, "lr": self.hparams["head_learning_rate"]})
        return torch.optim.AdamW(groups, fused=self.hparams["fast"] or None)  # False would be the slowest


def token_indices(mask: Tensor) -> Tensor:
    """Return where each token [N, L] stands among the real ones, all texts one after the other."""
    return mask.flatten().cumsum(0).view_as(mask) - 1


def layers(backbone: nn.Module) -> nn.ModuleList:
    """Return a backbone's transformer layers, from the lowest up."""
    lists = (each for each in backbone.modules() if isinstance(each, nn.ModuleList))
    return next(each for each in lists if len(each) == backbone.config.num_hidden_layers)  # type: ignore[union-attr]


def run_layers(
    backbone: nn.Module, ids: Tensor, mask: Tensor, which: slice = slice(None), hidden: Tensor | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Run a backbone's layers over texts without their padding; on a GPU attention alone has it.

    Args:
        backbone: One of the kinds in `PACKABLE`, built with our attention.
        ids: The texts [N, L], sorted by length.
        mask: Of the same shape, 1 for each real token.
        which: The layers that are run, all unless given.
        hidden: The real tokens' states [S, H] before these layers, the embeddings' unless given.

    Returns:
        The states behind the layers as blocks [n, l, H] with their masks [n, l]: on a GPU one of all texts,
        elsewhere one of those of each length.
    """
    runs: Runs | Padding
    if mask.device.type in PADDED_ON:
        mask = mask[:, : int(mask.sum(-1).max())]
        ids = ids[:, : mask.shape[1]]
        runs = Padding(mask.flatten().nonzero()[:, 0], mask)
    else:
        lengths, texts = torch.unique_consecutive(mask.sum(-1), return_counts=True)
        runs = list(zip(texts.tolist(), lengths.tolist(), strict=True))
    if hidden is None:
        real = mask.bool()
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        states = backbone.embeddings(input_ids=ids[real][None], position_ids=positions[real][None])  # type: ignore[operator]
    else:
        states = hidden[None]
    for layer in layers(backbone)[which]:
        states = layer(states, None, runs=runs)
    if isinstance(runs, Padding):
        return [(runs.padded(states[0]), mask)]
    return [(block, mask.new_ones(block.shape[:2])) for block in _blocks(states[0], runs)]


def attend(  # noqa: PLR0913 - Transformers' own
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    runs: Runs | Padding | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return the attended values [1, T, heads, D] of packed texts, query, key and value [1, heads, T, D].

    Without `runs` the texts are padded ones, and attended to as Transformers does.
    """
    given = (query, key, value)
    if not isinstance(runs, Padding):
        return unpadded.attend(
            module, *given, attention_mask, runs=runs, dropout=dropout, scaling=scaling, **others
        )
    packed = torch.stack([each[0].transpose(0, 1) for each in given], 1)  # [T, 3, heads, D]
    query, key, value = runs.padded(packed).transpose(1, 3).unbind(2)  # [N, heads, L, D]
    seen = runs.mask.bool()[:, None, None]
    attended = functional.scaled_dot_product_attention(
        query, key, value, seen, dropout_p=dropout, scale=scaling
    )
    return attended.transpose(1, 2).flatten(0, 1)[runs.indices][None], None


def _blocks(packed: Tensor, runs: Runs) -> list[Tensor]:
    """Return [T, ...] as one [n, l, ...] a run."""
    parts = packed.split([texts * length for texts, length in runs])
    return [part.unflatten(0, run) for part, run in zip(parts, runs, strict=True)]


# here, not where a model is built: another process may get one that was built already
AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def contrastive(vectors: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss of vectors [N, D] of length 1; `labels` [N].

    P. Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, L_out: the mean over anchors a of
    the mean over their positives p of -log(exp(a·p / temperature) / Σ exp(a·o / temperature)), o being all
    others. Items without a positive are no anchors; 0 without any.
    """
    products = (vectors @ vectors.T).float() / temperature
    alone = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = (labels[:, None] == labels[None, :]) & ~alone
    shares = torch.log_softmax(products.masked_fill(alone, -torch.inf), 1)
    count = positive.sum(1)
    means = torch.where(positive, shares, 0).sum(1) / count.clamp(min=1)
    return -means.sum() / (count > 0).sum().clamp(min=1)


def batch_all(vectors: Tensor, labels: Tensor, margin: float, average: str = "all") -> Tensor:
    """Return the mean of max(0, ‖a-p‖ - ‖a-n‖ + margin) over all triplets of the batch.

    `vectors` [N, D], `labels` [N]. With `average="violating"` the mean is over those triplets alone that do
    not yet keep the margin. 0 where there is no triplet.

    For an anchor a positive at distance d meets the k negatives nearer than d + margin; its losses come to
    k·(d + margin) less the sum of these k distances. With the negatives sorted, k is a search and the sum
    a running one, so no loss is computed twice and none is stored.
    """
    distances, positive, negative = _pairs(vectors, labels)
    count = negative.sum(1)  # [N], of an anchor's negatives
    ranked = distances.masked_fill(~negative, torch.inf).sort(1).values
    there = torch.arange(len(labels), device=labels.device) < count[:, None]
    sums = torch.where(there, ranked, 0).cumsum(1)
    sums = torch.cat([sums.new_zeros(len(labels), 1), sums], 1)  # of the k nearest, k from 0 to N
    limits = distances + margin
    nearer = torch.searchsorted(ranked.detach(), limits.detach())
    losses = torch.where(positive, nearer * limits - sums.gather(1, nearer), 0)
    violating, triplets = (nearer * positive).sum(), (positive.sum(1) * count).sum()
    return losses.sum() / (violating if average == "violating" else triplets).clamp(min=1)


def batch_hard(vectors: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Return the mean over anchors of max(0, farthest positive - nearest negative + margin).

    `vectors` [N, D], `labels` [N]. Items without a positive or a negative are no anchors; 0 without any.
    """
    distances, positive, negative = _pairs(vectors, labels)
    anchors = positive.any(1) & negative.any(1)
    farthest = distances.masked_fill(~positive, -torch.inf).amax(1)[anchors]
    nearest = distances.masked_fill(~negative, torch.inf).amin(1)[anchors]
    return (farthest - nearest + margin).clamp(min=0).sum() / anchors.sum().clamp(min=1)


def _pairs(vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances in fp32, who is whose positive and who whose negative, all [N, N].

    Differences are taken one by one: the shorter way over products loses the digits of small distances.
    """
    distances = torch.cdist(vectors.float(), vectors.float(), compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels[None, :]
    return distances, same.clone().fill_diagonal_(False), ~same
