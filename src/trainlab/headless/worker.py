"""Executes a prepared run's notebook: `python -m trainlab.headless.worker FOLDER`.

A process in a session of its own, so that it outlives the terminal and the browser. What the cells print
goes to its standard output as it comes (the run's `output.log`); the notebook is saved as it fills.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from trainlab.headless import notebook as document  # first: it makes the import of nbclient a quick one

# isort: split
import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError, DeadKernelError

from trainlab import secrets
from trainlab.errors import UserError
from trainlab.headless import ends
from trainlab.headless.client import Client, Screen
from trainlab.headless.ends import End
from trainlab.run import death, grace, record, stop
from trainlab.run.recorder import unwritable

if TYPE_CHECKING:
    from nbformat import NotebookNode

SAVE_EVERY = 3.0  # seconds: the most that a power failure costs of a long cell's output
STOPS = (signal.SIGINT, signal.SIGTERM)
GRACE = 30.0  # seconds a cell gets to end after a first signal, beside the step at work and a save
HASTE = 3.0  # the same after a second one, which an engine sends when its own patience is over
SAVE_GLANCE = 0.2  # seconds between two looks at whether a save is at work
SOCKETS = "trainlab-"  # how a worker's folder for them begins, in the folder of temporary files
SHUTDOWN = 2.0  # seconds for the kernel's own exit handlers
HASTY_SHUTDOWN = 1.0  # the same after SIGTERM
NO_HISTORY = "--HistoryManager.hist_file=:memory:"  # the user's own is what they typed, as nbclient has it
NO_WIDGETS = "ignore:IProgress not found"
_LEFT_OUT = ("JUPYTER_TOKEN", "MPLBACKEND", "JPY_SESSION_NAME")  # the last names another notebook, if any


class OwnInterpreter(KernelSpecManager):
    """Knows one kernel: this very interpreter, whatever else the user has installed under the same name."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:  # noqa: ARG002
        """Return the kernel of sys.executable."""
        return KernelSpec(**get_kernel_dict())


class Execution:
    """One pass through a notebook, cell by cell, in a kernel that never outlives this process."""

    def __init__(self, folder: Path, notebook: NotebookNode, kernel_folder: Path, screen: Screen) -> None:
        self.folder, self.notebook, self.kernel_folder = folder, notebook, kernel_folder
        sweep()
        # short: a socket's path has 107 bytes; with this process's number, so that `sweep` knows whose it is
        self.sockets = tempfile.mkdtemp(prefix=f"{SOCKETS}{os.getpid()}-")
        self.kernel = AsyncKernelManager(
            kernel_spec_manager=OwnInterpreter(),
            transport="ipc",  # this user's alone; ports that runs side by side pick would clash
            connection_file=str(Path(self.sockets, "kernel.json")),
            shutdown_wait_time=SHUTDOWN,
        )
        self.client = Client(notebook, screen, self.kernel)
        self.stopped_by: signal.Signals | None = None
        self.exit_code: int | None = None
        self.memory = ends.MemoryWatch()
        self.saved = b""

    async def run(self) -> End:
        """Execute every cell and say how it ended; by then the notebook is saved and the kernel gone."""
        loop = asyncio.get_running_loop()
        for each in STOPS:
            loop.add_signal_handler(each, self._stop, each)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # `trainlab run` had them blocked until here
        saver = asyncio.ensure_future(self._save_now_and_then())
        with contextlib.suppress(OSError):  # a full disk may have room again
            self.save()
        try:
            await self._execute()
            end = End("finished", None, 0)
        except (CellExecutionError, DeadKernelError, RuntimeError) as error:
            end = self._failure(error)
        finally:
            saver.cancel()
            self.save()
        return ends.by_signal(self.stopped_by) if self.stopped_by else end

    def save(self) -> None:
        """Write the notebook as it stands, less its secrets, into the run's folder, in one step."""
        shown = nbformat.from_dict(secrets.hidden(self.notebook, by_name=False))
        self.saved = document.write(self.folder, shown, unless=self.saved)

    async def _execute(self) -> None:
        guard = _guard(self.sockets)
        try:
            await self.kernel.start_kernel(
                env=self._environment(), cwd=str(self.kernel_folder), extra_arguments=[NO_HISTORY]
            )
            _entrust(guard, self._group())
            await self.client.async_start_new_kernel_client()
            await self._cells()
        finally:
            await self._close()
            guard.communicate()

    async def _cells(self) -> None:
        for index, cell in enumerate(self.notebook.cells):
            if self.stopped_by:
                return
            await self.client.async_execute_cell(cell, index)
            self.save()
            if any(each.get("source") == "ask_exit" for each in self.client.reply.get("payload", [])):
                raise RuntimeError(f"SystemExit: cell {self.client.cell} asked the kernel to quit")
        if self.client.done != self.client.total:
            raise RuntimeError(f"only {self.client.done} of {self.client.total} cells ran")

    async def _close(self) -> None:
        self.exit_code = await self.kernel.provisioner.poll() if self.kernel.provisioner else None
        if self.client.kc is not None:
            self.client.kc.stop_channels()
        if self.kernel.has_kernel and self.exit_code is None:
            await self.kernel.shutdown_kernel()
        await self.kernel.cleanup_resources()

    def _group(self) -> int:
        """Return the process group of the kernel and of what it started."""
        return self.kernel.provisioner.pgid  # type: ignore[union-attr]

    def _environment(self) -> dict[str, str]:
        """Return the kernel's environment: no token, pictures into the notebook, `!pip` is this Python's."""
        kept = {k: v for k, v in os.environ.items() if k not in _LEFT_OUT}
        own = str(Path(sys.executable).parent)  # not resolved: in a virtual environment it is a link
        kept["PATH"] = os.pathsep.join([own, os.environ.get("PATH", os.defpath)])
        # bars are plain text: without widgets, which no image has, tqdm would warn of that in red
        kept["PYTHONWARNINGS"] = ",".join(filter(None, [kept.get("PYTHONWARNINGS"), NO_WIDGETS]))
        # threads that wait asleep: spinning ones cost runs side by side more than half of their speed
        return {"OMP_WAIT_POLICY": "PASSIVE"} | kept | {"TRAINLAB_RUN": str(self.folder)}

    def _stop(self, by: signal.Signals) -> None:
        """Let the cell at work end by KeyboardInterrupt, so that it closes its files; insist later."""
        if self.client.kc is None:
            self._kill_kernel()
        else:
            self.client.stopping = True
            if self.kernel.has_kernel:
                self.interruption = asyncio.ensure_future(self.kernel.interrupt_kernel())
            seconds = HASTE if self.stopped_by else GRACE + grace.for_step(self.folder)
            self._kill_after(grace.Deadline(self.folder, seconds))
        if by == signal.SIGTERM:
            self.kernel.shutdown_wait_time = HASTY_SHUTDOWN
        self.stopped_by = self.stopped_by or by

    def _kill_after(self, deadline: grace.Deadline) -> None:
        if deadline.over():
            self._kill_kernel()
        else:
            asyncio.get_running_loop().call_later(SAVE_GLANCE, self._kill_after, deadline)

    def _kill_kernel(self) -> None:
        if self.kernel.has_kernel:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group(), signal.SIGKILL)

    async def _save_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY)
            with contextlib.suppress(OSError):  # a full disk may have room again; the last save speaks up
                self.save()

    def _failure(self, error: Exception) -> End:
        if isinstance(error, CellExecutionError):
            return ends.by_error(self.client.failure, self.memory)
        if isinstance(error, DeadKernelError):
            return ends.by_death(self.exit_code, self.memory)
        return End("failed", str(error), 1)


def sweep() -> None:
    """Remove the sockets of workers that were killed together with their guards."""
    for path in Path(tempfile.gettempdir()).glob(f"{SOCKETS}*-*"):
        owner = path.name.removeprefix(SOCKETS).partition("-")[0]
        with contextlib.suppress(OSError):
            ours = path.lstat().st_uid == os.getuid() and owner.isdigit()
            if ours and _is_gone(owner):
                shutil.rmtree(path)  # refuses a link


def _is_gone(process: str) -> bool:
    """Tell whether a process has ended, also where nobody has asked for its exit code yet (a zombie)."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _guard(sockets: str) -> subprocess.Popen[bytes]:
    """Start a shell that, once this process is gone in whatever way, kills the process group entrusted to it.

    The kernel's own check of its parent ends the kernel, not what the kernel started.
    """
    return subprocess.Popen(
        ["sh", "-c", 'read -r group && { read -r _; kill -9 "-$group"; }; rm -rf "$0"', sockets],
        stdin=subprocess.PIPE,  # its other end closes with this process
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _entrust(guard: subprocess.Popen[bytes], group: int) -> None:
    assert guard.stdin is not None, "a pipe"
    guard.stdin.write(f"{group}\n".encode())
    guard.stdin.flush()


def main(folder: Path) -> int:
    """Execute the notebook in `folder`, write how the run ended, and return the exit code."""
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    death.outlive()
    started, before = time.monotonic(), 0.0
    screen = Screen()
    try:
        notebook = document.read(folder / document.FILE)
        for cell in notebook.cells:
            secrets.remember(secrets.named_in(cell.source))
        known = record.update(folder, pid=os.getpid())
        before = known.resumes[-1].seconds if known.resumes else 0.0
        kernel_folder = Path(known.model_dump()["notebook"]).parent
        end = asyncio.run(Execution(folder, notebook, kernel_folder, screen).run())
    except (OSError, UserError) as error:
        end = End("failed", unwritable(folder, error), 1)
    except Exception as error:  # the record is to show it all the same
        screen.line(traceback.format_exc())
        end = End("failed", f"{type(error).__name__}: {error}", 1)
    seconds = time.monotonic() - started  # by a clock that nobody sets
    screen.line(_last_line(folder, end, seconds))
    try:
        record.end(folder, end.status, end.reason, seconds=round(before + seconds, 3))
    except (OSError, UserError) as error:
        screen.line(f"How the run ended could not be written: {unwritable(folder, error)}")
    return end.code


def _last_line(folder: Path, end: End, seconds: float) -> str:
    """Return how a run ended, in words; a mistake of the user's is told by whoever watches."""
    after = f"{end.status} after {seconds:.0f} s"
    if end.status == "interrupted":
        return f"{after} by {end.reason}: {stop.outcome(folder)}"
    return f"{after}: {end.reason}" if end.reason and end.code != UserError.exit_code else after


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
