"""Errors meant for people: what was found, what was expected, what to do."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's, or of the surroundings, that a sentence explains better than a traceback.

    The command line prints the message and exits with code 2; Jupyter shows the message alone.
    """

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """Give IPython the message in place of a traceback (its hook for exceptions that draw themselves)."""
        return [f"{type(self).__name__}: {self}"]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ' Did you mean X?' for the known name closest to `name`, or '' where none is close."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""
