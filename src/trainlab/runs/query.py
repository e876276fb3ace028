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

import ast
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
_SYMBOLS = {"and": "join", "or": "join", "not": "open", "(": "open", ")": "close"}
_NEXT = {  # what stands behind a symbol, by what was expected
    ("name", "open"): "name",
    ("name", "operand"): "sign",
    ("sign", "sign"): "value",
    ("value", "operand"): "link",
    ("link", "join"): "name",
    ("link", "close"): "link",
    ("link", "end"): "end",
}
_EXPECTED = {
    "name": "a name such as margin or val/loss",
    "sign": "one of = != < <= > >=",
    "value": "a value",
    "link": "'and', 'or' or the end",
}
_DEEPEST = 200  # brackets and nots before a name: Python, too, reads no more
_TOO_DEEP = "The filter has too many brackets inside brackets. Write it flatter."
_TOKEN = re.compile(
    r"""\s*(?:(?P<sign><=|>=|!=|==|[=<>])|(?P<bracket>[()])|(?P<quoted>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<word>[^\s()<>=!"']+))"""
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


def parse(text: str, rows: Sequence[Row]) -> Predicate:
    """Return a filter as a function of a row; names and values are checked against `rows`.

    The words between comparisons are Python's, and so is which of them binds more tightly: Python parses
    the filter with a number in the place of each comparison.

    Raises:
        UserError: It shows the place, or the nearest name for one that no row has.
    """
    comparisons: list[Predicate] = []
    python: list[str] = []
    expected, depth, opened = "name", 0, 0
    operands: list[str] = []
    for kind, word, at in _tokens(text):
        plain = word.lower() if kind in ("word", "bracket") else ""
        symbol = kind if kind in ("sign", "end") else _SYMBOLS.get(plain, "operand")
        depth += (plain == "(") - (plain == ")")
        reached = _NEXT.get((expected, symbol))
        if reached is None or depth < 0 or (reached == "end" and depth):
            wanted = "')'" if expected == "link" and depth > 0 else _EXPECTED[expected]
            raise _unreadable(text, at, f"found {word!r}" if word else "it ends", wanted)
        if symbol in ("operand", "sign"):
            operands.append(word)
        elif symbol != "end":
            python.append(plain)
        if expected == "value":
            name, sign, wanted = operands[-3:]
            python.append(str(len(comparisons)))
            comparisons.append(_comparison(name, sign, wanted, rows))
        opened = opened + 1 if symbol == "open" else 0
        if opened > _DEEPEST:
            raise UserError(_TOO_DEEP)
        expected = reached
    try:
        return _predicate(ast.parse(" ".join(python), mode="eval").body, comparisons)
    except (SyntaxError, RecursionError, MemoryError):
        raise UserError(_TOO_DEEP) from None


def _predicate(node: ast.expr, comparisons: Sequence[Predicate]) -> Predicate:
    match node:
        case ast.Constant(value=int(number)):
            return comparisons[number]
        case ast.UnaryOp(operand=operand):
            refused = _predicate(operand, comparisons)
            return lambda row: not refused(row)
        case ast.BoolOp(op=op, values=values):
            parts = [_predicate(each, comparisons) for each in values]
            join = all if isinstance(op, ast.And) else any
            return lambda row: join(part(row) for part in parts)
    raise TypeError(node)  # no filter that `parse` has read


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield (kind, text, place) of each word, sign and bracket, and an empty one for the end."""
    place = 0
    while text[place:].strip():
        found = _TOKEN.match(text, place)
        if found is None:
            at = place + len(text[place:]) - len(text[place:].lstrip())
            expected = "a name, a sign such as >=, or quotes that close"
            raise _unreadable(text, at, f"found {text[at]!r}", expected)
        kind = str(found.lastgroup)
        yield (
            kind,
            _ESCAPED.sub(r"\1", found[kind][1:-1]) if kind == "quoted" else found[kind],
            found.start(kind),
        )
        place = found.end()
    yield "end", "", len(text)


def _unreadable(text: str, at: int, found: str, expected: str) -> UserError:
    return UserError(
        f"The filter can't be read: {found} where {expected} should stand.\n  {text}\n  {' ' * at}^"
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


def _check(said: str, name: str, column: str, wanted: str, found: Sequence[Any]) -> None:
    """Refuse a value that no run could have: a status that doesn't exist, text where all have numbers."""
    flat = [each for one in found for each in (one if isinstance(one, list) else [one]) if each is not None]
    if column == "status":
        flat += [*get_args(Status), UNKNOWN, UNREADABLE]
    if column in ("status", "experiment", "tags") and wanted not in flat:
        known = sorted(set(flat))
        near = nearest(wanted, known, most=3)
        raise UserError(f"{said}: no such {name}.{near} There: {some(known, 6)}.")
    if flat and all(_alike(wanted, each) is None for each in flat):
        number = "a number" if isinstance(flat[0], int | float) else "a date"
        kind = "true or false" if isinstance(flat[0], bool) else number
        raise UserError(f"{said}: {name} is {kind}, {flat[0]} for instance.")


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
