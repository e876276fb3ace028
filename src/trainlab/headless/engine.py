"""A notebook's cells, executed by papermill with an engine of ours: its kernel, its saves, what it shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab.headless import notebook  # first: it makes the import of nbclient a quick one

# isort: split
import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from trainlab import secrets
from trainlab.headless import execution
from trainlab.headless.execution import Execution, ExitStatus, Screen

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from papermill.engines import NotebookExecutionManager

ENGINE = "trainlab"
SAVE_EVERY = 3.0  # seconds: the most that a power failure costs of a long cell's output
OUTPUT_WAIT = 60  # seconds for output on its way when its cell has ended; nbclient's 4 lose a flood's end
STARTUP = 120  # seconds for a kernel to start on a busy machine
SOCKETS = "trainlab-"  # how a worker's folder for them begins, in the folder of temporary files
SHUTDOWN = 2.0  # seconds for the kernel's own exit handlers
HASTY_SHUTDOWN = 1.0  # the same after SIGTERM
NO_HISTORY = "--HistoryManager.hist_file=:memory:"  # the user's own is what they typed, as nbclient has it
NO_WIDGETS = "ignore:IProgress not found"
HIDDEN_BY_RETURN = re.compile(r"[^\n]*\r(?=[^\r\n])")  # what a terminal shows no more after a carriage return
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Notebook(Execution):
    """A notebook, executed by papermill in a kernel of this Python."""

    def __init__(
        self, folder: Path, screen: Screen, nb: NotebookNode, place: Path, *, kept: bool = True
    ) -> None:
        super().__init__(folder, screen)
        self.nb, self.place, self.kept = nb, place, kept
        sweep()
        # short: a socket's path has 107 bytes; with this process's number, so that `sweep` knows whose it is
        self.sockets = tempfile.mkdtemp(prefix=f"{SOCKETS}{os.getpid()}-")
        self.kernel = AsyncKernelManager(
            kernel_spec_manager=OwnInterpreter(),
            transport="ipc",  # this user's alone; ports that runs side by side pick would clash
            connection_file=str(Path(self.sockets, "kernel.json")),
            shutdown_wait_time=SHUTDOWN,
        )
        self.client: Client | None = None
        self.saved = b""

    def execute(self) -> ExitStatus:
        """Execute every cell; by then the notebook is saved and the kernel gone."""
        self.nb.metadata["papermill"] = self.nb.metadata.get("papermill") or {}
        exit_code = None
        try:
            try:
                papermill_engines.execute_notebook_with_engine(
                    ENGINE,
                    self.nb,
                    "python3",
                    progress_bar=False,
                    autosave_cell_every=SAVE_EVERY,
                    execution=self,
                )
            finally:
                exit_code = self.loop.run_until_complete(self.close())
                self.save()
        except CellExecutionError:
            assert self.client is not None, "it raised it"
            # where the display of a cell's value failed, the reply names no exception: only an output has it
            unnamed = self.client.reply.get("ename") == type(None).__name__
            failure = self.client.error if unnamed and self.client.error is not None else self.client.reply
            return execution.from_error(failure, self.memory)
        except DeadKernelError:
            return execution.from_exit_code(exit_code, self.memory)
        except RuntimeError as error:
            return ExitStatus("failed", str(error), 1)
        return ExitStatus("finished", None, 0)

    async def start(self) -> None:
        """Start the kernel: pictures go into the notebook, bars are plain text."""
        # without widgets, which no image has, tqdm would warn of that in red
        quiet = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), NO_WIDGETS]))
        # the last one names another notebook, if any
        environment = self.environment("MPLBACKEND", "JPY_SESSION_NAME", PYTHONWARNINGS=quiet)
        await self.kernel.start_kernel(env=environment, cwd=str(self.place), extra_arguments=[NO_HISTORY])
        self.entrust(self.kernel.provisioner.pgid)  # type: ignore[union-attr]

    async def close(self) -> int | None:
        """End the kernel; return the exit code that it had by then, None where it was alive."""
        exit_code = await self.kernel.provisioner.poll() if self.kernel.provisioner else None
        if self.client is not None and self.client.kc is not None:
            self.client.kc.stop_channels()
        if self.kernel.has_kernel and exit_code is None:
            await self.kernel.shutdown_kernel()
        await self.kernel.cleanup_resources()
        return exit_code

    def interrupt(self, by: signal.Signals) -> None:
        """Let the running cell end by KeyboardInterrupt; end a kernel that has not started yet."""
        if by == signal.SIGTERM:
            self.kernel.shutdown_wait_time = HASTY_SHUTDOWN
        if self.client is None or self.client.kc is None:
            self.kill()
        elif self.kernel.has_kernel:
            self.interruption = asyncio.ensure_future(self.kernel.interrupt_kernel())

    def save(self) -> None:
        """Write the notebook as it stands, less its secrets, into the run's folder, in one step, if kept."""
        if not self.kept:
            return
        shown = nbformat.from_dict(secrets.hidden(self.nb, by_name=False))
        self.saved = notebook.write(self.folder, shown, unless=self.saved)


class OwnInterpreter(KernelSpecManager):
    """Knows one kernel: this very interpreter, whatever else the user has installed under the same name."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:  # noqa: ARG002
        """Return the kernel of sys.executable."""
        return KernelSpec(**get_kernel_dict())


class Engine(NBClientEngine):
    """papermill's, with our kernel, our client, and a save that hides secrets and is atomic."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, *, execution: Notebook, **_: Any
    ) -> None:
        """Execute the cells."""

        def save(**_: Any) -> None:
            nb_man.last_save_time = nb_man.now()
            with contextlib.suppress(OSError):  # a full disk may have room again; the last save speaks up
                execution.save()

        nb_man.save = save
        save()
        execution.loop.run_until_complete(execution.start())
        execution.client = Client(nb_man, execution, kernel_name)
        execution.client.execute()


papermill_engines.register(ENGINE, Engine)


class Client(PapermillNotebookClient):
    """papermill's, which also shows each output as it comes and joins a cell's streams while they grow."""

    def __init__(self, nb_man: NotebookExecutionManager, execution: Notebook, kernel_name: str) -> None:
        super().__init__(
            nb_man,
            km=execution.kernel,
            kernel_name=kernel_name,
            iopub_timeout=OUTPUT_WAIT,
            raise_on_iopub_timeout=False,
            startup_timeout=STARTUP,
        )
        self.execution = execution
        self.total = sum(
            bool(cell.cell_type == "code" and cell.source.strip())
            and self.skip_cells_with_tag not in cell.metadata.get("tags", [])
            for cell in self.nb.cells
        )
        self.reply: dict[str, Any] = {}
        self.error: dict[str, Any] | None = None  # the last one that the running cell has shown
        self.on_cell_execute = self.announce
        self.on_cell_executed = self.check

    def papermill_execute_cells(self) -> None:
        """Execute cell by cell; what ends that is raised and marks its cell, unlike in papermill's own."""
        for index, cell in enumerate(self.nb.cells):
            self.nb_man.cell_start(cell, index)
            try:
                self.execution.loop.run_until_complete(asyncio.sleep(0.001))  # for a signal meanwhile
                if self.execution.stopped_by:
                    raise RuntimeError("stopped")
                self.execute_cell(cell, index)
            except BaseException:
                self.nb_man.cell_exception(cell, index)
                raise
            finally:
                self.nb_man.cell_complete(cell, index)

    def output(self, outs: list[NotebookNode], *args: Any) -> NotebookNode | None:
        """Take in one output of a cell, and show it."""
        out = super().output(outs, *args)
        if out is None:
            return None
        screen = self.execution.screen
        if out.output_type == "stream":
            screen.write(out.text)
            if len(outs) > 1 and outs[-2].get("name") == out.name:  # as a terminal would show both
                outs.pop()
                head, newline, line = outs[-1].text.rpartition("\n")
                outs[-1].text = head + newline + HIDDEN_BY_RETURN.sub("", line + out.text)
        elif out.output_type == "error":
            if not (self.execution.stopped_by and out.ename == "KeyboardInterrupt"):
                self.error = out
                screen.line(COLOURS.sub("", "\n".join(out.traceback)))
        elif "text/plain" in out.data:
            screen.line(out.data["text/plain"])
        return out

    def announce(self, cell: NotebookNode, cell_index: int) -> None:  # noqa: ARG002
        """Say which cell is executed next."""
        self.error = None
        first = cell.source.strip().splitlines()[0]
        self.execution.screen.line(f"cell {self.code_cells_executed + 1}/{self.total}: {first}")

    def check(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:  # noqa: ARG002
        """Raise RuntimeError where the cell asked the kernel to quit, or was not executed at all."""
        self.reply = execute_reply["content"]
        if self.reply["status"] == "aborted":
            raise RuntimeError(f"cell {self.code_cells_executed} was not executed")
        if any(each.get("source") == "ask_exit" for each in self.reply.get("payload", [])):
            raise RuntimeError(f"SystemExit: cell {self.code_cells_executed} asked the kernel to quit")


def sweep() -> None:
    """Remove the sockets of workers that were killed together with their guards."""
    for path in Path(tempfile.gettempdir()).glob(f"{SOCKETS}*-*"):
        owner = path.name.removeprefix(SOCKETS).partition("-")[0]
        with contextlib.suppress(OSError):
            if not owner.isdigit() or path.lstat().st_uid != os.getuid():
                continue
            stat = Path("/proc", owner, "stat")
            state = stat.read_text().rpartition(")")[2].split()[0] if stat.exists() else "X"
            if state in "ZX":  # a zombie has ended, too, only nobody has asked for its exit code yet
                shutil.rmtree(path)  # refuses a link
