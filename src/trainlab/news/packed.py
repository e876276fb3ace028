"""Texts without padding: a backbone's linear layers see real tokens alone, its attention one text at a time.

Transformers takes an attention of one's own. Ours is its SDPA, which additionally, where it is told the
lengths of the texts, takes those of equal length together and so needs no mask. On a CPU a padded copy for
attention alone is as fast and takes more words; nested tensors are slower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedConfig

    Runs = Sequence[tuple[int, int]]  # so many texts of so many tokens, one after the other

ATTENTION = "trainlab-packed"  # Transformers' name for it
BACKBONES = ("bert", "distilbert")  # whose attention asks Transformers, and whose positions start at 0


def attention_for(config: PreTrainedConfig) -> str | None:
    """Return the attention to build a backbone with, None for its own where it can't be packed."""
    return ATTENTION if config.model_type in BACKBONES else None


def layers(backbone: nn.Module) -> nn.ModuleList:
    """Return a backbone's transformer layers, from the lowest up."""
    lists = (each for each in backbone.modules() if isinstance(each, nn.ModuleList))
    return next(each for each in lists if len(each) == backbone.config.num_hidden_layers)  # type: ignore[union-attr]


def encode(
    backbone: nn.Module, ids: Tensor, mask: Tensor, *, below: int = 0, lower: Tensor | None = None
) -> list[Tensor]:
    """Return the token states of texts [N, L], sorted by length, as blocks [n, l, H] of equal length.

    With `lower` [T, H], the tokens' states behind the `below` lowest layers, only the others are computed.
    """
    runs = _runs(mask)
    states = _embedded(backbone, ids, mask) if lower is None else lower[None]
    above = layers(backbone)[0 if lower is None else below :]
    return _blocks(_through(above, states, runs)[0], runs)


def encode_lower(backbone: nn.Module, ids: Tensor, mask: Tensor, below: int) -> Tensor:
    """Return the states [T, H] of all tokens of texts [N, L], sorted by length, behind the lowest layers."""
    return _through(layers(backbone)[:below], _embedded(backbone, ids, mask), _runs(mask))[0]


def _through(some: nn.ModuleList, states: Tensor, runs: Runs) -> Tensor:
    """Return the states [1, T, H] behind some layers, one above the other."""
    for layer in some:
        states = layer(states, None, runs=runs)
    return states


def _runs(mask: Tensor) -> Runs:
    lengths, texts = torch.unique_consecutive(mask.sum(-1), return_counts=True)
    return list(zip(texts.tolist(), lengths.tolist(), strict=True))


def _embedded(backbone: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the tokens' first states [1, T, H]."""
    real = mask.bool()
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    return backbone.embeddings(input_ids=ids[real][None], position_ids=positions[real][None])  # type: ignore[operator]


def attend(  # noqa: PLR0913 - Transformers' own
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    runs: Runs | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return the attended values [1, T, heads, D] of packed texts, query, key and value [1, heads, T, D].

    Without `runs` the texts are padded ones, and attended to as Transformers does.
    """
    given = (query, key, value)
    if runs is None:
        return sdpa_attention_forward(module, *given, attention_mask, dropout, scaling, **others)
    queries, keys, values = (_blocks(each[0].transpose(0, 1), runs) for each in given)
    parts = [
        _attend(*block, dropout, scaling).flatten(0, 1) for block in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(parts)[None], None


def _attend(query: Tensor, key: Tensor, value: Tensor, dropout: float, scaling: float | None) -> Tensor:
    """Return the attended values [n, l, heads, D] of texts of equal length, of the same shape."""
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    attended = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scaling)
    return attended.transpose(1, 2)


def _blocks(packed: Tensor, runs: Runs) -> list[Tensor]:
    """Return [T, ...] as one [n, l, ...] a run."""
    parts = packed.split([texts * length for texts, length in runs])
    return [part.unflatten(0, run) for part, run in zip(parts, runs, strict=True)]


# here, not where a model is built: another process may get one that was built already
AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
