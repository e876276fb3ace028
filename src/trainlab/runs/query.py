"""Chooses runs by a filter such as `margin>=5 and val/loss<0.2`.

    filter     = term { "or" term }
    term       = factor { "and" factor }
    factor     = "not" factor | "(" filter ")" | comparison
    comparison = name ("=" | "!=" | "<" | "<=" | ">" | ">=") value

A name is a column of the table: a setting, a metric (its best value; `last.val/loss` is the last), status,
experiment, run, started, seconds, note, sweep, trial; besides these `age`, the time since the start, and
`tag`, any of the run's tags. Names and values with blanks or operators in them stand in quotes, in which a
backslash keeps the quote behind it. A run without a value fulfils `!=` and `=none` alone.
"""

from __future__ import annotations

import operator
import re
from collections import deque
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from trainlab.errors import UserError, nearest, some
from trainlab.run.record import Status
from trainlab.runs import columns
from trainlab.runs.listing import UNKNOWN, UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from trainlab.runs.listing import Row

    Predicate = Callable[[Row], bool]

OPERATORS = {
    "=": operator.eq,
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}  # of a time span, in seconds
SPANS = ("age", "seconds")  # columns that are compared with time spans
_BINDING = {"or": 0, "and": 1, "not": 2}  # how tightly
_KEYWORDS = (*_BINDING, "(", ")")
_DEEPEST = 200  # brackets and nots before a name: Python, too, reads no more
_TOO_DEEP = "The filter has too many brackets inside brackets. Write it flatter."
_TOKEN = re.compile(
    r"""(?P<sign><=|>=|!=|==|[=<>])|(?P<quoted>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
    r"""|(?P<word>[()]|[^\s()<>=!"']+)|(?P<other>\S)"""
)
_ESCAPED = re.compile(r"""\\([\\"'])""")
_SPAN = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[smhdw])")


def select(rows: Sequence[Row], *filters: str) -> list[Row]:
    """Return the rows that every filter lets through, in their order; an empty filter lets all.

    Raises:
        UserError: A filter can't be read, a name is unknown, or a value is of the wrong kind.
    """
    fulfilled = [parse(text, rows) for text in filters if text.strip()]
    return [row for row in rows if all(holds(row) for holds in fulfilled)]


def of_sweep(name: str) -> str:
    """Return the filter that lets a sweep's runs through; '' for ''."""
    return 'sweep="' + re.sub(r'([\\"])', r"\\\1", name) + '"' if name else ""


def parse(text: str, rows: Sequence[Row]) -> Predicate:
    """Return a filter as a function of a row; names and values are checked against `rows`.

    Raises:
        UserError: It shows the place, or the nearest name for one that no row has.
    """
    tokens = deque(_tokens(text))

    def accept(kind: str) -> bool:
        found = tokens[0][0] == kind
        if found:
            tokens.popleft()
        return found

    def take(kind: str, expected: str) -> str:
        found, word, place = tokens[0]
        if found != kind:
            raise _unreadable(text, place, f"found {word!r}" if word else "it ends", expected)
        tokens.popleft()
        return word

    def part(binding: int, depth: int) -> Predicate:
        """Read a comparison, and those joined to it by what binds at least as tightly."""
        if depth > _DEEPEST:
            raise UserError("The filter has too many brackets inside brackets. Write it flatter.")
        if accept("not"):
            refused = part(_BINDING["not"], depth + 1)
            found: Predicate = lambda row: not refused(row)  # noqa: E731
        elif accept("("):
            found = part(0, depth + 1)
            take(")", "')'")
        else:
            name = take("word", "a name such as margin or val/loss")
            sign = take("sign", "one of = != < <= > >=")
            found = _comparison(name, sign, take("word", "a value"), rows)
        for link, join in (("and", all), ("or", any)):
            parts = [found]
            while _BINDING[link] >= binding and accept(link):
                parts.append(part(_BINDING[link] + 1, depth))
            if len(parts) > 1:
                found = partial(_joined, join, parts)
        return found

    found = part(0, 0)
    take("end", "'and', 'or' or the end")
    return found


def _joined(join: Callable[[Iterable[bool]], bool], parts: Sequence[Predicate], row: Row) -> bool:
    return join(part(row) for part in parts)


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield (kind, text, place) of each word, sign and bracket, and an empty one for the end."""
    for found in _TOKEN.finditer(text):
        kind, word = str(found.lastgroup), found[0]
        if kind == "other":
            expected = "a name, a sign such as >=, or quotes that close"
            raise _unreadable(text, found.start(), f"found {word!r}", expected)
        if kind == "quoted":
            kind, word = "word", _ESCAPED.sub(r"\1", word[1:-1])
        elif word.lower() in _KEYWORDS:
            kind = word.lower()
        yield kind, word, found.start()
    yield "end", "", len(text)


def _unreadable(text: str, place: int, found: str, expected: str) -> UserError:
    return UserError(
        f"The filter can't be read: {found} where {expected} should stand.\n  {text}\n  {' ' * place}^"
    )


def _comparison(name: str, sign: str, wanted: str, rows: Sequence[Row]) -> Predicate:
    column = "tags" if name == "tag" else name
    if name != "age" and rows:
        column = columns.resolve(column, rows, also=["age", "tag"])
    if column in SPANS:
        wanted = str(seconds(wanted, name))

    def value(row: Row) -> Any:
        if column != "age":
            return columns.value(row, column)
        return None if row.started is None else (datetime.now(UTC) - row.started).total_seconds()

    if rows and wanted.lower() != "none":
        _check(f"{name}{sign}{wanted}", name, column, wanted, [value(row) for row in rows])
    if sign == "!=":
        return lambda row: not _holds(value(row), "=", wanted)
    return lambda row: _holds(value(row), sign, wanted)


def seconds(span: str, name: str) -> float:
    """Return a time span such as '7d' or '90' in seconds; raise UserError that names what it is for."""
    if found := _SPAN.fullmatch(span):
        return float(found["number"]) * UNITS[found["unit"]]
    if (number := _alike(span, 0.0)) is None:
        raise UserError(f"{name}: {span!r} is no time. Expected a number with s, m, h, d or w, such as 7d.")
    return float(number)


def _check(shown: str, name: str, column: str, wanted: str, found: Sequence[Any]) -> None:
    """Refuse a value that no run could have: a status that doesn't exist, text where all have numbers."""
    flat = [each for one in found for each in (one if isinstance(one, list) else [one]) if each is not None]
    if column == "status":
        flat += [*get_args(Status), UNKNOWN, UNREADABLE]
    if column in ("status", "experiment", "tags", "sweep") and wanted not in flat:
        known = sorted(set(flat))
        near = nearest(wanted, known, most=3)
        raise UserError(f"{shown}: no such {name}.{near} There: {some(known, 6)}.")
    if flat and all(_alike(wanted, each) is None for each in flat):
        number = "a number" if isinstance(flat[0], int | float) else "a date"
        kind = "true or false" if isinstance(flat[0], bool) else number
        raise UserError(f"{shown}: {name} is {kind}, {flat[0]} for instance.")


def _holds(found: Any, sign: str, wanted: str) -> bool:
    if found is None or found == []:
        return sign in ("=", "==") and wanted.lower() == "none"
    if isinstance(found, list):
        return any(_holds(each, sign, wanted) for each in found)
    other = _alike(wanted, found)
    plain = found if isinstance(found, int | float | datetime) else str(found)
    return other is not None and bool(OPERATORS[sign](plain, other))


def _alike(wanted: str, found: Any) -> Any:
    """Return what is wanted as a value of the type of what was found, None where it can't be one."""
    try:
        if isinstance(found, bool):
            return {"true": True, "false": False}.get(wanted.lower())
        if isinstance(found, int | float):
            return float(wanted)
        if isinstance(found, datetime):
            moment = datetime.fromisoformat(wanted)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        return None
    return wanted
