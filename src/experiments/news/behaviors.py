"""What readers had read, what they were shown and what of it they clicked: MIND's behaviors.tsv."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.news import data
from experiments.news.data import News
from trainlab import paths
from trainlab.errors import UserError, some
from trainlab.files import decode, parted_otherwise, read_bytes, separator, unpacked

COLUMNS = ("impression id", "user id", "time", "history", "impressions")
LAYOUT = f"{len(COLUMNS)} tab-separated columns without header: {', '.join(COLUMNS)}"
LABELS = {"-0": False, "-1": True}
LAST = 50  # items of a history that count, as NAML and NRMS have it
LISTED = 5  # unreadable rows listed by number; the rest are counted
SHOWN = 40  # characters of a word of the file in a message


@dataclass(frozen=True)
class Behaviors:
    """The impressions of a file that can be measured: I of them, with M candidates in all.

    `items` [N] are the rows of the news that occur, in ascending order; `histories` [I, LAST], the oldest
    first and -1 behind the last, and `candidates` [M] are places in `items`. An impression's candidates end
    at `ends` [I], the next one's follow; `clicked` [M] says which were. `readers` [I] are codes from 0 on.

    `popularity` [N] is the number of readers who had read an item before their first impression of the file,
    so that no click that is measured is part of it. That is their shortest history: histories only grow.

    `unreadable` maps a row's number in the file, from 1, to what is wrong with it; `left_out` counts the
    impressions that are readable and can't be measured, by why. `unknown` counts candidates and read items
    (of each line) that are not among the news, and are passed over.
    """

    path: Path
    news: News
    items: NDArray[np.int64]
    readers: NDArray[np.int64]
    histories: NDArray[np.int64]
    candidates: NDArray[np.int64]
    clicked: NDArray[np.bool_]
    ends: NDArray[np.int64]
    popularity: NDArray[np.int64]
    unreadable: dict[int, str]
    left_out: dict[str, int]
    unknown: dict[str, int]

    def summary(self) -> str:
        """Return a few lines for people: what was read, from where, what was not and why."""
        impressions, readers = len(self.ends), self.readers.max(initial=-1) + 1
        lines = [
            f"{self.path}: {impressions:,} impressions of {readers:,} readers can be measured, with "
            f"{len(self.candidates):,} candidates; news: {self.news.path}"
        ]
        if self.unreadable:
            rows = some((f"row {row} ({reason})" for row, reason in self.unreadable.items()), LISTED)
            lines.append(f"  {len(self.unreadable):,} unreadable rows left out: {rows}")
        lines += [f"  {count:,} left out: {reason}" for reason, count in self.left_out.items()]
        if any(self.unknown.values()):
            counts = ", ".join(f"{count:,} {what}" for what, count in self.unknown.items())
            lines.append(f"  not among the news, passed over: {counts}")
        if self.news.unreadable:
            lines.append(f"  {len(self.news.unreadable):,} unreadable rows of the news left out")
        if repeated := self.news.table["id"].duplicated().sum():
            lines.append(f"  {repeated:,} news with the id of an earlier row left out")
        return "\n".join(lines)


class Line(NamedTuple):
    """A row of the file, taken apart: the candidates' ids and whether each was clicked."""

    impression: str
    reader: str
    history: list[str]
    candidates: list[str]
    clicked: list[bool]


def locate(behaviors: str) -> Path:
    """Return the file that is meant: 'sample', 'mind-small' (its dev part), or a path of it or its folder."""
    if behaviors == "sample":
        return paths.data() / "sample" / "behaviors.tsv"
    if behaviors == "mind-small":
        return paths.data() / "mind-small" / "dev" / "behaviors.tsv"
    path = Path(behaviors).expanduser()
    return (path / "behaviors.tsv" if path.is_dir() else path).resolve()


def read(behaviors: str, news: str = "") -> Behaviors:
    """Read what readers did; the file may be packed by gzip or zip.

    Args:
        behaviors: Which file, see `locate`.
        news: The news.tsv that its ids stand for; default: the one beside it. Of several rows with one id,
            the first counts.

    Raises:
        UserError: A file that is missing, unreadable, empty, not UTF-8 or something else, or one without any
            impression that can be measured. Its text names the file, the row and what was expected.
    """
    path = locate(behaviors)
    advice = "Expected sample, mind-small or the path of a behaviors.tsv in MIND's layout."
    if behaviors == "mind-small":
        advice = "Download it first: trainlab data fetch mind-small"
    text = decode(path, unpacked(path, read_bytes(path, "behaviors", advice)))
    if not text.strip():
        raise UserError(f"{path} is empty. Expected {LAYOUT}.")
    if not any(isinstance(_line(line), Line) for line in _lines(text)):
        raise _foreign(path, text)
    beside = path.with_name("news.tsv")
    if not news and not beside.exists():
        raise UserError(f"{beside} does not exist. Name the news.tsv of {path}: --news FILE")
    return _read(path, text, data.read(news or str(beside)))


def _read(path: Path, text: str, news: News) -> Behaviors:
    known = {name: row for row, name in reversed(list(enumerate(news.table["id"])))}
    faults: dict[int, str] = {}
    left_out, unknown = Counter[str](), Counter[str]()
    impressions, codes = set[str](), dict[str, int]()
    before: dict[str, array[int]] = {}  # of each reader, the shortest history
    readers, histories, candidates, ends = (array("q") for _ in range(4))
    clicked = array("b")
    example = ""
    for row, line in enumerate(_lines(text), 1):
        found = _line(line)
        if isinstance(found, str):
            faults[row] = found
            continue
        if found.impression in impressions:
            left_out["the impression id of an earlier row"] += 1
            continue
        impressions.add(found.impression)
        history = array("q", (known[name] for name in found.history if name in known))
        shown = [known.get(name, -1) for name in found.candidates]
        if -1 in shown:
            example = example or found.candidates[shown.index(-1)]
        labels = [label for place, label in zip(shown, found.clicked, strict=True) if place >= 0]
        unknown["read"] += len(found.history) - len(history)
        unknown["candidates"] += len(shown) - len(labels)
        if len(history) <= len(before.get(found.reader, history)):
            before[found.reader] = history
        if not labels:
            left_out["no candidate is among the news"] += 1
        elif all(labels) or not any(labels):
            left_out["all candidates clicked" if all(labels) else "no candidate clicked"] += 1
        else:
            readers.append(codes.setdefault(found.reader, len(codes)))
            histories.extend(history[-LAST:])
            histories.extend([-1] * (LAST - len(history)))
            candidates.extend(place for place in shown if place >= 0)
            clicked.extend(labels)
            ends.append(len(candidates))
    if not ends:
        counts = ", ".join(f"{count:,}: {reason}" for reason, count in left_out.items())
        mend = "Expected one with a candidate clicked and another not clicked, at least."
        if example:
            mend = f"{example[:SHOWN]!r} is not in {news.path}. Name the news.tsv of these ids: --news FILE"
        raise UserError(f"{path}: no impression can be measured ({counts}). {mend}")
    table = np.array(histories, np.int64).reshape(-1, LAST)
    shown_rows = np.array(candidates, np.int64)
    items = np.union1d(table[table >= 0], shown_rows)
    popularity = np.zeros(len(news.table), np.int64)
    for each in before.values():
        popularity[np.unique(each)] += 1
    return Behaviors(
        path,
        news,
        items,
        np.array(readers, np.int64),
        np.where(table >= 0, np.searchsorted(items, table), -1),
        np.searchsorted(items, shown_rows),
        np.array(clicked, np.bool_),
        np.array(ends, np.int64),
        popularity[items],
        faults,
        dict(left_out),
        dict(unknown),
    )


def _lines(text: str) -> Iterator[str]:
    return (line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))


def _line(line: str) -> Line | str:
    """Take a row apart, or return what is wrong with it."""
    cells = line.split("\t")
    if len(cells) != len(COLUMNS):
        return f"{len(cells):,} columns instead of {len(COLUMNS)}"
    impression, reader, _, history, shown = cells
    words = shown.split()
    if not words:
        return "no candidates"
    endings = [word[-2:] for word in words]
    if not LABELS.keys() >= set(endings):
        word = next(word for word, ending in zip(words, endings, strict=True) if ending not in LABELS)
        return f"{word[:SHOWN]!r} in the last column ends in neither -0 nor -1"
    labels = [LABELS[ending] for ending in endings]
    return Line(impression.strip(), reader.strip(), history.split(), [word[:-2] for word in words], labels)


def _foreign(path: Path, text: str) -> UserError:
    """Return the error for a file without any readable row."""
    first = next(_lines(text))
    tabs = first.count("\t") + 1
    found = separator(first, len(COLUMNS) - 1)
    if found not in ("", "\t"):
        return parted_otherwise(path, found, "\t")
    hint = ""
    if tabs == len(data.COLUMNS):
        hint = f" {tabs} columns are a news.tsv's: name the behaviors.tsv."
    elif tabs == len(COLUMNS):
        hint = " Clicks are what is measured: MIND's test part has none, its dev part does."
    return UserError(
        f"{path}, row 1: {_line(first)}, and no other row is better. Expected {LAYOUT}; the last one such as "
        f"N1-0 N2-1.{hint}"
    )
