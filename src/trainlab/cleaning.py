"""Text as it may leave for a terminal, a table or a sheet: names, settings and messages can hold anything.

Escape sequences rename windows, write into the clipboard and hide lines; letters that turn the direction of
writing hide what a name is; a sheet computes what begins like a formula.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_MARKDOWN = re.compile(r"([\\`*\[\]<>|])")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # wide ones too

_CONTROL = r"\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_STEERING = re.compile(  # what a terminal acts on: strings with their ends, sequences, single characters
    r"\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|(?=\x1b))|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]?"
    rf"|[{_CONTROL}]"
)
_KEPT = re.compile(r"\x1b\[(?:[0-9;:]*m|[0-9;]*[A-GK]|0?J|\?25[hl])")
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b\x9c]*\x1b?|[ -/]*)$")
_LONGEST = 4096  # characters of a sequence that is waited for


def printable(text: str) -> str:
    """Return text in one line with '?' for what steers a terminal, turns the writing or can't be encoded."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def lines(text: str) -> str:
    """Return a message of several lines, each of them printable; a tab becomes a blank."""
    return "\n".join(printable(line) for line in text.replace("\t", " ").split("\n"))


def markdown(text: str) -> str:
    """Return text as a cell of a Markdown table, in which no letter is markup."""
    return _MARKDOWN.sub(r"\\\1", printable(text))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]], right: Collection[str] = ()) -> str:
    """Return a Markdown table, in which no letter of a cell is markup.

    Args:
        head: The columns' titles.
        rows: Each row's cells.
        right: Titles of the columns that are aligned to the right.
    """
    rules = ["--:" if title in right else "---" for title in head]
    titles, *cells = ([markdown(str(cell)) for cell in row] for row in (head, *rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, rules, *cells))


def text_key(text: str) -> str:
    """Return a text with case and white space levelled: texts of equal keys are duplicates."""
    return " ".join(text.casefold().split())


def sheet(text: str) -> str:
    """Return text as a cell of a sheet: `'` before what a sheet would compute; numbers stay numbers."""
    shown = lines(text)
    computed = text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA)
    with suppress(ValueError):
        float(text)
        computed = False
    return f"'{shown}" if computed else shown


class Output:
    """What a program prints, in pieces, less what steers the terminal.

    Colours stay, and so does what progress bars need: carriage return and backspace, moves of the cursor,
    erasing, hiding the cursor. Titles of windows, links, the clipboard, other sequences, bells and letters
    that turn the writing are dropped.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """Return what can be shown by now; a sequence that has only begun waits for its end."""
        text, self._held = self._held + piece, ""
        if (begun := _BEGUN.search(text)) and len(text) - begun.start() <= _LONGEST:
            text, self._held = text[: begun.start()], text[begun.start() :]
        return _STEERING.sub(lambda each: each[0] if _KEPT.fullmatch(each[0]) else "", text)


def json_of(plain: Any) -> str:
    """Return plain values as JSON and a line's end; no character of it steers a terminal."""
    text = json.dumps(plain, indent=2, allow_nan=False)
    return text.replace("\x7f", "\\u007f") + "\n"  # the other control characters are escaped
