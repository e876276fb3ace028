"""How a block of code was left: by itself, by an error, or because somebody stopped it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


_LONGEST_REASON = 2000  # characters
# A first signal asks: the current step is finished and saved. A second one, which an engine sends when
# its own patience is over, ends the process at once. Nothing cuts a save that has begun.
SHORT_STEP = 2.0  # seconds: whoever stops a run waits longer than for such a step anyway
PATIENCE = 20.0  # seconds for the work at hand after a first signal, beside twice the longest step so far
STOPS = (signal.SIGTERM, signal.SIGINT)


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
        kernels = sys.modules.get("ipykernel.kernelapp")
        if kernels is not None and kernels.IPKernelApp.initialized():  # it would catch SystemExit and live on
            os.kill(os.getpid(), signal.SIGTERM)
        raise
    finally:
        _restore(handle)


def _restore(handle: object) -> None:
    if signal.getsignal(signal.SIGTERM) is handle:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Deferral:
    """SIGTERM and SIGINT inside `deferred()`: the first is kept for `stop`, the second raises at once.

    `at_once` makes the first raise too, while nothing is at hand that must be finished. `longest_step`, in
    seconds, is the longest so far.
    """

    def __init__(self, patience: float) -> None:
        self.requested: signal.Signals | None = None
        self.at_once = False
        self.longest_step = 0.0
        self._patience = patience
        self.answered = threading.Event()

    def handle(self, number: int) -> None:
        """Answer a signal."""
        again, self.requested = self.requested is not None, signal.Signals(number)
        if again or self.at_once:
            self.stop()
        threading.Thread(target=self._insist, daemon=True).start()

    def stop(self) -> None:
        """Raise what the signal stands for, if there was one."""
        if self.requested is not None:
            self.answered.set()
            raise Terminated if self.requested == signal.SIGTERM else KeyboardInterrupt

    def stop_by(self, requested: signal.Signals | None) -> None:
        """Raise what a signal stands for that was seen before, here or in another process."""
        if requested is not None:
            self.requested = requested
            self.stop()

    def took(self, seconds: float, write: Callable[..., object]) -> None:
        """Keep how long a step took, if none was longer; `write` puts it into run.json for who stops it."""
        if seconds > max(SHORT_STEP, 1.2 * self.longest_step):
            self.longest_step = seconds
            write(longest_step=round(seconds, 1))

    def _insist(self) -> None:
        """Send the signal again when patience is over, which also ends a blocking call of the main thread."""
        patience = self._patience + 2 * self.longest_step
        if not self.answered.wait(patience) and self.requested is not None:
            signal.pthread_kill(threading.main_thread().ident or 0, self.requested)


@contextmanager
def deferred(patience: float = PATIENCE) -> Iterator[Deferral]:
    """Keep the first SIGTERM or SIGINT inside the block until its code calls `stop`, or the block ends.

    After `patience` seconds and twice the longest step, or by a second signal, `Terminated` or
    KeyboardInterrupt is raised wherever the code is, once it is in Python. Outside the main thread nothing is
    deferred; what is ignored stays so.
    """
    deferral = Deferral(patience)
    try:
        with handled_by(deferral.handle):
            yield deferral
    finally:
        deferral.answered.set()  # lets the impatient thread go
    deferral.stop()


@contextmanager
def held() -> Iterator[None]:
    """Keep every SIGTERM and SIGINT back until the block is left: what is being written is finished.

    Then each is handled as it would have been. Outside the main thread, where none arrives, nothing is held.
    """
    arrived: list[int] = []
    try:
        with handled_by(arrived.append):
            yield
    finally:
        for number in arrived:
            signal.raise_signal(number)


@contextmanager
def handled_by(handler: Callable[[int], None]) -> Iterator[None]:
    """Give the main thread's SIGTERM and SIGINT inside the block to a handler; what is ignored stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def handle(number: int, _: FrameType | None) -> None:
        if os.getpid() == owner:
            handler(number)
        elif number != signal.SIGINT:  # Ctrl-C reaches a forked data loader's workers, too: their owner's
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    handled = [each for each in STOPS if signal.getsignal(each) not in (signal.SIG_IGN, None)]
    before = {each: signal.signal(each, handle) for each in handled}
    try:
        yield
    finally:
        for each, known in before.items():
            signal.signal(each, known)


def ending(error: BaseException | None) -> tuple[Literal["finished", "failed", "interrupted"], str | None]:
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
