"""Words and their numbers."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from trainlab.errors import UserError
from trainlab.runs import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PAD, START, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
FILE = "vocabulary.json"  # in a run's folder
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def words_of(caption: str) -> list[str]:
    """Return a caption's words in lower case, without punctuation."""
    return _WORD.findall(caption.lower())


@dataclass(frozen=True)
class Vocabulary:
    """All words that a network knows, the four special ones first; a word's number is its place."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, captions: Iterable[str], min_count: int) -> Self:
        """Return the words that occur at least `min_count` times, the most frequent first."""
        counts = Counter(word for caption in captions for word in words_of(caption))
        kept = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        return cls((*SPECIAL, *(word for _, word in kept)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what `write` wrote; raise UserError for a file that is none of these."""
        try:
            words = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{path} can't be read as a vocabulary: {error}.") from None
        if not isinstance(words, list) or tuple(words[: len(SPECIAL)]) != SPECIAL:
            raise UserError(f"{path} is no vocabulary: expected a list of words that starts with {SPECIAL}.")
        return cls(tuple(map(str, words)))

    def write(self, path: Path) -> None:
        """Write the words as a JSON list."""
        atomic.write(path, json.dumps(list(self.words), ensure_ascii=False, indent=0).encode())

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Each word's number."""
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, caption: str, max_words: int) -> list[int]:
        """Return start, the numbers of at most `max_words` words, end."""
        words = words_of(caption)[:max_words]
        return [START, *(self.numbers.get(word, UNKNOWN) for word in words), END]

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the words up to the first end, without start and padding."""
        words = []
        for number in numbers:
            if number == END:
                break
            if number not in (PAD, START):
                words.append(self.words[number])
        return " ".join(words)
