"""Executes a notebook's cells and shows what they print as it comes."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from trainlab.headless import notebook as document  # noqa: F401  # first: it makes the import of nbclient a quick one

# isort: split
from nbclient.client import NotebookClient

from trainlab import cleaning, secrets

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode

OUTPUT_WAIT = (
    60  # seconds for output still on its way when its cell has ended; nbclient's 4 lose a flood's end
)
STARTUP = 120  # seconds for a kernel to start on a busy machine
HIDDEN_BY_RETURN = re.compile(r"[^\n]*\r(?=[^\r\n])")  # what a terminal shows no more after a carriage return
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """Standard output, with our own lines kept apart from half lines that a cell printed.

    Secrets are hidden. A cell's output is the user's own, but may hold what others wrote, a title say: it is
    cleaned as `cleaning.Output` says, here and in the run's log; colours and progress bars stay.
    """

    def __init__(self) -> None:
        self.mid_line = False
        self.stream = secrets.Stream()
        self.output = cleaning.Output()

    def write(self, text: str) -> None:
        """Write what a cell printed, at once."""
        self._put(self.stream.feed(self.output.feed(text)))

    def line(self, text: str) -> None:
        """Write a line of ours."""
        self._put(self.stream.rest())
        self.output = cleaning.Output()  # a sequence without an end would swallow the next cell's words
        self._put(("\n" if self.mid_line else "") + secrets.without_secrets(_clean(text)) + "\n")

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self.mid_line = not text.endswith("\n") if text else self.mid_line


class Client(NotebookClient):
    """nbclient's, which also shows each output as it comes and joins a cell's streams while they grow."""

    def __init__(self, notebook: NotebookNode, screen: Screen, kernel: AsyncKernelManager) -> None:
        super().__init__(notebook, km=kernel, iopub_timeout=OUTPUT_WAIT, startup_timeout=STARTUP)
        self.screen = screen
        self.total = sum(map(_is_executed, notebook.cells))
        self.cell = 0  # number of the cell at work, from 1
        self.done = 0
        self.reply: dict[str, Any] = {}
        self.error: dict[str, Any] | None = None  # the last one that the cell at work has shown
        self.stopping = False  # a KeyboardInterrupt is what was asked for then
        self.on_cell_execute = self._announce
        self.on_cell_executed = self._take_reply

    def output(self, outs: list[NotebookNode], *args: Any) -> NotebookNode | None:
        """Take in one output of a cell."""
        out = super().output(outs, *args)
        if out is not None:
            self._show(out)
            _join_streams(outs)
        return out

    @property
    def failure(self) -> dict[str, Any]:
        """Name, text and traceback of what the last cell failed with.

        Where the display of its value failed, the kernel's reply names no exception: only an output has it.
        """
        unnamed = self.reply.get("ename") == type(None).__name__
        return self.error if unnamed and self.error is not None else self.reply

    def _show(self, out: NotebookNode) -> None:
        if out.output_type == "stream":
            self.screen.write(out.text)
        elif out.output_type == "error" and self.stopping and out.ename == "KeyboardInterrupt":
            return
        elif out.output_type == "error":
            self.error = out
            self.screen.line(COLOURS.sub("", "\n".join(out.traceback)))
        elif "text/plain" in out.data:
            self.screen.line(out.data["text/plain"])

    def _announce(self, cell: NotebookNode, cell_index: int) -> None:  # noqa: ARG002
        self.cell += 1
        self.error = None
        first = cell.source.strip().splitlines()[0]
        self.screen.line(f"cell {self.cell}/{self.total}: {first}")

    def _take_reply(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:  # noqa: ARG002
        self.reply = execute_reply["content"]
        self.done += self.reply["status"] != "aborted"


def _clean(text: str) -> str:
    return cleaning.Output().feed(text.rstrip("\n"))


def _is_executed(cell: NotebookNode) -> bool:
    """Say whether nbclient executes the cell."""
    skipped = NotebookClient.skip_cells_with_tag.default_value
    return bool(
        cell.cell_type == "code" and cell.source.strip() and skipped not in cell.metadata.get("tags", [])
    )


def _join_streams(outs: list[NotebookNode]) -> None:
    """Append the last output to the one before where both are one stream, as a terminal would show it."""
    if (
        len(outs) > 1
        and outs[-1].output_type == outs[-2].output_type == "stream"
        and outs[-1].name == outs[-2].name
    ):
        new = outs.pop().text
        head, newline, line = outs[-1].text.rpartition("\n")
        outs[-1].text = head + newline + HIDDEN_BY_RETURN.sub("", line + new)
