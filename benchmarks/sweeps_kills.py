"""What is left of a sweep whose processes are killed, by SIGKILL at random moments, and started again.

`benchmarks/sweeps_kills.py [--kills 1000] [--seed 0] [--output FILE]` writes benchmarks/sweeps_kills.md. A
sweep of tiny trials, two at a time in the leading process and one in a worker beside it. Killed are the
leading process, the worker, what executes a run, a run's own script, or all at once, as by a power loss;
leader and worker are started again, as whoever watches over them would. Each trial must be complete once.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from trainlab.run import events, lock, record
from trainlab.sweeps import definition
from trainlab.sweeps.loop import MOST_ATTEMPTS
from trainlab.sweeps.queue import Queue

if TYPE_CHECKING:
    from trainlab.sweeps.queue import Trial

STEPS = 8
SHARES = {"leader": 0.2, "worker": 0.1, "runner": 0.35, "script": 0.2, "everything": 0.15}
ROWS = {
    "leader": "the leading process",
    "worker": "the worker beside it",
    "runner": "what executes a run",
    "script": "a run's own script",
    "everything": "everything at once",
}
SHORTEST, LONGEST = 0.1, 1.5  # seconds between two kills
OLDEST = 4.0  # seconds: a leader or a worker that is younger is spared as often as not, or none would begin
PATIENCE = 600.0  # seconds for the sweep to end after the last kill
SCRIPT = f"""
import sys, time, trainlab
from trainlab.run import checkpoint

x = float(sys.argv[1].partition("=")[2])
with trainlab.Run("tiny", {{"x": x}}, monitor=False) as run:
    first = checkpoint.load(run.checkpoint)["step"] if run.checkpoint else 0
    if run.checkpoint:
        run.rewind(first, run.checkpoint)
    for step in range(first, {STEPS}):
        run.log({{"val/loss": x + 1 / (step + 1)}}, step)
        checkpoint.save({{"step": step + 1}}, run.checkpoints / f"step-{{step + 1:08}}.ckpt")
        time.sleep(0.1)
"""
LEAD = """
import sys
from pathlib import Path
from trainlab.sweeps import definition, slots, worker
logs = Path(sys.argv[1])
sys.exit(worker.lead(definition.load("tiny", logs), slots=slots.find(2, gpus=False), logs=logs))
"""
JOIN = """
import sys
from pathlib import Path
from trainlab.sweeps import slots, worker
sys.exit(worker.join(slots=slots.find(1, gpus=False), until_empty=True, logs=Path(sys.argv[1])))
"""


class Victims:
    """The sweep's processes, which are killed and started again."""

    def __init__(self, root: Path, trials: int) -> None:
        self.root, self.logs = root, root / "logs"
        (root / "train.py").write_text(SCRIPT)
        self.ordered = definition.Definition(
            name="tiny",
            program=str(root / "train.py"),
            goal="val/loss",
            mode="min",
            method="grid",
            trials=trials,
            space={"x": [float(each) for each in range(trials)]},
        )
        definition.create(self.ordered, self.logs)
        self.queue = Queue.create(self.ordered, None, self.logs)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.since: dict[str, float] = {}
        self.killed: Counter[str] = Counter()
        self.said = (root / "said.txt").open("ab")

    def start(self) -> None:
        """Start what was killed; what has ended by itself has found nothing left to do."""
        for name, code in {"leader": LEAD, "worker": JOIN}.items():
            if name not in self.processes or self.processes[name].poll() not in (None, 0):
                self.since[name] = time.monotonic()
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-c", code, str(self.logs)],
                    env=os.environ | {"TRAINLAB_ROOT": str(self.root), "OMP_NUM_THREADS": "1"},
                    cwd=self.root,
                    stdout=self.said,
                    stderr=self.said,
                )

    def running(self) -> list[tuple[Trial, Path]]:
        """Return the trials that a run is executed of, by whomever, and its folder."""
        found = []
        for trial in self.queue.running():
            folder = self.logs / trial.runs[-1] if trial.runs else None
            if folder is not None and lock.alive(folder):
                found.append((trial, folder))
        return found

    def kill(self, chance: random.Random) -> None:
        """Kill one of them, or all; never a run whose trial would have failed by it, as it is to."""
        kind = chance.choices([*SHARES], [*SHARES.values()])[0]
        runs = self.running()
        spared = any(trial.attempts >= MOST_ATTEMPTS for trial, _ in runs)
        if kind in self.processes:
            age = time.monotonic() - self.since[kind]
            if self.processes[kind].poll() is None and age > chance.uniform(0, OLDEST):
                self._kill([self.processes[kind].pid], kind)
        elif kind == "everything" and runs and not spared:
            # the scripts too: a power loss ends those at the same moment
            doomed = [process.pid for process in self.processes.values()]
            self._kill([*doomed, *(each for _, folder in runs for each in lock.holders(folder))], kind)
        elif kind != "everything" and (
            others := [folder for trial, folder in runs if trial.attempts < MOST_ATTEMPTS]
        ):
            name = lock.RUNNER if kind == "runner" else lock.RUN
            self._kill([*lock.holders(chance.choice(others), [name])][:1], kind)

    def _kill(self, numbers: list[int], kind: str) -> None:
        found = 0
        for number in numbers:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(number).kill()
                found += 1
        self.killed[kind] += bool(found)
        for process in self.processes.values():
            process.poll()

    def done(self) -> bool:
        """Tell whether leader and worker have ended by themselves."""
        return all(process.poll() == 0 for process in self.processes.values())


def faults(victims: Victims) -> list[str]:
    """Return what is wrong with the sweep now that it has ended: nothing, if all is well."""
    found = []
    finished: Counter[int] = Counter()
    for path in victims.logs.glob("*/*/run.json"):
        known = record.read(path.parent)
        assert known.sweep is not None, path
        if known.status == "finished":
            finished[known.sweep.trial] += 1
            curve = events.read(path.parent).curves["val/loss"]
            if curve.steps != list(range(STEPS)):
                found.append(f"{path.parent.name}: its curve has the steps {curve.steps}")
    for trial in victims.queue.trials():
        right = trial.settings["x"] + 1 / STEPS
        if (trial.state, trial.value) != ("finished", right):
            found.append(f"trial {trial.number}: {trial}")
        if finished[trial.number] != 1:
            found.append(f"trial {trial.number} is complete {finished[trial.number]} times")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600.0, help="after which no more is killed")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    given = parser.parse_args()
    chance, since = random.Random(given.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        victims = Victims(Path(root), trials=max(4, given.kills * 2 // 3))
        victims.start()
        while victims.killed.total() < given.kills and time.monotonic() < since + 60 * given.minutes:
            time.sleep(chance.uniform(SHORTEST, LONGEST))
            victims.kill(chance)
            if victims.done():
                break
            victims.start()
        kills, last = victims.killed.total(), time.monotonic()
        while not victims.done():
            assert time.monotonic() < last + PATIENCE, (Path(root) / "said.txt").read_text()[-5000:]
            time.sleep(0.2)
            victims.start()
        wrong = faults(victims)
        trials = victims.queue.trials()
        lost = sum(each.attempts - 1 for each in trials)
        new = sum(len(each.runs) - 1 for each in trials)
    minutes = (time.monotonic() - since) / 60
    lines = [
        "# Kills of a sweep\n",
        f"{kills} SIGKILLs of the processes of a sweep of {len(trials)} trials, two in slots of the leading "
        f"process and one of a worker beside it. {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at "
        f"the end, {minutes:.0f} minutes, seed {given.seed}. {lost} times a trial was gone on with: "
        f"{lost - new} times from its checkpoint, and {new} times in a new folder, as it had none yet. "
        "Made by `benchmarks/sweeps_kills.py`.\n",
        "| killed | times |",
        "| --- | ---: |",
        *(f"| {ROWS[kind]} | {victims.killed[kind]} |" for kind in ROWS),
        f"| together | {kills} |\n",
        f"Complete once, with its value and with a curve that has each step once: {len(trials) - len(wrong)} "
        f"of {len(trials)} trials.",
        *(f"- {each}" for each in wrong),
    ]
    table = "\n".join(lines) + "\n"
    given.output.write_text(table)
    print(table)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
