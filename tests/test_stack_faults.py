"""Trainings in the real containers that are stopped, killed or run out of memory, and go on afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
import websocket

from containers import Stack, own, started, until
from trainlab.runs import events

STOP_SECONDS = 10.0
STEPS = 600
# a training that takes a minute, or, once there is a file `quick`, as long as it needs
MODULE = f"""
import time
import lightning
import torch
from trainlab import folders
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
sys.path.append("/workspace/notebooks")
from slow import Data, Line, Settings
from trainlab.training import Trainer
config = Settings.from_notebook(globals())
with trainlab.Run("slow", config) as run:
    Trainer(run, config, log_every_n_steps=1).fit(Line(), Data())
"""
HOG = """
import trainlab
with trainlab.Run("hog", {"margin": 1.0}) as run:
    run.log({"train/loss": 1.0}, 0)
    hog = []
    while True:
        hog.append(bytearray(b"x" * 16_000_000))
"""
SETTINGS = ("epochs=1", "num_workers=0", "checkpoint_every=20")
MEMORY = "600m"

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Stack]:
    """A fresh clone at work, with the notebooks of this file."""
    with started(tmp_path_factory.mktemp(f"faults{os.getpid()}-"), free_port, JUPYTER_TOKEN="given") as clone:
        notebooks = clone.folder / "notebooks"
        (notebooks / "slow.py").write_text(MODULE)
        write_notebook(notebooks / "slow.ipynb", CELL, config="slow:Settings")
        write_notebook(notebooks / "hog.ipynb", HOG)
        own(notebooks)
        yield clone


def write_notebook(path: Path, code: str, config: str = "") -> None:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    if config:
        made.metadata.trainlab = {"config": config}
    nbformat.write(made, path)


def execute(stack: Stack, code: str) -> None:
    """Start a kernel as the browser does, and send it a cell."""
    kernel = stack.jupyter("POST", "/api/kernels", "given")["id"]
    address = stack.url("jupyter", f"/api/kernels/{kernel}/channels").replace("http", "ws", 1)
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": uuid.uuid4().hex}
    message = {
        "header": header | {"username": "", "version": "5.3", "date": ""},
        "parent_header": {},
        "metadata": {},
        "channel": "shell",
        "content": {"code": code, "silent": False},
    }
    channel = websocket.create_connection(address, header=["Authorization: token given"], timeout=60)
    channel.send(json.dumps(message))
    while json.loads(channel.recv())["msg_type"] != "execute_input":
        pass
    channel.close()


def runs(stack: Stack) -> dict[str, dict[str, Any]]:
    """Return what `trainlab runs` lists, by the run's label, the newest first."""
    listed = json.loads(stack.inside("jupyter", "trainlab runs --format json").stdout)
    return {f"{row['experiment']}/{row['run']}": row for row in listed}


def folder_of(stack: Stack, name: str) -> Path | None:
    """Return the folder of the run whose name ends like that, as soon as it is there."""
    return next(iter(stack.folder.glob(f"logs/slow/*-{name}")), None)


def at_work(stack: Stack, name: str, steps: int = 30) -> Path:
    """Wait until the run has done some steps, and return its folder."""

    def found() -> Path | None:
        folder = folder_of(stack, name)
        return folder if folder and len(curve(folder)) >= steps else None

    return until(found, 90, f"{steps} steps of {name}")


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


def goes_on(stack: Stack, reference: str) -> Path:
    """Resume a run headless, to its end, and return its folder."""
    quick = stack.folder / "notebooks/quick"
    quick.touch()
    try:
        done = stack.compose("exec", "-T", "jupyter", "trainlab", "run", "slow", "--resume", reference)
    finally:
        quick.unlink()
    return stack.folder / Path(done.stdout.splitlines()[0]).relative_to("/workspace")


@dataclass
class Stopped:
    """Three trainings that were at work when the stack was stopped."""

    foreground: Path
    detached: Path
    by_hand: Path
    code: int  # that `docker compose exec` returned for the one in the foreground
    seconds: float
    container_code: int


@pytest.fixture(scope="module")
def stopped(stack: Stack) -> Stopped:
    """Stop the stack while it trains headless, detached and in a kernel of the browser's."""
    run = ("docker", "compose", "exec", "-T", "jupyter", "trainlab", "run", "slow")
    foreground = subprocess.Popen(
        [*run, "--name", "foreground", *SETTINGS], cwd=stack.folder, env=stack.whole_environment()
    )
    stack.run(*run, "--name", "detached", *SETTINGS, "--detach")
    execute(stack, f"margin, epochs, num_workers = 7.0, 1, 0\n{CELL}")
    folders = [at_work(stack, name) for name in ("foreground", "detached", "margin7")]
    began = time.monotonic()
    stack.compose("stop", "jupyter")
    seconds = time.monotonic() - began
    code = foreground.wait(20)
    return Stopped(*folders, code, seconds, stack.state("jupyter")["State"]["ExitCode"])


def test_a_stop_saves_what_each_training_has_and_takes_less_than_ten_seconds(stopped):
    assert stopped.seconds < STOP_SECONDS
    assert stopped.container_code in (0, 143)
    for folder in (stopped.foreground, stopped.detached, stopped.by_hand):
        known, steps = record(folder), curve(folder)
        assert known["status"] == "interrupted"
        assert steps[-1] < STEPS - 1
        assert newest_checkpoint(folder) == steps[-1] + 1, "saved after the step at work, not before"


def test_whoever_waits_for_a_headless_run_sees_143_and_the_record_says_sigterm(stopped):
    assert stopped.code == 143
    assert {record(folder)["reason"] for folder in (stopped.foreground, stopped.detached)} == {"SIGTERM"}
    assert "interrupted after" in (stopped.detached / "output.log").read_text().splitlines()[-1]


def test_a_stopped_training_goes_on_after_up(stack, stopped):
    before = curve(stopped.foreground)[-1] + 1
    stack.up()
    assert goes_on(stack, stopped.foreground.name) == stopped.foreground
    known = record(stopped.foreground)
    assert known["status"] == "finished"
    assert known["resumes"][0]["step"] == before
    assert curve(stopped.foreground) == list(range(STEPS))


def test_a_killed_training_is_found_dead_and_goes_on_in_a_new_container(stack):
    stack.up()
    stack.compose("exec", "-T", "jupyter", "trainlab", "run", "slow", "--name=killed", *SETTINGS, "--detach")
    folder = at_work(stack, "killed")
    host = record(folder)["host"]
    stack.compose("kill", "jupyter")
    stack.compose("down")
    stack.up()
    row = runs(stack)[f"slow/{folder.name}"]
    assert row["status"] == "interrupted", row
    assert "killed" in row["reason"]
    assert newest_checkpoint(folder) >= 20
    assert goes_on(stack, "last") == folder
    assert record(folder)["status"] == "finished"
    assert record(folder)["host"] != host
    assert curve(folder) == list(range(STEPS))


@pytest.fixture(scope="module")
def small(stack: Stack) -> Stack:
    """The same stack with little memory."""
    stack.up(JUPYTER_MEMORY=MEMORY)
    return stack


def test_a_headless_run_out_of_memory_says_so_with_the_limit_and_the_server_stays_up(small):
    before = small.state("jupyter")
    done = small.compose("exec", "-T", "jupyter", "trainlab", "run", "hog", check=False)
    assert done.returncode == 1
    row = next(iter(runs(small).values()))
    assert (row["experiment"], row["status"]) == ("hog", "failed")
    assert "out of memory" in row["reason"]
    assert "600 MiB" in row["reason"]
    assert_untouched(small, before)


def test_a_kernel_of_the_browser_s_out_of_memory_is_listed_as_such(small):
    before, known = small.state("jupyter"), runs(small)
    execute(small, HOG)

    def new_row() -> dict[str, Any] | None:
        rows = [row for label, row in runs(small).items() if label not in known]
        return rows[0] if rows and rows[0]["status"] != "running" else None

    row = until(new_row, 60, "the end of the kernel")
    assert row["status"] == "interrupted", row
    assert "out of memory" in row["reason"]
    assert_untouched(small, before)


def assert_untouched(stack: Stack, before: dict[str, Any]) -> None:
    """Check that the server that was there is still there, and healthy."""
    after = stack.state("jupyter")
    assert (after["Id"], after["RestartCount"]) == (before["Id"], before["RestartCount"])
    assert after["State"]["StartedAt"] == before["State"]["StartedAt"]
    assert after["State"]["Health"]["Status"] == "healthy"
    assert "version" in stack.jupyter("GET", "/api", "given")
