"""What a sweep may vary, as people write it, and its check through the program's own settings.

`margin=1,3,5` is a list, `margin=1..9`, `learning_rate=1e-5..1e-3:log` and `margin=1..9:2` are ranges. Any
other word is a setting that all trials share.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from trainlab import extras, literals, secrets
from trainlab.cleaning import printable
from trainlab.config import no_secret
from trainlab.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from optuna.distributions import BaseDistribution

LARGEST_GRID = 100_000  # combinations
EXACT = 1 << 53  # whole numbers up to that are told apart by a search, whose numbers are floats
LONGEST = 300  # digits of a whole number: one of more is no float, and JSON's readers refuse it
DEEPEST = 3  # lists within lists of one value
_NUMBER = r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::(.*))?")
_HALF = re.compile(rf"\s*{_NUMBER}\s*(?:\.\.|…).*|\s*(?:\.\.|…)\s*{_NUMBER}\s*(?::.*)?")  # or badly written
_LIST = re.compile(r"(?<!\\),")  # `\,` is a comma of the value
_SCALARS = (bool, int, float, str, type(None))  # what Optuna keeps as it is


@dataclass(frozen=True)
class Choice:
    """One of these values; plain ones, or lists of them."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """Any number from low to high, both included; whole ones where both are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole ones."""
        return isinstance(self.low, int)

    @property
    def last(self) -> float:
        """The highest number that it has: steps may pass by `high`."""
        if self.step is None:
            return self.high
        low, high, step = (Decimal(str(each)) for each in (self.low, self.high, self.step))
        return type(self.high)(low + (high - low) // step * step)


Space = dict[str, Choice | Range]


def parse(words: Iterable[str]) -> tuple[Space, dict[str, str]]:
    r"""Return what the command line's words vary, and the settings that they fix.

    A value that holds a comma is written with `\,`. Raises UserError for a word that can't be read, a key
    given twice, or a secret.
    """
    space: Space = {}
    fixed: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(
                f"{word!r} is neither a setting nor something to vary. Expected key=value, a list such as "
                "margin=1,3,5 or a range such as margin=1..9."
            )
        check_key(key)
        if secrets.is_secret(key, value):
            raise UserError(no_secret(key))
        if key in space or key in fixed:
            raise UserError(f"{key} is given twice. Give it once: a list (a,b), a range (a..b) or one value.")
        texts = [each.replace("\\,", ",") for each in _LIST.split(value)]
        if len(texts) > 1:
            space[key] = _choice(key, texts, word)
        elif match := _RANGE.fullmatch(value):
            space[key] = _range(key, *match.groups())
        elif _HALF.fullmatch(value):
            raise UserError(_no_range(word, key))
        else:
            fixed[key] = texts[0]
    return space, fixed


def check_key(key: str) -> None:
    """Raise UserError where a setting's name would not come through a command line as it is."""
    if not key or key.startswith("-") or "=" in key or not key.isprintable() or key != "".join(key.split()):
        raise UserError(f"{printable(key)!r} names no setting. Expected a name such as margin.")


def from_table(table: Mapping[str, Any]) -> Space:
    """Return the space that a file describes: lists, and tables with low, high, log and step.

    Raises UserError for anything else; the file may come from elsewhere.
    """
    space: Space = {}
    for key, given in table.items():
        check_key(key)
        if secrets.is_secret(key, "a value"):
            raise UserError(no_secret(key))
        shown = printable(key)
        if isinstance(given, list):
            space[key] = _checked_choice(shown, given)
        elif isinstance(given, Mapping):
            known = ("low", "high", "log", "step")
            for name in given:
                if name not in known:
                    raise UserError(
                        f"{shown}: a range has no {printable(str(name))!r}.{nearest(str(name), known)} "
                        "Expected {low = 1, high = 9}, and log = true or step = 2."
                    )
            if not {"low", "high"} <= given.keys():
                raise UserError(f"{shown}: a range has low and high, such as {{low = 1, high = 9}}.")
            if not isinstance(given.get("log", False), bool):
                raise UserError(f"{shown}: log is true or false, and not {_shown(given['log'])}.")
            space[key] = _checked_range(
                shown, given["low"], given["high"], given.get("log", False), given.get("step")
            )
        else:
            raise UserError(
                f"{shown}={_shown(given)}: to vary it takes a list, [1, 3, 5], or a range, "
                "{low = 1, high = 9}. One value belongs under fixed."
            )
    return space


def to_table(space: Mapping[str, Choice | Range]) -> dict[str, Any]:
    """Return the space as JSON and TOML have it; `from_table` reads it again."""
    table: dict[str, Any] = {}
    for key, each in space.items():
        if isinstance(each, Choice):
            table[key] = list(each.values)
        else:
            table[key] = {"low": each.low, "high": each.high}
            table[key] |= {"log": True} if each.log else {}
            table[key] |= {"step": each.step} if each.step is not None else {}
    return table


def distribution(each: Choice | Range) -> BaseDistribution:
    """Return what Optuna samples from; of a choice that it can't keep it is the index."""
    extras.need("optuna", "A sweep")
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(each, Choice):
        return CategoricalDistribution(range(len(each.values)) if _by_index(each) else each.values)
    if each.whole:
        step = 1 if each.step is None else int(each.step)
        return IntDistribution(int(each.low), int(each.last), log=each.log, step=step)
    return FloatDistribution(each.low, each.last, log=each.log, step=each.step)


def text(value: Any) -> str:
    """Return a value as the command line has it in `key=value`: text as it is, others as Python does."""
    return value if isinstance(value, str) else literals.written(value)


def combinations(space: Mapping[str, Choice | Range]) -> list[dict[str, Any]] | None:
    """Return the grid: every combination of the choices. None where there is a range.

    Raises UserError for more of them than anybody can train.
    """
    choices = [each.values for each in space.values() if isinstance(each, Choice)]
    if len(choices) < len(space):
        return None
    if (count := math.prod(map(len, choices))) > LARGEST_GRID:
        raise UserError(
            f"{count:,} combinations, more than a grid may have ({LARGEST_GRID:,}). Shorten the lists, or "
            "draw some of them: --method random --trials 100."
        )
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*choices)]


def points(each: Choice | Range, most: int = 1000) -> Iterator[Any]:
    """Yield what is checked before a sweep starts: each choice, both ends, up to `most` whole numbers."""
    if isinstance(each, Choice):
        yield from each.values
        return
    yield each.low
    yield each.last
    if each.whole and not each.log:
        step = 1 if each.step is None else int(each.step)
        between = range(int(each.low) + step, int(each.last), step)
        yield from between if len(between) <= most else ()


def _choice(key: str, texts: list[str], word: str) -> Choice:
    for each in texts:
        if not each.strip():
            raise UserError(
                f"{word}: an empty value in a list. Leave the comma out, or name the values in a file."
            )
        if any(each.count(opening) != each.count(closing) for opening, closing in ("()", "[]", "{}")):
            raise UserError(
                rf"{word}: a comma separates the values of a list. Write one inside of a value as '\,', such "
                rf"as '{key}=(3\,4),(5\,6)', or name the values in a file."
            )
        if _HALF.fullmatch(each) and not _RANGE.fullmatch(each):
            raise UserError(_no_range(word, key))
        if _RANGE.fullmatch(each):
            raise UserError(
                f"{word}: a range inside of a list. Give {key} either a list or a range: {key}=1,3,5 or "
                f"{key}={each}."
            )
    # a number that would be written in the same way; any other text waits for the setting's type
    read = [(literals.read(each), each) for each in texts]
    return _checked_choice(key, [value if str(value) == each else each for value, each in read])


def _checked_choice(key: str, values: list[Any]) -> Choice:
    if not values:
        raise UserError(f"{key}: an empty list leaves nothing to try. Expected values such as 1,3,5.")
    for place, value in enumerate(values):
        _check_plain(key, value)
        if any(type(value) is type(other) and value == other for other in values[:place]):
            raise UserError(f"{key}: the value {text(value)} stands twice in the list. Name it once.")
    return Choice(tuple(values))


def _check_plain(key: str, value: Any, depth: int = 0) -> None:
    if isinstance(value, list) and depth < DEEPEST:
        for each in value:
            _check_plain(key, each, depth + 1)
    elif type(value) not in _SCALARS or (isinstance(value, int | float) and not _is_finite(value)):
        raise UserError(
            f"{key}: {_shown(value)} can't be tried. Expected text, a finite number, true, false or "
            "a list of these."
        )


def _range(key: str, low: str, high: str, how: str | None) -> Range:
    step = None
    if how not in (None, "log"):
        if not re.fullmatch(_NUMBER, how or ""):
            more = nearest(how or "", ["log"])
            also = " A range has either log or a step." if "log" in (how or "").split(":") else more
            raise UserError(
                f"{key}={low}..{high}:{how}: behind a range's colon stands log, or a step, such as "
                f"{key}={low}..{high}:2.{also}"
            )
        step = _number(how or "")
    return _checked_range(key, _number(low), _number(high), how == "log", step)


def _number(written: str) -> float:
    return float(written) if re.search(r"[.eE]", written) or len(written) > LONGEST else int(written)


def _is_finite(number: float) -> bool:
    return abs(number) < 10**LONGEST if isinstance(number, int) else math.isfinite(number)


def _shown(value: Any) -> str:
    """Return a value for people, whatever it is: numbers may have more digits than Python prints."""
    try:
        return printable(str(value))[:100]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} of that size"


def _no_range(word: str, key: str) -> str:
    return (
        f"{word}: a range has two ends with two dots between, such as {key}=0.1..0.5. If it is text, name "
        "it in a file, under fixed."
    )


def _check_end(key: str, name: str, each: Any) -> None:
    if type(each) not in (int, float) or not _is_finite(each):
        raise UserError(f"{key}: {name} is {_shown(each)}. Expected a finite number.")
    if type(each) is int and abs(each) > EXACT:
        raise UserError(
            f"{key}: {name} is {_shown(each)}. A search can't tell whole numbers beyond 2^53 apart. Expected "
            f"smaller ones, or numbers with a point, such as {float(each)}."
        )


def _checked_range(key: str, low: Any, high: Any, log: bool, step: Any) -> Range:
    for name, each in {"low": low, "high": high, "step": step}.items():
        if each is None and name == "step":
            continue
        _check_end(key, name, each)
    written = f"{key}={low}..{high}"
    if low == high:
        raise UserError(f"{written}: both ends are equal. One value is written {key}={low}.")
    if low > high:
        raise UserError(f"{written}: the low end is above the high one. Expected {key}={high}..{low}.")
    if log and step is not None:
        raise UserError(f"{written}: log and a step exclude each other. Leave one of them out.")
    if log and low <= 0:
        raise UserError(f"{written}:log: a logarithmic range begins above 0, and not at {low}.")
    if step is not None and step <= 0:
        raise UserError(f"{written}:{step}: a step is above 0.")
    if step is not None and step > high - low:
        raise UserError(f"{written}:{step}: the step is larger than the whole range, {high - low}.")
    if not math.isfinite(high - low):
        raise UserError(f"{written}: the range is wider than a number can be. Expected smaller ends.")
    if step is not None and (high - low) / step > EXACT:
        raise UserError(f"{written}:{step}: more steps than can be counted. Expected a larger step.")
    if not all(isinstance(each, int) for each in (low, high, 1 if step is None else step)):
        low, high, step = float(low), float(high), None if step is None else float(step)
    return Range(low, high, log, step)


def _by_index(choice: Choice) -> bool:
    """Tell whether Optuna can't tell these values apart, or not keep them: it finds 1 and True equal."""
    plain = all(type(each) in _SCALARS for each in choice.values)
    return not plain or len(set(choice.values)) < len(choice.values)
