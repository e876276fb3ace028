"""Transformers that leave padding out of what they compute: the same losses for less work on a CPU.

A batch is as long as its longest text, and all layers compute its padding as they do its tokens. Here the
layers see the real tokens alone, one text after the other; attention takes the texts of each length together.
Order and content of batches stay as they are, and so do weights, checkpoints and the model's class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trainlab.errors import UserError
from trainlab.training.dropout import quick_dropout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn
    from transformers import PreTrainedModel

ATTENTION = "trainlab-unpadded"  # Transformers' name for it
# Where a model's layers are; its attention asks Transformers, and none of its texts begins with padding
STACKS = {"bert": "encoder", "distilbert": "transformer"}
RECORDED = ("output_hidden_states", "output_attentions")  # whoever asks for these wants them padded


class Packing(NamedTuple):
    """Where a batch's real tokens are, sorted by their text's length, and so many texts of so many tokens."""

    indices: Tensor
    runs: list[tuple[int, int]]


def unpadded(model: PreTrainedModel) -> PreTrainedModel:
    """Let a model leave padding out, from now on and in place; on a GPU it goes on as before.

    Losses and gradients are the same but for rounding, and for the numbers that dropout draws, faster too
    (see `dropout`).

    Args:
        model: A BERT or DistilBERT, with whatever on top.

    Returns:
        The same model.

    Raises:
        UserError: For any other model.
    """
    kind, base = model.config.model_type, model.base_model
    if kind not in STACKS:
        raise UserError(f"unpadded knows {' and '.join(STACKS)}, not {kind}. Train it as it is.")
    model.set_attn_implementation(ATTENTION)
    quick_dropout(model)
    stack: nn.Module = getattr(base, STACKS[kind])
    masks: list[Tensor | None] = []
    packings: list[tuple[Packing, torch.Size] | None] = []

    def begin(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        mask = given.get("attention_mask", args[1] if len(args) > 1 else None)
        recorded = any(given.get(name) or getattr(model.config, name, False) for name in RECORDED)
        masks[:] = [None if recorded else mask]

    def pack(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        hidden = args[0] if args else given["hidden_states"]
        packing = packed(masks.pop()) if masks else None
        packings[:] = [packing and (packing, hidden.shape)]
        if packing is None:
            return None
        inputs = hidden.flatten(0, 1)[packing.indices][None]
        more = {"hidden_states": inputs, "attention_mask": None, "position_ids": None, "runs": packing.runs}
        return (), given | more

    def unpack(_: nn.Module, __: Any, output: Any) -> None:
        if found := packings.pop():
            packing, shape = found
            states = output.last_hidden_state[0]
            blank = states.new_zeros(shape[0] * shape[1], shape[2])
            output["last_hidden_state"] = blank.index_copy(0, packing.indices, states).view(shape)

    base.register_forward_pre_hook(begin, with_kwargs=True)
    stack.register_forward_pre_hook(pack, with_kwargs=True)
    stack.register_forward_hook(unpack)
    return model


def packed(mask: Tensor | None) -> Packing | None:
    """Return where the real tokens of a mask [N, L] are; None where nothing is gained, or on a GPU."""
    if mask is None or mask.dim() != 2 or mask.device.type != "cpu":
        return None
    lengths = mask.sum(-1)
    real = torch.arange(mask.shape[1]) < lengths[:, None]
    if bool(real.all()) or not torch.equal(real, mask.bool()):  # no padding, or some on the left
        return None
    order = lengths.argsort(stable=True)
    positions = torch.arange(mask.numel()).view_as(mask)
    sizes, texts = torch.unique_consecutive(lengths[order], return_counts=True)
    runs = [(each, size) for each, size in zip(texts.tolist(), sizes.tolist(), strict=True) if size]
    return Packing(positions[order][real[order]], runs)


def attend(  # noqa: PLR0913 - Transformers' own
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    runs: Sequence[tuple[int, int]] | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return the attended values [1, T, heads, D] of packed texts, query, key and value [1, heads, T, D].

    Without `runs` the texts are padded ones, and attended to as Transformers does.
    """
    if runs is None:
        given = (query, key, value, attention_mask)
        return sdpa_attention_forward(module, *given, dropout=dropout, scaling=scaling, **others)
    sizes = [texts * length for texts, length in runs]
    split = (each[0].transpose(0, 1).split(sizes) for each in (query, key, value))
    parts = []
    for (texts, length), *blocks in zip(runs, *split, strict=True):
        q, k, v = (block.unflatten(0, (texts, length)).transpose(1, 2) for block in blocks)
        attended = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        parts.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)[None], None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
