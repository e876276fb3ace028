"""A sweep of small scripts in a temporary folder, led by a process of its own that tests can kill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from trainlab.run import events, lock, record
from trainlab.sweeps import definition
from trainlab.sweeps.queue import Queue, Trial
from waiting import until

LEAD = """
import sys
from pathlib import Path
from trainlab.sweeps import definition, slots, worker
logs, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
places = slots.find(count, gpus=False)
sys.exit(worker.lead(definition.load(name, logs), slots=places, logs=logs))
"""
JOIN = """
import sys
from pathlib import Path
from trainlab.sweeps import slots, worker
logs, count = Path(sys.argv[1]), int(sys.argv[3])
sys.exit(worker.join(slots=slots.find(count, gpus=False), until_empty=True, logs=logs))
"""
# Logs val/loss and saves a checkpoint at each step. Behind step `hold`, if any, it waits for a file `go`.
SCRIPT = """
import os, pathlib, time, trainlab
from trainlab.config import Config
from trainlab.run import checkpoint

class Settings(Config):
    x: float = 1.0
    steps: int = 4
    hold: int = -1
    seed: int = 0
    saves: bool = True

s = Settings.from_command_line()
go = pathlib.Path(__file__).with_name("go")
with trainlab.Run("tiny", s, monitor=False) as run:
    first = 0
    if run.checkpoint:
        first = checkpoint.load(run.checkpoint)["step"]
        run.rewind(10 * first, run.checkpoint)
    for step in range(first, s.steps):
        run.log({"val/loss": value(s, step)}, 10 * step)
        if s.saves:
            checkpoint.save({"step": step + 1}, run.checkpoints / f"step-{step + 1:08}.ckpt")
        while step == s.hold and not go.exists():
            time.sleep(0.02)
"""
VALUE = """
def value(s, step):
    return s.x + 1 / (step + 1) + s.seed
"""


class Sweep:
    """A sweep over x = 1, 2, ... of a script whose goal falls with each step."""

    def __init__(
        self, root: Path, trials: int = 4, *, value: str = VALUE, script: str = SCRIPT, **fields: Any
    ) -> None:
        self.root, self.logs = root, root / "logs"
        self.program = root / "train.py"
        self.program.write_text(value + script)
        known: dict[str, Any] = {
            **{"name": "tiny", "program": str(self.program), "goal": "val/loss", "mode": "min"},
            **{"method": "grid", "trials": trials, "space": {"x": [1.0 + each for each in range(trials)]}},
        }
        self.definition = definition.Definition.model_validate(known | fields)
        definition.create(self.definition, self.logs)
        self.definition = definition.load(self.definition.name, self.logs)
        self._processes: list[subprocess.Popen[str]] = []

    def lead(self, slots: int = 2, code: str = LEAD, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, str(self.logs), self.definition.name, str(slots)],
            env=os.environ | {"TRAINLAB_ROOT": str(self.root), "OMP_NUM_THREADS": "1"} | environment,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def led(self, slots: int = 2, expected: int = 0, **environment: str) -> list[Trial]:
        """Lead the sweep to its end, and return its trials."""
        process = self.lead(slots, **environment)
        _, error = process.communicate(timeout=120)
        assert process.returncode == expected, error
        return self.trials()

    def trials(self) -> list[Trial]:
        queue = Queue.open(self.definition, None, self.logs)
        try:
            return queue.trials()
        finally:
            queue.close()

    def folders(self) -> list[Path]:
        """Return the runs' folders in the order of their names, which begin with the time."""
        return sorted(path.parent for path in self.logs.glob("*/*/run.json"))

    def held(self, count: int, values: int) -> list[Path]:
        """Wait until so many runs have logged so many values, and return their folders."""
        return until(
            lambda: (
                found
                if len(found := [each for each in self.folders() if len(steps(each)) >= values]) >= count
                else None
            ),
            f"{count} runs with {values} values each",
            seconds=120,
        )

    def go(self) -> None:
        """Let the scripts that hold go on."""
        (self.root / "go").touch()

    def kill(self) -> None:
        """End whatever the sweep still runs: for the end of a test."""
        for process in self._processes:
            process.kill()
            process.communicate()
        for folder in self.folders():
            kill_run(folder)


def runner(folder: Path) -> psutil.Process:
    """Return the process that executes a run."""
    return psutil.Process(until(lambda: next(lock.holders(folder), None), f"{folder} is run"))


def kill_run(folder: Path) -> None:
    """Kill a run's processes, as by the kernel, and wait until nobody holds it."""
    for number in [*lock.holders(folder)]:
        try:
            psutil.Process(number).kill()
        except psutil.NoSuchProcess:
            continue
    until(lambda: not lock.alive(folder), f"{folder} is free")


def steps(folder: Path) -> list[int]:
    curve = events.read(folder).curves.get("val/loss")
    return curve.steps if curve else []


def assert_whole(folder: Path, count: int = 4) -> None:
    """Assert that a run has finished, and that each of its steps stands in its curve once."""
    known = record.read(folder)
    assert (known.status, known.reason) == ("finished", None)
    assert steps(folder) == [10 * step for step in range(count)]
