"""Chooses runs by a filter such as `margin>=5 and val/loss<0.2`.

    filter     = term { "or" term }
    term       = factor { "and" factor }
    factor     = "not" factor | "(" filter ")" | comparison
    comparison = name ("=" | "!=" | "<" | "<=" | ">" | ">=") value

A name is a column of the table: a setting, a metric (its best value; `last.val/loss` is the last), status,
experiment, run, started, seconds, note; besides these `age`, the time since the start, and `tag`, any of the
run's tags. Names and values with blanks or operators in them stand in quotes, in which a backslash keeps the
quote behind it. A run without a value fulfils `!=` and `=none` alone.
"""

from __future__ import annotations

import operator
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from trainlab.errors import UserError, nearest, some
from trainlab.run.record import Status
from trainlab.runs import columns
from trainlab.runs.listing import UNKNOWN, UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
_TOKEN = re.compile(
    r"""\s*(?:(?P<sign><=|>=|!=|==|[=<>])|(?P<bracket>[()])|(?P<quoted>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<word>[^\s()<>=!"']+))"""
)
_ESCAPED = re.compile(r"""\\([\\"'])""")
_SPAN = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[smhdw])")
_TRUTH = {"true": True, "false": False}


def select(rows: Sequence[Row], *filters: str) -> list[Row]:
    """Return the rows that every filter lets through, in their order; an empty filter lets all.

    Raises UserError for a filter that can't be read, an unknown name, or a value of the wrong kind.
    """
    fulfilled = [parse(text, rows) for text in filters if text.strip()]
    return [row for row in rows if all(holds(row) for holds in fulfilled)]


def parse(text: str, rows: Sequence[Row]) -> Predicate:
    """Return a filter as a function of a row; names and values are checked against `rows`.

    Raises UserError that shows the place, and the nearest name for one that no row has.
    """
    return _Parser(text, rows).parse()


class _Parser:
    """Reads a filter from left to right; each method takes what it understands and moves on."""

    def __init__(self, text: str, rows: Sequence[Row]) -> None:
        self._text, self._rows = text, rows
        self._tokens = list(_tokens(text))
        self._place = 0

    def parse(self) -> Predicate:
        try:
            whole = self._any()
        except RecursionError:
            raise UserError("The filter has too many brackets inside brackets. Write it flatter.") from None
        if self._kind != "end":
            raise self._unexpected("'and', 'or' or the end")
        return whole

    def _any(self) -> Predicate:
        terms = [self._all()]
        while self._takes("or"):
            terms.append(self._all())
        return lambda row: any(term(row) for term in terms)

    def _all(self) -> Predicate:
        factors = [self._factor()]
        while self._takes("and"):
            factors.append(self._factor())
        return lambda row: all(factor(row) for factor in factors)

    def _factor(self) -> Predicate:
        if self._takes("not"):
            refused = self._factor()
            return lambda row: not refused(row)
        if self._takes("("):
            inner = self._any()
            if not self._takes(")"):
                raise self._unexpected("')'")
            return inner
        return self._comparison()

    def _comparison(self) -> Predicate:
        name = self._take(("word", "quoted"), "a name such as margin or val/loss")
        sign = self._take(("sign",), "one of = != < <= > >=")
        wanted = self._take(("word", "quoted"), "a value")
        return _comparison(name, sign, wanted, self._rows)

    @property
    def _kind(self) -> str:
        return self._tokens[self._place][0]

    def _takes(self, expected: str) -> bool:
        kind, text, _ = self._tokens[self._place]
        found = kind in ("word", "bracket") and text.lower() == expected
        self._place += found
        return found

    def _take(self, kinds: tuple[str, ...], expected: str) -> str:
        kind, text, _ = self._tokens[self._place]
        if kind not in kinds or (kind == "word" and text.lower() in ("and", "or", "not")):
            raise self._unexpected(expected)
        self._place += 1
        return text

    def _unexpected(self, expected: str) -> UserError:
        _, text, at = self._tokens[self._place]
        return _error(self._text, at, f"found {text!r}" if text else "it ends", expected)


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield (kind, text, place) of each word, sign and bracket, and an empty one for the end."""
    place = 0
    while text[place:].strip():
        found = _TOKEN.match(text, place)
        if found is None:
            at = place + len(text[place:]) - len(text[place:].lstrip())
            raise _error(text, at, f"found {text[at]!r}", "a name, a sign such as >=, or quotes that close")
        kind = str(found.lastgroup)
        text_of = _ESCAPED.sub(r"\1", found[kind][1:-1]) if kind == "quoted" else found[kind]
        yield kind, text_of, found.start(kind)
        place = found.end()
    yield "end", "", len(text)


def _error(text: str, at: int, found: str, expected: str) -> UserError:
    return UserError(
        f"The filter can't be read: {found} where {expected} should stand.\n  {text}\n  {' ' * at}^"
    )


def _comparison(name: str, sign: str, wanted: str, rows: Sequence[Row]) -> Predicate:
    column = _column(name, rows)
    if column in SPANS:
        wanted = str(seconds(wanted, name))
    _check(name, column, sign, wanted, rows)
    if sign == "!=":
        return lambda row: not _holds(_value(row, column), "=", wanted)
    return lambda row: _holds(_value(row, column), sign, wanted)


def seconds(span: str, name: str) -> float:
    """Return a time span such as '7d' or '90' in seconds; raise UserError that names what it is for."""
    if found := _SPAN.fullmatch(span):
        return float(found["number"]) * UNITS[found["unit"]]
    if (number := _number(span)) is None:
        raise UserError(f"{name}: {span!r} is no time. Expected a number with s, m, h, d or w, such as 7d.")
    return number


def _column(name: str, rows: Sequence[Row]) -> str:
    if name == "age" or not rows:
        return name
    return columns.resolve("tags" if name == "tag" else name, rows, also=["age", "tag"])


def _value(row: Row, column: str) -> Any:
    if column != "age":
        return columns.value(row, column)
    return None if row.started is None else (datetime.now(UTC) - row.started).total_seconds()


def _check(name: str, column: str, sign: str, wanted: str, rows: Sequence[Row]) -> None:
    """Refuse a value that no run could have: a status that doesn't exist, text where all have numbers."""
    if wanted.lower() == "none" or not rows:
        return
    values = [each for row in rows for each in _flat(_value(row, column)) if each is not None]
    if column == "status":
        values += [*get_args(Status), UNKNOWN, UNREADABLE]
    if column in ("status", "experiment", "tags") and wanted not in values:
        known = sorted(set(values))
        near = nearest(wanted, known, most=3)
        raise UserError(f"{name}{sign}{wanted}: no such {name}.{near} There: {some(known, 6)}.")
    if values and all(_pair(each, wanted) is None for each in values):
        raise UserError(f"{name}{sign}{wanted}: {name} is {_kind_of(values[0])}, {values[0]} for instance.")


def _holds(found: Any, sign: str, wanted: str) -> bool:
    if found is None or found == []:
        return sign in ("=", "==") and wanted.lower() == "none"
    if isinstance(found, list):
        return any(_holds(each, sign, wanted) for each in found)
    pair = _pair(found, wanted)
    return pair is not None and bool(OPERATORS[sign](*pair))


def _pair(found: Any, wanted: str) -> tuple[Any, Any] | None:
    """Return what was found and what is wanted as values of one type, None where they have none in common."""
    other: Any = wanted
    if isinstance(found, bool):
        other = _TRUTH.get(wanted.lower())
    elif isinstance(found, int | float):
        other = _number(wanted)
    elif isinstance(found, datetime):
        other = _moment(wanted)
    return None if other is None else (found if isinstance(found, _COMPARED) else str(found), other)


_COMPARED = (bool, int, float, datetime, str)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _flat(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


def _kind_of(found: Any) -> str:
    if isinstance(found, bool):
        return "true or false"
    return "a number" if isinstance(found, int | float) else "a date"
