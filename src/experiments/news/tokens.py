"""The tokens of news, made once for all runs."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.news.data import TEXTS, News
from trainlab import paths

if TYPE_CHECKING:  # torch takes seconds to load
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor

AT_ONCE = 20_000  # texts that the tokenizer is given in one call: its own form of them takes 1 kB each
FILES = ("ids", "ends")


class Tokens(NamedTuple):
    """Token ids and their mask, both [N, T, L]: N items of T texts, padded to L tokens.

    `hidden` [S, H] are the states of the S real tokens behind the layers that are not trained, if known.
    """

    ids: Tensor
    mask: Tensor
    hidden: Tensor | None = None

    def to(self, device: torch.device) -> Tokens:
        """Return the same tokens on another device."""
        return Tokens(*(None if each is None else each.to(device) for each in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class TokenTable:
    """The tokens of N items of `texts` texts each, one after the other, without padding.

    `ids` [S] are unsigned, of 16 bits where the vocabulary allows; `ends` [N·T] say where each text ends.
    `padding` is the id that fills up a batch, `hidden` [S, H] what `Tokens` says.
    """

    ids: NDArray[Any]
    ends: NDArray[np.int64]
    texts: int
    padding: int
    hidden: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ends) // self.texts

    def rows(self, items: Tensor | NDArray[Any] | Sequence[int]) -> Tokens:
        """Return the tokens of some items [N], padded to the longest text among them."""
        import torch

        wanted = np.asarray(items)[:, None] * self.texts + np.arange(self.texts)
        starts = np.where(wanted > 0, self.ends[wanted - 1], 0)
        lengths = self.ends[wanted] - starts
        columns = np.arange(lengths.max(initial=1))
        mask = columns < lengths[..., None]
        indices = (starts[..., None] + columns)[mask]
        ids = np.full(mask.shape, self.padding, np.int64)
        ids[mask] = self.ids[indices]
        hidden = None if self.hidden is None else self.hidden[torch.from_numpy(indices)]
        return Tokens(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)), hidden)

    def batches(self, size: int) -> Iterator[Tokens]:
        """Yield the tokens of all items in turn, so many items at once."""
        for start in range(0, len(self), size):
            yield self.rows(np.arange(start, min(start + size, len(self))))

    def save(self, folder: Path) -> None:
        """Write the table so that its folder is either whole or not there, whoever else writes it."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as temporary:
            half = Path(temporary) / folder.name
            half.mkdir()
            for name in FILES:
                np.save(half / f"{name}.npy", getattr(self, name))
            half.rename(folder)


def tokenize(tokenizer: Tokenizer, items: Sequence[Sequence[str]]) -> TokenTable:
    """Tokenize texts without padding.

    Args:
        tokenizer: Its truncation applies, its padding does not.
        items: N items of T texts each; T is the first item's.

    Returns:
        Their ids, in 16 bits where the vocabulary has at most 65,536 tokens, else in 32.
    """
    plain = type(tokenizer).from_str(tokenizer.to_str())
    plain.no_padding()
    kind = np.uint16 if plain.get_vocab_size() <= 2**16 else np.uint32
    parts: list[NDArray[Any]] = []
    lengths: list[int] = []
    texts = list(chain.from_iterable(items))
    for start in range(0, len(texts), AT_ONCE):
        encoded = [each.ids for each in plain.encode_batch_fast(texts[start : start + AT_ONCE])]
        lengths += map(len, encoded)
        parts.append(np.fromiter(chain.from_iterable(encoded), kind))
    ids = np.concatenate(parts) if parts else np.empty(0, kind)
    padding = (tokenizer.padding or {}).get("pad_id", 0)
    return TokenTable(ids, np.cumsum(lengths), len(items[0]) if items else 1, padding)


def load_tokens(folder: Path, tokenizer: Tokenizer, texts: int) -> TokenTable:
    """Map a saved table into memory; raise OSError or ValueError for files that are missing or damaged."""
    ids, ends = (np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in FILES)
    if len(ends) % texts or len(ids) != (ends[-1] if len(ends) else 0):
        raise ValueError(f"{folder}: its files don't belong together")
    return TokenTable(ids, ends, texts, (tokenizer.padding or {}).get("pad_id", 0))


def tokens_folder() -> Path:
    """Return where the tokens of all data sets are kept."""
    return paths.data() / "tokens"


def tokens_of(news: News, text: str, tokenizer: Tokenizer) -> TokenTable:
    """Tokenize all news, or load what an earlier call made of the same data with the same tokenizer.

    Args:
        news: The items; their file's SHA-256 is part of the cache's key.
        text: Which texts of an item: "title" or "title+abstract".
        tokenizer: The backbone's.

    Returns:
        The tokens, mapped from the cache in data/tokens/; in memory where that can't be written.
    """
    key = "\0".join((tokenizer.to_str(), news.sha256, text))
    folder = tokens_folder() / hashlib.sha256(key.encode()).hexdigest()[:16]
    with suppress(OSError, ValueError):
        return load_tokens(folder, tokenizer, TEXTS[text])
    made = tokenize(tokenizer, news.texts(text))
    with suppress(
        OSError, ValueError
    ):  # a full disk, a folder of somebody else's: next time they are made again
        made.save(folder)
        return load_tokens(folder, tokenizer, TEXTS[text])
    return made
