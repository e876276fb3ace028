"""What a sweep costs beside its trials' own work, and what Optuna alone costs for the same.

`benchmarks/sweeps.py [--trials 200] [--output FILE]` writes benchmarks/sweeps.md. Sweeps of scripts that do
nothing but log one value are led by a process of their own, as `trainlab sweep` does it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from trainlab.run import record
from trainlab.sweeps import definition, owners
from trainlab.sweeps.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable

REPORTS = 10  # of each trial to the queue
QUEUED = 40  # trials
PRUNED = 8  # trials
STARTS = 7
TIMED = "import sys, time\nopen('times.txt', 'a').write(f'{time.time()} begin\\n')\n"
SCRIPT = f"""{TIMED}
import trainlab
with trainlab.Run("tiny", {{"x": float(sys.argv[1].partition("=")[2])}}, monitor=False) as run:
    run.log({{"val/loss": run.config["x"]}}, 0)
open('times.txt', 'a').write(f'{{time.time()}} end\\n')
"""
NAN = f"""{TIMED}
import trainlab
with trainlab.Run("tiny", {{"x": float(sys.argv[1].partition("=")[2])}}, monitor=False) as run:
    run.log({{"val/loss": float("nan")}}, 0)
    run.save({{"step": 1}})
    open('times.txt', 'a').write(f'{{time.time()}} nan\\n')
    time.sleep(600)
"""
LEAD = """
import json, resource, sys
from pathlib import Path
from trainlab.sweeps import definition, slots, worker
logs, count = Path(sys.argv[1]), int(sys.argv[2])
worker.lead(definition.load("tiny", logs), slots=slots.find(count, gpus=False), logs=logs)
usage = resource.getrusage(resource.RUSAGE_SELF)
large = [each for each in ("torch", "pandas", "transformers") if each in sys.modules]
print(json.dumps([usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, large]))
"""


def swept(script: str, trials: int, slots: int) -> tuple[float, list[Any], list[tuple[float, str]]]:
    """Lead a sweep to its end; return its seconds, what the leader used, and the scripts' times."""
    with tempfile.TemporaryDirectory() as root:
        place = Path(root)
        (place / "train.py").write_text(script)
        ordered = _definition(place, trials)
        definition.create(ordered, place / "logs")
        since = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", LEAD, str(place / "logs"), str(slots)],
            env=_environment(place),
            cwd=place,
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - since
        lines = (place / "times.txt").read_text().split("\n")[:-1]
        statuses = {record.read(path.parent).status for path in place.glob("logs/*/*/run.json")}
        assert statuses <= {"finished", "interrupted"}, statuses
    return seconds, json.loads(done.stdout), [(float(line.split()[0]), line.split()[1]) for line in lines]


def _definition(place: Path, trials: int, method: str = "grid") -> definition.Definition:
    space: Any = {"x": [float(each) for each in range(trials)]}
    return definition.Definition.model_validate(
        {
            **{"name": "tiny", "program": str(place / "train.py"), "goal": "val/loss", "mode": "min"},
            **{"method": method, "trials": trials, "prune": "median"},
            "space": space if method == "grid" else {"x": {"low": 0.0, "high": 1.0}},
        }
    )


def _environment(place: Path) -> dict[str, str]:
    return os.environ | {"TRAINLAB_ROOT": str(place), "OMP_NUM_THREADS": "1", "TRAINLAB_QUIET": "1"}


def started(command: Callable[[Path], list[str]], script: str = SCRIPT) -> float:
    """Return the median of the seconds from a command to the first line of the script that it executes."""
    found = []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as root:
            place = Path(root)
            (place / "train.py").write_text(script)
            since = time.time()
            subprocess.run(
                command(place), env=_environment(place), cwd=place, capture_output=True, check=True
            )
            found.append(float((place / "times.txt").read_text().split()[0]) - since)
    return statistics.median(found)


def queued(one: Callable[[int], None]) -> str:
    """Return the median of the seconds of one trial's way through a queue."""
    found = []
    for number in range(QUEUED):
        since = time.perf_counter()
        one(number)
        found.append(time.perf_counter() - since)
    return f"{statistics.median(found):.3f}"


def ours(root: Path) -> str:
    """Time our queue: take, a run, a beat, reports each followed by the pruner's word, and the end."""
    (root / "train.py").touch()
    ordered = _definition(root, QUEUED, "tpe")
    definition.create(ordered, root / "logs")
    queue, owner = Queue.create(ordered, None, root / "logs"), owners.own("cpu-0", owners.token())

    def one(number: int) -> None:
        trial = queue.take(owner)
        assert trial is not None, number
        queue.started(trial.number, owner, f"tiny/{number}")
        queue.beat(trial.number, owner)
        for ordinal in range(REPORTS):
            queue.report(trial.number, ordinal, 1.0 / (ordinal + 1))
            queue.should_prune(trial.number)
        queue.finish(trial.number, owner, "finished", 1.0)

    return queued(one)


def theirs(root: Path) -> str:
    """Time Optuna alone, on SQLite as well: ask, reports each followed by the pruner's word, tell."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=f"sqlite:///{root}/theirs.db", pruner=optuna.pruners.MedianPruner())

    def one(_: int) -> None:
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        for ordinal in range(REPORTS):
            trial.report(1.0 / (ordinal + 1), ordinal)
            trial.should_prune()
        study.tell(trial, 1.0)

    return queued(one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        of_ours, of_theirs = ours(Path(root)), theirs(Path(root))
    trainlab = str(Path(sys.executable).with_name("trainlab"))
    alone = started(lambda _: [sys.executable, "train.py", "--x=1"])
    by_run = started(lambda _: [trainlab, "run", "train.py", "x=1"])
    seconds, (mib, cpu, large), _ = swept(SCRIPT, given.trials, 2)
    _, _, times = swept(SCRIPT, STARTS + 1, 1)
    _, _, nans = swept(NAN, PRUNED, 1)
    turns, prunes = (
        [begin - before for (before, _), (begin, word) in itertools.pairwise(each) if word == "begin"]
        for each in (times, nans)
    )
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "train.py").write_text(SCRIPT)
        since = time.perf_counter()
        subprocess.run(
            [sys.executable, "train.py", "--x=1"], env=_environment(Path(root)), cwd=root, check=True
        )
        script = time.perf_counter() - since
    rows = [
        ("a trial's way through the queue, SQLite, 10 reports", of_ours, "0.3"),
        ("the same with Optuna alone: ask, report, tell", of_theirs, ""),
        (f"{given.trials} trials of 0 s work, 2 slots", f"{seconds:.1f}", "60"),
        ("one such script alone: Python, `import trainlab`, a run", f"{script:.2f}", ""),
        ("`python train.py` until its first line", f"{alone:.2f}", ""),
        ("`trainlab run train.py` until its first line", f"{by_run:.2f}", ""),
        (
            "from one trial's last line to the next one's first",
            f"{statistics.median(turns):.2f}",
            f"{by_run + 1.5:.2f}",
        ),
        ("from a NaN to the next trial's first line", f"{statistics.median(prunes):.2f}", "5"),
        (f"CPU seconds of the leading process, {given.trials} trials", f"{cpu:.1f}", ""),
    ]
    rays = f"Ray {metadata.version('ray')}" if find_spec("ray") else "Ray is not installed here"
    lines = [
        "# What a sweep costs\n",
        f"Seconds, medians. {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end. Optuna "
        f"{metadata.version('optuna')}; {rays}, and is not compared. The leading process had {mib:.0f} MiB "
        "at most (wanted: 80), and had imported of torch, pandas and transformers: "
        f"{', '.join(large) or 'none'}. Made by `benchmarks/sweeps.py`.\n",
        "| | seconds | wanted, below |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {value} | {wanted} |" for name, value, wanted in rows),
    ]
    table = "\n".join(lines) + "\n"
    given.output.write_text(table)
    print(table)


if __name__ == "__main__":
    main()
