"""Which token of a text attends to which, in every head of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from trainlab.errors import UserError

AT_ONCE = 16  # texts in one pass
# what BERT and RoBERTa, DistilBERT, and MPNet call the layers that make queries and keys
QUERIES, KEYS = ("query", "q_lin", "q"), ("key", "k_lin", "k")


@dataclass(frozen=True)
class Attention:
    """What the n tokens of one text attend to, padding left out.

    `weights` [layers, heads, n, n] go from the row's token to the column's, each row sums to 1; `queries` and
    `keys` [layers, heads, n, size] are what they are made of. `special` [n] marks tokens that are not of the
    text; `spans` are the characters from which to which each token stands for, in the text.
    """

    tokens: list[str]
    special: Tensor
    spans: list[tuple[int, int]]
    weights: Tensor
    queries: Tensor
    keys: Tensor

    @property
    def separators(self) -> Tensor:
        """Marks [n] of the special tokens behind the text: all but the first."""
        return self.special & (torch.arange(len(self.tokens)) > 0)

    def pieces(self, start: int, end: int) -> list[int]:
        """Return the indices of the tokens that the text's characters from `start` to `end` became."""
        return [
            index
            for index, (first, last) in enumerate(self.spans)
            if not self.special[index] and first < end and last > start
        ]


class Reader:
    """A network of Transformers' and its tokenizer, reading texts with its attention kept.

    Attention is computed step by step and in 32 bits: the fast kernels keep no weights.
    """

    def __init__(self, name: str, model: PreTrainedModel, tokenizer: Tokenizer, max_tokens: int) -> None:
        self.name = name
        self.model = model.float().eval()
        self.model.set_attn_implementation("eager")
        self.tokenizer = tokenizer
        self.tokenizer.enable_truncation(max_tokens)
        self._projections = [_projections(name, model, each) for each in (QUERIES, KEYS)]

    def read(self, texts: Sequence[str]) -> Iterator[Attention]:
        """Yield the attention of each text, in order."""
        for start in range(0, len(texts), AT_ONCE):
            yield from self._batch(self.tokenizer.encode_batch(list(texts[start : start + AT_ONCE])))

    def _batch(self, encodings: Sequence[Encoding]) -> Iterator[Attention]:
        mask = torch.tensor([each.attention_mask for each in encodings])
        ids = torch.tensor([each.ids for each in encodings])
        kept: list[list[Tensor]] = [[], []]
        hooks = [
            layer.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output))
            for layers, seen in zip(self._projections, kept, strict=True)
            for layer in layers
        ]
        try:
            with torch.inference_mode():
                output = self.model(input_ids=ids, attention_mask=mask, output_attentions=True)
        finally:
            for hook in hooks:
                hook.remove()
        weights = torch.stack(output.attentions)  # layers, texts, heads, tokens, tokens
        queries, keys = (  # layers, texts, heads, tokens, size
            torch.stack([each.unflatten(-1, (weights.shape[2], -1)).transpose(1, 2) for each in outputs])
            for outputs in kept
        )
        for row, encoding in enumerate(encodings):
            real = mask[row].nonzero().flatten()
            yield Attention(
                tokens=[encoding.tokens[index] for index in real],
                special=torch.tensor(encoding.special_tokens_mask).bool()[real],
                spans=[encoding.offsets[index] for index in real],
                weights=weights[:, row][:, :, real][..., real],
                queries=queries[:, row][:, :, real],
                keys=keys[:, row][:, :, real],
            )


def _projections(name: str, model: PreTrainedModel, kinds: Sequence[str]) -> list[torch.nn.Module]:
    found = [layer for path, layer in model.named_modules() if path.rpartition(".")[2] in kinds]
    if not found:
        raise UserError(
            f"{name}: nothing in a network of the kind {model.config.model_type} is called "
            f"{' or '.join(kinds)}. Expected an encoder such as BERT, DistilBERT or RoBERTa."
        )
    return found
