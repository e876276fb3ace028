"""What is told about runs, and how it reads: name, status, goal and reason, and nothing else.

A name, a curve's tag and a reason may come from anybody who can write into `logs/`, and are read in a chat or
a mail: so no markup, no mention of people, no link and no path is left in them.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, FiniteFloat

from trainlab import secrets
from trainlab.cleaning import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST_NAME, LONGEST_REASON = 120, 300  # characters of each that are told
MOST_LINES = 10  # of one message
_LOOKED_AT, _MATCHED = 20_000, 1_000  # characters of a text: what stands behind them is never told
_PLACES = re.compile(  # paths and addresses: of files that have an ending, of all that begin at a root
    r"""(['"])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^'"\n]*\1"""
    r"""|\b[A-Za-z][\w+.-]{0,20}://[^\s'"]+"""
    r"""|(?<![\w.])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s'",;:)\]]+"""
    r"""|[\w.-]{1,100}(?:[/\\][\w.-]{1,100}){1,30}\.\w{1,8}\b"""
)
# What chats read as markup, as links or as a call for everybody
_LOOK_ALIKES = str.maketrans({"<": "(", ">": ")", "[": "(", "]": ")", "@": "(at)", "`": "'", "|": "/"})


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a name in one line, less secrets, markup, mentions and what steers a reader."""
    known = " ".join(secrets.without_secrets(text[:_LOOKED_AT]).split())
    shown = printable(known).translate(_LOOK_ALIKES).replace("://", ":")
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def without_places(text: str) -> str:
    """Return a reason as `plain` does, and less paths and addresses."""
    known = secrets.without_secrets(text[:_LOOKED_AT])[:_MATCHED]
    return plain(_PLACES.sub("…", known), LONGEST_REASON)


Name = Annotated[str, AfterValidator(plain)]


class News(BaseModel):
    """One thing that is told. Whatever its texts are made of, they are harmless in it."""

    kind: Literal["end", "nan", "stall", "disk", "sweep"]
    name: Name  # 'experiment/run', a sweep, or what else it is about
    status: Name
    goal: Name = ""
    reason: Annotated[str, AfterValidator(without_places)] = ""
    sweep: Name = ""  # that the run is a trial of
    at: FiniteFloat  # seconds since 1970


def message(news: Sequence[News], lost: int = 0) -> tuple[str, str]:
    """Return the title and the text of one message about all that happened.

    Args:
        news: What happened, the oldest first; at least one.
        lost: How many earlier ones could not be sent.
    """
    lines = [line for group in _groups(news) for line in group]
    left = len(lines) - MOST_LINES
    shown = lines if left <= 0 else [*lines[:MOST_LINES], f"and {left} more: trainlab runs"]
    if lost:
        shown.append(f"{lost} earlier messages could not be sent: trainlab runs")
    if len(news) == 1:
        return f"trainlab: {news[0].name} {_short(news[0])}", "\n".join(shown)
    of = Counter(_short(each) for each in news)
    return f"trainlab: {', '.join(f'{count} {what}' for what, count in of.items())}", "\n".join(shown)


def _short(news: News) -> str:
    return {"nan": "NaN", "stall": "stalled"}.get(news.kind, news.status)


def _groups(news: Sequence[News]) -> list[list[str]]:
    """Return the lines of each thing that happened; trials of one sweep that failed share theirs."""
    trials: dict[str, list[News]] = {}
    for each in news:
        trials.setdefault(each.sweep, []).append(each)
    alone = [[_line(each)] for each in trials.pop("", [])]
    return alone + [[_line(each[0])] if len(each) == 1 else [_trials(each)] for each in trials.values()]


def _trials(news: Sequence[News]) -> str:
    reasons = Counter(each.reason for each in news if each.reason).most_common(3)
    why = "; ".join(f"{reason} ({count} times)" if count > 1 else reason for reason, count in reasons)
    return f"sweep {news[0].sweep}: {len(news)} trials failed" + (f": {why}" if why else "")


def _line(news: News) -> str:
    parts = [f"{news.name}: {news.status}", news.goal, news.reason]
    return ". ".join(part.rstrip(".") for part in parts if part)
