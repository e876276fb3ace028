"""How a headless run ended: what its record says, and its exit code."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from jupyter_core.utils import ensure_event_loop

from trainlab import cleaning, paths, secrets, system
from trainlab.errors import UserError
from trainlab.run import grace
from trainlab.run.record import Status

MIB, GIB = 1 << 20, 1 << 30
RAISE = "raise JUPYTER_MEMORY in .env"
_RAISED = re.compile(r"^Traceback \(most recent call last\):\n(?:(?: .*)?\n)+(\S.*)", re.MULTILINE)


@dataclass(frozen=True)
class ExitStatus:
    """How a run ended, and the exit code that says so."""

    status: Status
    reason: str | None
    code: int


class MemoryWatch:
    """Knows whether the kernel has killed a process of this container for memory since the watch was made."""

    def __init__(self) -> None:
        self._before = system.oom_kills()

    @property
    def known(self) -> bool:
        """Whether such kills are counted here: where they are, a death without one had another cause."""
        return self._before is not None

    def kill(self) -> str | None:
        """Return 'killed at the memory limit of 600 MiB', or None where no kill is known of."""
        now = system.oom_kills()
        if self._before is None or now is None or now <= self._before:
            return None
        limit = system.memory_limit()
        return (
            f"killed at the memory limit of {_size(limit)}" if limit else "killed as the machine's was full"
        )


def memory_advice(limit: int, used: int) -> str:
    """Return what to do about a full memory: a smaller batch only where a process of the run took most of it.

    Args:
        limit: Bytes that all processes together may use.
        used: Bytes that the largest process of the run had at its peak.
    """
    if 2 * used >= limit:
        return f"take a smaller batch, or {RAISE}"
    return (
        f"no process of the run took more than {_size(used)}, so others did: end them, take fewer "
        f"num_workers, or {RAISE}"
    )


def from_signal(by: signal.Signals) -> ExitStatus:
    """Return the end of a run that somebody stopped."""
    return ExitStatus("interrupted", {signal.SIGINT: "Ctrl-C"}.get(by, by.name), 128 + by)


def from_error(error: dict[str, Any], memory: MemoryWatch) -> ExitStatus:
    """Return the end by an exception in a cell, given its name, text and traceback."""
    name, value = error["ename"], error["evalue"]
    if name == "KeyboardInterrupt":
        return from_signal(signal.SIGINT)
    if error.get("traceback") == [f"{name}: {value}"]:  # errors.UserError draws itself like this
        return ExitStatus("failed", value, UserError.exit_code)
    return _failed(f"{name}: {value}" if value else name, 1, memory)


def from_exit_code(code: int | None, memory: MemoryWatch, what: str = "the kernel") -> ExitStatus:
    """Return the end of a process that died, by its exit code: a signal where it is negative."""
    if code in (-signal.SIGTERM, -signal.SIGINT):
        return from_signal(signal.Signals(-code))
    reason = f"{what} died (exit code {code})"
    if code == -signal.SIGKILL and (kill := memory.kill()):
        # its peak is known as soon as its end was waited for
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        advice = memory_advice(system.memory_limit() or psutil.virtual_memory().total, used)
        reason = f"out of memory: {what} was {kill}; {advice}"
    elif code == -signal.SIGKILL:
        why = "not for memory" if memory.known else "mostly the machine's memory was full"
        reason = f"{what} died (signal 9): {why}"
    elif code is not None and code < 0:
        reason = f"{what} died (signal {-code}, {signal.Signals(-code).name})"
    return ExitStatus("failed", reason, 1)


def from_script(code: int, printed: str, memory: MemoryWatch) -> ExitStatus:
    """Return the end of a script, by its exit code and by the last that it printed."""
    if code == 0:
        return ExitStatus("finished", None, 0)
    if code < 0:
        return from_exit_code(code, memory, "the script")
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        return from_signal(signal.Signals(code - 128))
    if code == 1 and (raised := _RAISED.findall(printed)):
        return _failed(raised[-1], code, memory)
    last = printed.strip().splitlines()[-1:]
    return _failed(": ".join([f"exit code {code}", *last]), code, memory)


def _failed(reason: str, code: int, memory: MemoryWatch) -> ExitStatus:
    if kill := memory.kill():  # a data loader's worker, say, whose end was the exception
        reason = f"{reason} (out of memory: a process was {kill}; take fewer num_workers, or {RAISE})"
    return ExitStatus("failed", reason, code)


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


STOPS = (signal.SIGINT, signal.SIGTERM)
GRACE = 30.0  # seconds to end after a first signal, beside the running step and a save
HASTE = 3.0  # the same after a second one, which an engine sends when its own patience is over
SAVE_GLANCE = 0.2  # seconds between two looks at whether a save is running
TAIL = 1 << 16  # characters of a script's output, in which the reason of its end is looked for
TRACEBACK = "Traceback (most recent call last):\n"


class Screen:
    """Standard output, with our own lines kept apart from half lines that the code printed.

    Secrets are hidden. The output is the user's own, but may hold what others wrote, a title say: it is
    cleaned as `cleaning.Output` says, here and in the run's log; colours and progress bars stay.
    """

    def __init__(self) -> None:
        self.mid_line = False
        self.stream = secrets.Stream()
        self.output = cleaning.Output()

    def write(self, text: str) -> None:
        """Write what the code printed, at once."""
        self._put(self.stream.feed(self.output.feed(text)))

    def line(self, text: str) -> None:
        """Write a line of ours."""
        self._put(self.stream.rest())
        self.output = cleaning.Output()  # a sequence without an end would swallow the next cell's words
        clean = cleaning.Output().feed(text.rstrip("\n"))
        self._put(("\n" if self.mid_line else "") + secrets.without_secrets(clean) + "\n")

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self.mid_line = not text.endswith("\n") if text else self.mid_line


class Execution:
    """Somebody's running code, in a process group that never outlives this process, however that ends."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self.folder, self.screen = folder, screen
        self.loop = ensure_event_loop()  # the one that papermill uses
        self.memory = MemoryWatch()
        self.stopped_by: signal.Signals | None = None
        self.group: int | None = None
        self.sockets = ""  # a folder that goes with the processes, if any

    def run(self) -> ExitStatus:
        """Execute the code to its end and return how it ended; nothing that it started is left by then."""
        for each in STOPS:
            self.loop.add_signal_handler(each, self.stop, each)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # `trainlab run` had them blocked until here
        # The shell kills the group, and removes the sockets, once the other end of its pipe is closed: in
        # whatever way this process ends. A kernel's own check of its parent ends the kernel alone.
        with subprocess.Popen(
            ["sh", "-c", 'read -r group && { read -r _; kill -9 "-$group"; }; rm -rf "$0"', self.sockets],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as self.guard:
            status = self.execute()
        return from_signal(self.stopped_by) if self.stopped_by else status

    def execute(self) -> ExitStatus:
        """Start the processes, `entrust` their group, and wait for their end."""
        raise NotImplementedError

    def interrupt(self, by: signal.Signals) -> None:
        """Ask the code to end as by Ctrl-C, so that it closes its files."""
        raise NotImplementedError

    def entrust(self, group: int) -> None:
        """Let the guard know which process group must not outlive this process."""
        self.group = group
        assert self.guard.stdin is not None, "a pipe"
        self.guard.stdin.write(f"{group}\n".encode())
        self.guard.stdin.flush()

    def stop(self, by: signal.Signals) -> None:
        """Interrupt the code; insist later."""
        self.interrupt(by)
        seconds = HASTE if self.stopped_by else GRACE + grace.for_step(self.folder)
        self.stopped_by = self.stopped_by or by
        deadline = grace.Deadline(self.folder, seconds)

        def insist() -> None:
            if deadline.over():
                self.kill()
            else:
                self.loop.call_later(SAVE_GLANCE, insist)

        insist()

    def kill(self) -> None:
        """End all its processes at once."""
        if self.group is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, signal.SIGKILL)

    def environment(self, *left_out: str, **more: str) -> dict[str, str]:
        """Return the code's environment: no token, and `!pip` is this Python's."""
        kept = {k: v for k, v in os.environ.items() if k not in (*secrets.OF_SERVICES, *left_out)}
        own = str(Path(sys.executable).parent)  # not resolved: in a virtual environment it is a link
        kept["PATH"] = os.pathsep.join([own, os.environ.get("PATH", os.defpath)])
        if sys.prefix != sys.base_prefix:
            kept["VIRTUAL_ENV"] = sys.prefix  # which tools besides pip go by
        # threads that wait asleep: spinning ones cost runs side by side more than half of their speed
        ours = {"TRAINLAB_RUN": str(self.folder), "TRAINLAB_RUNNER": str(os.getpid())}
        # the code's working folder is another one, and without a checkout logs/ would be looked for there
        return {"OMP_WAIT_POLICY": "PASSIVE", "TRAINLAB_ROOT": str(paths.root())} | kept | ours | more


class Script(Execution):
    """A script or module, executed by this Python."""

    def __init__(self, folder: Path, screen: Screen, command: list[str], place: str) -> None:
        super().__init__(folder, screen)
        self.command, self.place = command, place
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.tail = self.held = ""

    def execute(self) -> ExitStatus:
        """Execute it, and show what it prints."""
        self.process = subprocess.Popen(
            self.command,
            cwd=self.place,
            env=self.environment(PYTHONUNBUFFERED="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.entrust(self.process.pid)
        assert self.process.stdout is not None, "a pipe"
        self.pipe = self.process.stdout.fileno()
        os.set_blocking(self.pipe, False)
        self.loop.add_reader(self.pipe, self.read)
        code = self.loop.run_until_complete(self.loop.run_in_executor(None, self.process.wait))
        self.loop.remove_reader(self.pipe)
        self.kill()  # what it has left running
        while self.read():
            pass
        interrupted = self.stopped_by and self.held.rstrip().endswith("KeyboardInterrupt")
        self.screen.write("" if interrupted else self.held)
        return from_script(code, self.tail, self.memory)

    def interrupt(self, by: signal.Signals) -> None:  # noqa: ARG002
        """Interrupt the script, not what it started: a data loader's workers end with it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def read(self) -> bool:
        """Show what there is to read; a traceback after a stop may be that stop's, and is kept back."""
        try:
            data = os.read(self.pipe, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self.loop.remove_reader(self.pipe)
        text = self.held + self.decoder.decode(data, final=not data)
        self.tail = (self.tail + text.removeprefix(self.held))[-TAIL:]
        shown, header, rest = text.partition(TRACEBACK) if self.stopped_by else (text, "", "")
        self.screen.write(shown)
        self.held = header + rest
        return bool(data)
