"""Executes a prepared run's notebook: `python -m trainlab.runs.worker FOLDER`.

A process in a session of its own, so that it outlives the terminal and the browser. What the cells print
goes to its standard output as it comes (the run's `output.log`); the notebook is saved as it fills.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from trainlab.runs import document  # first: it makes the import of nbclient a quick one

# isort: split
import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError, DeadKernelError

from trainlab.errors import UserError
from trainlab.runs import ends, record, secrets
from trainlab.runs.client import Client, Screen
from trainlab.runs.ends import End

if TYPE_CHECKING:
    from nbformat import NotebookNode

SAVE_EVERY = 3.0  # seconds: the most that a power failure costs of a long cell's output
GRACE = {  # seconds a cell gets to end
    signal.SIGINT: 30.0,
    signal.SIGTERM: 8.0,  # a step, and the checkpoint behind it; a stop takes ten in all
}
SHUTDOWN = 2.0  # seconds for the kernel's own exit handlers
HASTY_SHUTDOWN = 1.0  # the same after SIGTERM


class OwnInterpreter(KernelSpecManager):
    """Knows one kernel: this very interpreter, whatever else the user has installed under the same name."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:  # noqa: ARG002
        """Return the kernel of sys.executable."""
        return KernelSpec(**get_kernel_dict())


class Execution:
    """One pass through a notebook, cell by cell, in a kernel that never outlives this process."""

    def __init__(self, folder: Path, notebook: NotebookNode, kernel_folder: Path, screen: Screen) -> None:
        self.folder, self.notebook, self.kernel_folder = folder, notebook, kernel_folder
        self.sockets = tempfile.mkdtemp(prefix="trainlab-")  # short: a socket's path has 107 bytes
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
        for each in GRACE:
            loop.add_signal_handler(each, self._stop, each)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, GRACE)  # `trainlab run` had them blocked until here
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
        guard = None
        try:
            await self.kernel.start_kernel(env=self._environment(), cwd=str(self.kernel_folder))
            guard = _guard(self._group(), self.sockets)
            await self.client.async_start_new_kernel_client()
            await self._cells()
        finally:
            await self._close()
            if guard:
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
        """Return the kernel's environment: no token, and pictures go into the notebook."""
        kept = {k: v for k, v in os.environ.items() if k not in ("JUPYTER_TOKEN", "MPLBACKEND")}
        # threads that wait asleep: spinning ones cost runs side by side more than half of their speed
        return {"OMP_WAIT_POLICY": "PASSIVE"} | kept | {"TRAINLAB_RUN": str(self.folder)}

    def _stop(self, by: signal.Signals) -> None:
        """Let the cell at work end by KeyboardInterrupt, so that it closes its files; insist later."""
        if self.stopped_by or self.client.kc is None:
            self._kill_kernel()
        else:
            self.interruption = asyncio.ensure_future(self.kernel.interrupt_kernel())
            asyncio.get_running_loop().call_later(GRACE[by], self._kill_kernel)
        if by == signal.SIGTERM:
            self.kernel.shutdown_wait_time = HASTY_SHUTDOWN
        self.stopped_by = self.stopped_by or by

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
            return ends.by_error(self.client.reply, self.memory)
        if isinstance(error, DeadKernelError):
            return ends.by_death(self.exit_code, self.memory)
        return End("failed", str(error), 1)


def _guard(group: int, sockets: str) -> subprocess.Popen[bytes]:
    """Start a shell that kills the kernel's process group once this process is gone, in whatever way.

    The kernel's own check of its parent ends the kernel, not what the kernel started.
    """
    return subprocess.Popen(
        ["sh", "-c", f'read -r _; kill -9 -{group}; rm -rf "$0"', sockets],
        stdin=subprocess.PIPE,  # its other end closes with this process
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main(folder: Path) -> int:
    """Execute the notebook in `folder`, write how the run ended, and return the exit code."""
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    started = time.monotonic()
    screen = Screen()
    try:
        notebook = document.read(folder / document.FILE)
        for cell in notebook.cells:
            secrets.remember(secrets.named_in(cell.source))
        kernel_folder = Path(record.update(folder, pid=os.getpid()).model_dump()["notebook"]).parent
        end = asyncio.run(Execution(folder, notebook, kernel_folder, screen).run())
    except Exception as error:  # a full disk, say: the record is to show it all the same
        screen.line(traceback.format_exc())
        end = End("failed", f"{type(error).__name__}: {error}", 1)
    record.end(folder, end.status, end.reason)
    reason = f": {end.reason}" if end.reason and end.code != UserError.exit_code else ""
    screen.line(f"{end.status} after {time.monotonic() - started:.0f} s{reason}")
    return end.code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
