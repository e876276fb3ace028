"""How a block of code was left: by itself, by an error, or because somebody stopped it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from trainlab.runs.record import Status

_LONGEST_REASON = 2000  # characters


class Terminated(SystemExit):
    """SIGTERM arrived; uncaught, it ends the process with 143, as the signal itself would in a shell."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into `Terminated` inside the block, in the main thread, where nobody else handles it.

    A process that must not outlive the signal, a notebook's kernel, is ended by it after the block.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def handle(number: int, _: FrameType | None) -> None:
        if os.getpid() == owner:
            raise Terminated
        signal.signal(number, signal.SIG_DFL)  # a forked child: not its run
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    except Terminated:
        _restore(handle)
        if "ipykernel" in sys.modules:  # which would catch SystemExit and live on
            os.kill(os.getpid(), signal.SIGTERM)
        raise
    finally:
        _restore(handle)


def _restore(handle: object) -> None:
    if signal.getsignal(signal.SIGTERM) is handle:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def ending(error: BaseException | None) -> tuple[Status, str | None]:
    """Return a run's status and the reason for it, given the exception that left its block."""
    if error is None or (type(error) is SystemExit and error.code in (None, 0) and not _interrupted(error)):
        return "finished", None
    if isinstance(error, Terminated) or type(error).__name__ == "SIGTERMException":  # the latter: Lightning's
        return "interrupted", "SIGTERM"
    if _interrupted(error):
        return "interrupted", "KeyboardInterrupt"
    return "failed", describe(error)


def describe(error: BaseException) -> str:
    """Return 'ValueError: what went wrong', cut where it is very long."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")[:_LONGEST_REASON]


def _interrupted(error: BaseException) -> bool:
    """Tell whether Ctrl-C is behind it: Lightning answers KeyboardInterrupt with `sys.exit(1)`."""
    if isinstance(error, KeyboardInterrupt):
        return True
    return isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt)
