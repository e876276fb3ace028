"""A project in a temporary folder, and notebooks in it that are executed headless as a command of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_notebook

COMMAND = [sys.executable, "-c", "from trainlab.cli import main; main()", "run"]

# cells of parameters
PARAMETERS = "learning_rate = 0.001\nepochs = 2\nseed = 0\ntitle = 'a = b'\nlayers = [1, 2]\nquick = False"
KINDS = "size = (64, 64)\nkinds = {'a'}\nraw = b'x'\nwave = 1j\nopt = {}\nany = None\nrate = 0.1\nfar = 1e400"
# the settings of a training, and ten steps of it an epoch, with a checkpoint by hand every four
TRAINING = """
from pydantic import Field
from trainlab.errors import UserError
from trainlab.training.config import TrainingConfig

class Settings(TrainingConfig):
    margin: float = Field(3.0, gt=0)

    def preflight(self):
        if self.epochs == 13:
            raise UserError("epochs=13: thirteen epochs bring bad luck.")
"""
TRAINING_CELL = """
import trainlab
from its_training import Settings
from trainlab.run import checkpoint
with trainlab.Run("training", Settings.from_notebook(globals())) as run:
    first = checkpoint.load(run.checkpoint)["step"] if run.checkpoint else 0
    if run.checkpoint:
        run.rewind(first, run.checkpoint)
    print("goes on at", first)
    for step in range(first, 10 * run.config["epochs"]):
        run.log({"train/loss": float(first > 0)}, step)
        if step % 4 == 3:
            checkpoint.save({"step": step + 1}, run.checkpoints / f"step-{step + 1:08}.ckpt")
"""


class Lab:
    """A project in a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("logs", "notebooks", "data"):
            (root / name).mkdir()
        self.environment = os.environ | {"TRAINLAB_ROOT": str(root), "JUPYTER_TOKEN": "secret-token"}
        for name in ("LOGS", "NOTEBOOKS", "DATA", "MODELS", "RUN"):
            self.environment.pop(f"TRAINLAB_{name}", None)

    def notebook(
        self, name: str, *cells: str, parameters: str | None = None, config: str | None = None
    ) -> Path:
        made = new_notebook(cells=[new_code_cell(cell) for cell in cells])
        if parameters is not None:
            made.cells.insert(0, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        if config is not None:
            made.metadata.trainlab = {"config": config}
        path = self.root / "notebooks" / f"{name}.ipynb"
        nbformat.write(made, path)
        return path

    def tag(self, name: str, cell: int, tag: str) -> None:
        path = self.root / "notebooks" / f"{name}.ipynb"
        made = nbformat.read(path, as_version=4)
        made.cells[cell].metadata.tags = [tag]
        nbformat.write(made, path)

    def start(self, *words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*COMMAND, *words], env=self.environment, cwd=self.root, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def folders(self) -> list[Path]:
        return [path.parent for path in self.root.glob("logs/*/*/run.json")]

    def folder(self) -> Path:
        (only,) = self.folders()
        return only

    def record(self) -> dict:
        return json.loads((self.folder() / "run.json").read_text())

    def log(self) -> str:
        return "".join(path.read_text() for path in self.root.glob("logs/*/*/output.log"))

    def executed(self) -> nbformat.NotebookNode:
        return nbformat.read(self.folder() / "notebook.ipynb", as_version=4)

    def printed(self) -> str:
        outputs = [out for cell in self.executed().cells for out in cell.get("outputs", [])]
        return "".join(out.get("text", "") for out in outputs)


def git(folder: Path, *words: str) -> str:
    """Run git as a user of its own; return what it prints."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def processes(*words: str) -> list[psutil.Process]:
    """Return the processes whose command line holds all words."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if all(word in line for word in words) and process.pid != os.getpid():
            found.append(process)
    return found
