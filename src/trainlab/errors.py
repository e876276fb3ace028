"""Errors meant for people: what was found, what was expected, what to do."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import TracebackType


class UserError(Exception):
    """A mistake of the user's, or of the surroundings, that a sentence explains better than a traceback.

    The command line prints the message and exits with code 2; Jupyter shows the message alone.
    """

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """Give IPython the message in place of a traceback (its hook for exceptions that draw themselves)."""
        return [f"{type(self).__name__}: {self}"]


def nearest(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return ' Did you mean X?' for the known name closest to `name`, or '' where none is close.

    With `most` the next ones follow: ' Did you mean X? Or Y, Z?'.
    """
    matches = get_close_matches(name, list(dict.fromkeys(known)), n=most, cutoff=0.5)
    if not matches:
        return ""
    first, *others = matches
    return f" Did you mean {first!r}?" + (f" Or {', '.join(map(repr, others))}?" if others else "")


def some(names: Iterable[str], most: int = 5) -> str:
    """Return the first of many names, and how many there are besides: 'a, b and 3 more'."""
    known = list(names)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return (", ".join(known[:most]) + more) or "none"


def unwritable(place: Path, error: OSError) -> str:
    """Return what to say where the disk refuses to take something."""
    whole = place.absolute()
    there = next(each for each in (whole, *whole.parents) if os.path.exists(each))  # noqa: PTH110 - never raises
    return (
        f"{place} can't be written: {error.strerror or error}. Free some space or correct the folder's "
        f"owner, then start again: df {there}; ls -ld {there}"
    )


def without_traceback(error: BaseException, *, silent: bool = False) -> None:
    """Let a script or cell that this exception ends show its message alone, nothing where it is `silent`."""
    text = "" if silent else f"error: {error}"
    error.__dict__[_TEXT] = text
    if not hasattr(error, "_render_traceback_"):  # IPython's hook
        error.__dict__["_render_traceback_"] = lambda: [text or type(error).__name__]
    if sys.excepthook is not _show:
        _hooks.append(sys.excepthook)
        sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = error.__dict__.get(_TEXT)
    if isinstance(error, KeyboardInterrupt) and error.__context__ is not None:  # a second one, meanwhile
        text = error.__context__.__dict__.get(_TEXT, text)
    if text is None:
        _hooks[-1](kind, error, trace)
    elif text:
        print(text, file=sys.stderr)


_TEXT = "_trainlab_text"  # of an exception: what is shown in place of its traceback
_hooks: list[Callable[..., object]] = []  # `sys.excepthook` as it was before, the last one
