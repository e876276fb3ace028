"""A training that can be stopped in the middle: a minute long, or, once there is a file `quick`, a second."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

from trainlab.run import events

STEPS = 600
PATIENCE = 180.0  # seconds for a kernel to import torch on a busy machine, and begin
MODULE = f"""
import time
import lightning
import torch
from trainlab import paths as folders
from trainlab.training.config import TrainingConfig

class Settings(TrainingConfig):
    margin: float = 1.0

class Data(lightning.LightningDataModule):
    def train_dataloader(self):
        numbers = torch.randn({STEPS}, 4, generator=torch.Generator().manual_seed(0))
        return torch.utils.data.DataLoader(numbers, batch_size=1, shuffle=True)

class Line(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, index):
        if not (folders.notebooks() / "quick").exists():
            time.sleep(0.1)
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)
"""
CELL = """
import sys, trainlab
from trainlab import paths as folders
sys.path.append(str(folders.notebooks()))
from slow import Data, Line, Settings
from trainlab import Trainer
config = Settings.from_notebook(globals())
with trainlab.Run("slow", config) as run:
    Trainer(run, config, log_every_n_steps=1).fit(Line(), Data())
"""
SETTINGS = ("epochs=1", "num_workers=0", "checkpoint_every=20")


def write(notebooks: Path) -> None:
    """Write the notebook, and the module that it imports."""
    (notebooks / "slow.py").write_text(MODULE)
    write_notebook(notebooks / "slow.ipynb", CELL, config="slow:Settings")


def write_notebook(path: Path, code: str, config: str = "") -> None:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    if config:
        made.metadata.trainlab = {"config": config}
    nbformat.write(made, path)


def at_work(project: Path, name: str, steps: int = 30) -> Path:
    """Wait until the run with this in its name has done some steps, and return its folder."""
    deadline = time.monotonic() + PATIENCE
    while True:
        folder = next((path.parent for path in project.glob(f"logs/slow/*{name}*/run.json")), None)
        if folder and len(curve(folder)) >= steps:
            return folder
        assert not folder or record(folder)["status"] == "running", record(folder)["reason"]
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {steps} steps of {name}"
        time.sleep(0.2)


@contextmanager
def made_quick(project: Path) -> Iterator[None]:
    """Let the trainings at work in this project go on without pauses."""
    (project / "notebooks/quick").touch()
    try:
        yield
    finally:
        (project / "notebooks/quick").unlink()


def curve(folder: Path) -> list[int]:
    """Return the steps of the training's curve, as TensorBoard shows it."""
    found = events.read(folder).curves.get("train/loss")
    return [int(step) for step in found.steps] if found else []


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def newest_checkpoint(folder: Path) -> int:
    """Return the step of the newest checkpoint, 0 without any."""
    paths = folder.glob("checkpoints/step-*.ckpt")
    return max((int(path.stem.removeprefix("step-")) for path in paths), default=0)
