"""Processes that do one piece of work together: they end together too, and never outlive who started them."""

from __future__ import annotations

import ast
import ctypes
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
import types
import warnings
from contextlib import contextmanager, suppress
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trainlab.errors import UserError
from trainlab.run import grace
from trainlab.run.signals import LAST_WORD, PATIENCE, Terminated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

GLANCE = 0.5  # seconds between two looks at whether all processes are alive
HEARSAY = 1.0  # seconds in which processes fail because another one did
FAREWELL = 10.0  # seconds for a process to go when its work is done
SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
STOPS = {signal.SIGTERM, signal.SIGINT}
MAIN = "__main__"


class Team:
    """`count` new processes that each call a pickled function with their rank; a context manager.

    The first SIGTERM or Ctrl-C inside the block is handed on to the one of rank 0, and what it stands for is
    raised when that has ended; the second is raised at once. However the block is left, no process is; a
    checkpoint that the run in `folder` is writing by then is finished first.
    """

    def __init__(self, count: int, work: bytes, folder: Path) -> None:
        self._count, self._work, self._folder = count, work, folder
        self._processes: list[SpawnProcess] = []
        self._receivers: list[Connection] = []
        self._outcomes: dict[int, bytes] = {}
        self._failures: dict[int, BaseException] = {}  # what processes raised, the first first
        self._deaths: list[UserError] = []
        self._stopped_by: signal.Signals | None = None
        self._deadline: grace.Deadline | None = None

    def __enter__(self) -> Self:
        """Start the processes."""
        self._before = self._watch()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes that are left."""
        try:
            self._await_save()
        finally:
            for process in self._processes:
                if process.is_alive():
                    process.kill()
        for process in self._processes:
            process.join()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def outcome(self) -> bytes:
        """Wait for all processes; return what the one of rank 0 returned.

        Raises what the process raised that failed first; UserError where one was killed.
        """
        waiting = {receiver: rank for rank, receiver in enumerate(self._receivers)}
        while waiting and not self._is_over():
            said = set(connection.wait(list(waiting), GLANCE))
            dead = {each for each, rank in waiting.items() if not self._processes[rank].is_alive()}
            for receiver in said | dead:
                self._hear(waiting.pop(receiver))  # type: ignore[arg-type]
        if self._deaths or self._failures or self._stopped_by:
            self._fail()
        for process in self._processes:
            process.join(FAREWELL)
        return self._outcomes[0]

    def _hear(self, rank: int) -> None:
        receiver = self._receivers[rank]
        try:
            if not receiver.poll():  # a loader's worker may hold a dead process's end open
                raise EOFError
            failed, content = receiver.recv()
        except (EOFError, OSError):
            self._deaths.append(self._death(rank))
        else:
            if failed:
                self._failures[rank] = pickle.loads(content)
            else:
                self._outcomes[rank] = content
        if self._deaths or self._failures:
            self._deadline = grace.Deadline(self._folder, HEARSAY)

    def _is_over(self) -> bool:
        return self._deadline is not None and self._deadline.over()

    def _await_save(self) -> None:
        deadline = grace.Deadline(self._folder, 0.0)
        while self._processes and self._processes[0].is_alive() and not deadline.over():
            time.sleep(GLANCE / 10)

    def _fail(self) -> None:
        """Raise the stop, unless that failed; or a death, because of which others fail; or what was first."""
        if self._stopped_by is not None:
            if isinstance(failure := self._failures.get(0), Exception):
                raise failure
            raise Terminated if self._stopped_by == signal.SIGTERM else KeyboardInterrupt
        raise next(iter([*self._deaths, *self._failures.values()]))

    def _death(self, rank: int) -> UserError:
        process = self._processes[rank]
        process.join(FAREWELL)
        code = process.exitcode or 0
        how = f"was killed (signal {-code})" if code < 0 else f"ended (exit code {code})"
        return UserError(
            f"Process {rank} of {self._count} {how}, so the training ended. Mostly the memory was full: "
            "take a smaller batch or fewer devices. What was saved can be resumed."
        )

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        port = _free_port()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # handed down: a signal waits for the work
        try:
            with _main_for(self._work):
                for rank in range(self._count):
                    receiver, sender = context.Pipe(duplex=False)
                    arguments = (rank, port, os.getpid(), self._work, sender)
                    self._processes.append(context.Process(target=_take_part, args=arguments))
                    self._receivers.append(receiver)
                    self._processes[-1].start()
                    sender.close()  # so that its end is seen here when the process ends
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _watch(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        numbers = [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN]
        return {number: signal.signal(number, self._handle) for number in numbers}

    def _handle(self, number: int, _: types.FrameType | None) -> None:
        if self._stopped_by is not None:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        self._stopped_by = signal.Signals(number)
        seconds = PATIENCE + LAST_WORD + grace.for_step(self._folder)
        self._deadline = grace.Deadline(self._folder, seconds)
        self._hand_on()

    def _hand_on(self) -> None:
        """Tell process 0: it decides for all when to save and to end."""
        if self._processes and (first := self._processes[0].pid):
            with suppress(ProcessLookupError):
                os.kill(first, self._stopped_by or signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def pickled(work: Any) -> bytes:
    """Return a function and what belongs to it as bytes; raise UserError where something can't be sent."""
    try:
        return pickle.dumps(work)
    except Exception as error:  # PicklingError, AttributeError, TypeError ...: each class has its own
        raise UserError(
            f"This can't be sent to another process: {error}. For several devices model, data and callbacks "
            "must be picklable: no lambda, no class or function that is defined inside a function."
        ) from error


def _take_part(rank: int, port: int, parent: int, work: bytes, sender: Connection) -> None:
    """Do one process's share, and tell the parent how it ended."""
    _end_with(parent)
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # no word on host names that a container lacks
    if rank:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - until the process ends
        warnings.simplefilter("ignore")
    else:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        function = pickle.loads(work)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        sender.send((False, function(rank)))
    except BaseException as error:
        sender.send((True, _portable(error, rank)))


def _end_with(parent: int) -> None:
    """Take signals from the parent alone, and let the kernel kill this process when the parent is gone."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _portable(error: BaseException, rank: int) -> bytes:
    """Return an exception as bytes, with where it came from; one that can't travel becomes a RuntimeError."""
    if isinstance(error, SystemExit):
        error = SystemExit(error.code)  # Terminated can't travel
    error.add_note(f"In process {rank}:\n{''.join(traceback.format_exception(error))}")
    try:
        pickle.loads(content := pickle.dumps(error))
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return content


@contextmanager
def _main_for(work: bytes) -> Iterator[None]:
    """Let new processes read the caller's script only where the work needs what is defined in it.

    Raises UserError where that is in a notebook, or in a script that would start all over when read.
    """
    main = sys.modules[MAIN]
    if MAIN.encode() in work:
        _check_main(getattr(main, "__file__", None))
        yield
        return
    sys.modules[MAIN] = types.ModuleType(MAIN)
    try:
        yield
    finally:
        sys.modules[MAIN] = main


def _check_main(file: str | None) -> None:
    if file is None:
        raise UserError(
            "For several devices, classes and functions must be in a file that other processes can import: "
            "move what this notebook defines into a module, and import it from there."
        )
    statements = ast.parse(Path(file).read_bytes()).body
    if not any(isinstance(each, ast.If) and "__name__" in ast.unparse(each.test) for each in statements):
        raise UserError(
            f"For several devices, other processes read {file} too, and would start over. Put what it does "
            'under `if __name__ == "__main__":`, or what it defines into a module of its own.'
        )
