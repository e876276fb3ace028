"""What is left of runs that are killed, by SIGKILL at random moments, and resumed each time.

`benchmarks/kills.py [--kills 1000] [--seed 0]` writes benchmarks/kills.md. Tiny trainings are killed while
they train, save, evaluate, write run.json or resume: a loop of one's own and a LightningModule as scripts,
which are forked to save the seconds of the imports, and a notebook run headless, of which the kernel, the
worker, the viewer or all at once are killed. A run is killed some times and then ends by itself; its curves
are compared with those of one that was never killed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import killed
import psutil
from killed import BOARD, PHASES, RESUME, SAVE_EVERY, Board

from trainlab.run import events, lock, record

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPTS = ("loop", "lightning")
HEADLESS = ("kernel", "worker", "viewer", "all")
SHARES = {"loop": 0.6, "lightning": 0.3, "headless": 0.1}
MOST_OF_A_RUN = 8  # kills
LATEST = 0.01  # seconds from a phase's begin to the kill, at most
LONGEST_RESUME, LONGEST_START = 0.15, 6.0  # seconds of a script, or a kernel, to its first step
PATIENCE = 900.0  # seconds for a life, on a very busy machine
ORPHANHOOD = 20.0  # seconds in which what a killed process has started must be gone
ROLES = {"worker": "trainlab.headless.worker", "kernel": "ipykernel_launcher", "guard": "read -r group"}
CLOCKS = ("train/samples_per_second", "vitals/")
PROVEN = (
    "Lost: 0 runs. The curves of each are equal, number by number, to those of the one that was not killed; "
    "each resume went on from the newest checkpoint that was saved, or from a newer one; no temporary file, "
    "no process and no lock was left."
)
NOTEBOOK = """
import killed
killed.loop(None, resume, margin=margin)
"""


@dataclass
class Tally:
    """What was killed while doing what, and what came of it."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)  # by who was killed, and the phase
    faults: list[str] = field(default_factory=list)
    runs: int = 0
    unborn: int = 0  # killed before there was a run
    repeated: int = 0  # steps made twice: those since a checkpoint
    most_repeated: int = 0


class Killer:
    """Kills runs in a folder of its own, and looks at what is left of them."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.chance, self.tally = place, random.Random(seed), Tally()
        self.numbers = itertools.count()
        self.logs, self.temporary = place / "logs", place / "tmp"
        for each in (self.logs, self.temporary, place / "notebooks", place / "data"):
            each.mkdir(parents=True)
        shutil.copy(killed.__file__, place / "notebooks" / "killed.py")
        _write_notebook(place / "notebooks" / "mine.ipynb")
        self.environment = {
            "TRAINLAB_ROOT": str(place),
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
        }
        self._new_board()
        self.whole = {kind: self._undisturbed(kind) for kind in SCRIPTS}

    def _new_board(self) -> None:
        """Take another one for each run: what outlived the one before would write on it."""
        path = self.place / f"board-{next(self.numbers)}"
        self.environment[BOARD], self.board = str(path), Board(path)

    def run(self, kind: str, whom: str, most: int) -> None:
        """Start a run, kill it so often, resume it each time, let it end, and judge it."""
        folder: Path | None = None
        before, faults = set(self.logs.glob("*/*")), len(self.tally.faults)
        self._new_board()
        for number in range(most + 1):
            saved, sessions = self.board.saved, self._sessions(folder)
            phase = self._life(whom, folder, kill=number < most)
            folder = next(iter(set(self.logs.glob("*/*")) - before), None)
            if phase is not None:
                self.tally.kills[whom, PHASES[phase]] += 1
                self._await_end(whom, folder)
            if folder is None or not (folder / record.FILE).exists():
                self.tally.unborn += 1
                shutil.rmtree(folder or self.place / "nothing", ignore_errors=True)
                folder = None
                continue
            self._check_steps(folder, saved, sessions)
            if phase is None or record.read(folder).status == "finished":
                break
        if folder is None:
            return
        self._judge(folder, kind)
        self.tally.runs += 1
        if len(self.tally.faults) == faults:
            shutil.rmtree(folder)

    def _life(self, whom: str, folder: Path | None, *, kill: bool) -> int | None:
        """Let a run live until it ends, or until it is killed; return what it did then."""
        self.board.phase, reference = RESUME, str(folder or "")
        target, wait = self.chance.randrange(len(PHASES)), LATEST
        if target == RESUME:
            wait = LONGEST_RESUME if whom in SCRIPTS else LONGEST_START
        wait, began = self.chance.uniform(0, wait), time.monotonic()
        started = self._fork(whom, reference) if whom in SCRIPTS else self._start(reference)
        while kill and not _over(started):
            phase = self.board.phase
            late = target == RESUME and (phase != RESUME or time.monotonic() - began > wait)
            if late or (phase == target != RESUME):
                if not late:
                    time.sleep(wait)
                victims = [started] if whom in SCRIPTS else _victims(started, whom)
                phase = self.board.phase
                if victims and not _over(started):
                    for each in victims:
                        with suppress(psutil.NoSuchProcess):
                            each.kill()
                    _wait(started)
                    return phase
            time.sleep(0.0003)
        _wait(started)
        return None

    def _fork(self, kind: str, reference: str) -> psutil.Process:
        process = os.fork()
        if process:
            return psutil.Process(process)
        code = 1
        try:
            os.setpgid(0, 0)
            output = os.open(self.place / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.environ.update(self.environment)
            getattr(killed, kind)(self.logs, reference)
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)

    def _start(self, reference: str) -> psutil.Process:
        words = ["--resume", reference] if reference else []
        command = [sys.executable, "-c", "from trainlab.cli import main; main()", "run", "mine", *words]
        with (self.place / "output").open("ab") as output:
            return psutil.Popen(
                command, env=os.environ | self.environment, stdout=output, stderr=output, cwd=self.place
            )

    def _await_end(self, whom: str, folder: Path | None) -> None:
        """Wait for the end of what outlives the killed: a viewer's worker works on, all others must go."""

        def ended() -> bool:
            alive = folder is not None and lock.alive(folder)
            return not alive and (whom in SCRIPTS or not _processes(self.place))

        if not _until(ended, PATIENCE if whom == "viewer" else ORPHANHOOD):
            self.tally.faults.append(f"{folder}: {whom} was killed, and {_processes(self.place)} are left")

    def _sessions(self, folder: Path | None) -> int:
        return len(record.read(folder).resumes) if folder else 0

    def _check_steps(self, folder: Path, saved: int, sessions: int) -> None:
        """Check that the session before went on from what was saved, and what this one has lost."""
        resumes = record.read(folder).resumes
        if len(resumes) > sessions and (step := resumes[-1].step) is not None and step < saved:
            self.tally.faults.append(f"{folder.name}: went on at {step} where {saved} were saved")
        curve = events.read(folder).curves.get("train/loss")
        logged = 0 if curve is None or not len(curve.steps) else int(curve.steps[-1]) + 1
        # what a session went on from was whole, even if its writer was killed before it told the board
        since = logged - max(self.board.saved, *(each.step or 0 for each in resumes), 0)
        self.tally.most_repeated = max(self.tally.most_repeated, since)
        if since > SAVE_EVERY:
            self.tally.faults.append(f"{folder.name}: {since} steps since the last checkpoint are lost")

    def _judge(self, folder: Path, kind: str) -> None:
        known = record.read(folder)
        if known.status != "finished":
            self.tally.faults.append(f"{folder.name}: {known.status}, {known.reason}")
        if _curves(folder) != self.whole["loop" if kind == "headless" else kind]:
            self.tally.faults.append(f"{folder.name}: its curves differ from the run's that was not killed")
        left = [each.name for each in folder.rglob(".*") if each.name not in (lock.RUN, lock.RUNNER)]
        left += [each.name for each in self.temporary.glob("trainlab-*")]
        if left:
            self.tally.faults.append(f"{folder.name}: left behind: {', '.join(left)}")
        if lock.alive(folder) or (kind == "headless" and _processes(self.place)):
            self.tally.faults.append(f"{folder.name}: still at work: {_processes(self.place)}")

    def _undisturbed(self, kind: str) -> dict[str, Any]:
        self._life(kind, None, kill=False)
        (folder,) = (self.logs / kind).iterdir()
        found = _curves(folder)
        shutil.rmtree(folder)
        return found


def _write_notebook(path: Path) -> None:
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    parameters = new_code_cell('margin = 1.0\nresume = ""', metadata={"tags": ["parameters"]})
    made = new_notebook(cells=[parameters, new_code_cell(NOTEBOOK)])
    made.metadata.trainlab = {"config": "killed:Settings"}
    nbformat.write(made, path)


def _victims(viewer: psutil.Process, whom: str) -> list[psutil.Process]:
    """Return the processes of a headless run that are to be killed, none while they are not all there."""
    found: dict[str, list[psutil.Process]] = {"viewer": [viewer], "worker": [], "kernel": [], "guard": []}
    with suppress(psutil.NoSuchProcess):
        for each in viewer.children(recursive=True):
            line = " ".join(each.cmdline())
            for role, words in ROLES.items():
                found[role] += [each] if words in line else []
    if whom != "all":
        return found[whom]
    return [each for role in found.values() for each in role] if found["kernel"] else []


def _over(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait(process: psutil.Process) -> None:
    try:
        process.wait(PATIENCE)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait()


def _processes(place: Path) -> list[str]:
    """Return the command lines of what works on a folder."""
    found = []
    for each in psutil.process_iter(["cmdline"]):
        line = " ".join(each.info["cmdline"] or [])
        with suppress(psutil.Error):
            if str(place) in line or each.environ().get(BOARD, "").startswith(str(place)):
                found += [line] if each.pid != os.getpid() and each.status() != psutil.STATUS_ZOMBIE else []
    return found


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _curves(folder: Path) -> dict[str, Any]:
    curves = events.read(folder).curves
    return {
        tag: (list(map(int, points.steps)), list(map(float, points.values)))
        for tag, points in sorted(curves.items())
        if not tag.startswith(CLOCKS)
    }


def kill(place: Path, wanted: int, seed: int, seconds: float = float("inf")) -> Tally:
    """Kill so often, or for so long, and return what came of it."""
    import lightning  # noqa: F401 - once, for all children
    import torch.utils.tensorboard

    import trainlab.training.trainer  # noqa: F401

    torch.set_num_threads(1)
    killer, end = Killer(place, seed), time.monotonic() + seconds
    quota = {kind: round(wanted * share) for kind, share in SHARES.items()}
    whoever = itertools.cycle(HEADLESS)
    while (left := wanted - killer.tally.kills.total()) > 0 and time.monotonic() < end:
        done = {kind: sum(n for (who, _), n in killer.tally.kills.items() if who == kind) for kind in SCRIPTS}
        done["headless"] = killer.tally.kills.total() - sum(done.values())
        kind = min(filter(quota.get, quota), key=lambda each: done[each] / quota[each])
        most = min(left, killer.chance.randint(1, MOST_OF_A_RUN if kind in SCRIPTS else 2))
        killer.run(kind, kind if kind in SCRIPTS else next(whoever), most)
    return killer.tally


def table(tally: Tally, seed: int, seconds: float) -> str:
    names = {"loop": "a script with a loop of its own", "lightning": "a script with our Trainer"}
    rows = []
    for who in (*SCRIPTS, *HEADLESS):
        counts = [tally.kills[who, phase] for phase in PHASES]
        name = names.get(who, f"headless: {'all three, and the guard' if who == 'all' else f'the {who}'}")
        rows.append(f"| {name} | {' | '.join(map(str, counts))} | {sum(counts)} |")
    counts = [sum(tally.kills[who, phase] for who in (*SCRIPTS, *HEADLESS)) for phase in PHASES]
    rows.append(f"| together | {' | '.join(map(str, counts))} | {sum(counts)} |")
    faults = [f"- {each}" for each in tally.faults] or [PROVEN]
    what = (
        f"{tally.kills.total():,} SIGKILLs of {tally.runs:,} runs, each resumed. {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} at the end, {seconds / 60:.0f} minutes, seed {seed}. A checkpoint "
        f"every {SAVE_EVERY} steps; at most {tally.most_repeated} were made again. {tally.unborn} of the "
        "kills came before there was a run.json; an empty folder stays then. Made by `benchmarks/kills.py`."
    )
    head = f"| killed while | {' | '.join(PHASES)} | together |"
    return "\n".join(
        ["# Kills\n", what, "", head, "| --- |" + " ---: |" * (len(PHASES) + 1), *rows, "", *faults]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end earlier than that")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    since = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        tally = kill(Path(place) / "project", options.kills, options.seed, 60 * options.minutes)
    text = table(tally, options.seed, time.monotonic() - since) + "\n"
    options.output.write_text(text)
    print(text)
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
