"""A function in a process of its own, for a server: its memory goes with it, and it can be ended.

Whoever asks a server for what takes long, or sends it what makes a library take for ever, keeps nobody else
waiting: the process has its time, and ends.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")
PATIENCE = 90  # seconds: importance of 50 settings on a busy machine
ONE = threading.Lock()  # at a time: each takes a core


def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what a function of a module gives; its arguments and its value must be such as pickle takes.

    Raises UserError where it has raised one, has taken too long, or has died.
    """
    try:
        with ONE:
            done = subprocess.run(
                [sys.executable, "-m", __name__],
                input=pickle.dumps((function, args, kwargs)),
                stdout=subprocess.PIPE,
                timeout=PATIENCE,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise UserError(f"It took more than {PATIENCE} seconds, and was ended.") from None
    if done.returncode:
        raise UserError(
            f"It could not be computed (exit code {done.returncode}): the log of the board says why."
        )
    value: Any = pickle.loads(done.stdout)  # our own process has written it
    if isinstance(value, UserError):
        raise value
    return value


def _answer() -> None:
    """Compute what standard input says; whatever is printed goes to standard error."""
    function, args, kwargs = pickle.load(sys.stdin.buffer)
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        try:
            value = function(*args, **kwargs)
        except UserError as error:
            value = error
        pickle.dump(value, out)


if __name__ == "__main__":
    _answer()
