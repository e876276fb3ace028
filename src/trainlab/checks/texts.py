"""Comparing a decoded text with its source: tokenizers level case, accents and spaces, and cut."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def differences(decoded: Sequence[str], sources: Sequence[str]) -> tuple[int, int, list[tuple[str, str]]]:
    """Return how many texts came back whole, how many cut at the end, and (decoded, source) of the others."""
    whole, cut, wrong = 0, 0, []
    for text, source in zip(decoded, sources, strict=False):
        ours, theirs = levelled(text), levelled(source)
        if ours == theirs:
            whole += 1
        elif ours and theirs.startswith(ours):
            cut += 1
        else:
            wrong.append((text, source))
    return whole, cut, wrong


def levelled(text: str) -> str:
    """Return a text in lower case, without accents and white space."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter) and not letter.isspace())
