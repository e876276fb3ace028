"""Containers as hosts on a network of their own: a head, workers, a shared `logs/`; and what befalls them."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from containers import GROUP, USER
from project import CHECKOUT, own_image, own_images
from trainlab.run import events, record
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    Mounts = dict[str, Path]  # a folder of this machine by where a host has it

GRACE = 6.0  # seconds, TRAINLAB_GRACE in the hosts
PASSWORD = "of these tests"
DISK = "120m"  # of the head: an empty database takes 40 MB, its journal 16 more
SWEEP = "tiny"
GOAL = "val/loss"
# Logs its goal and saves a checkpoint at each step. Behind step `hold` it waits for a file `go`. Meanwhile
# it writes down that it lives: who, when by the machine's one clock that nobody sets, and at which step.
SCRIPT = """
import os, pathlib, signal, socket, time, trainlab
from trainlab.config import Config
from trainlab.run import checkpoint

class Settings(Config):
    x: float = 1.0
    steps: int = 4
    hold: int = 1
    deaf: bool = False

s = Settings.from_command_line()
go = pathlib.Path(__file__).with_name("go")
with trainlab.Run("tiny", s, monitor=False) as run:
    def alive(step):
        with (run.folder / "alive").open("a") as file:
            file.write(f"{socket.gethostname()} {time.clock_gettime(time.CLOCK_BOOTTIME)} {step}\\n")
    if s.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    first = 0
    if run.checkpoint:
        first = checkpoint.load(run.checkpoint)["step"]
        run.rewind(10 * first, run.checkpoint)
    for step in range(first, s.steps):
        alive(step)
        run.log({"val/loss": s.x + 1 / (step + 1)}, 10 * step)
        checkpoint.save({"step": step + 1}, run.checkpoints / f"step-{step + 1:08}.ckpt")
        while step == s.hold and not go.exists():
            alive(step)
            time.sleep(0.05)
"""


def docker(*words: str, check: bool = True) -> str:
    """Call Docker; return what it prints."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Told:
    """What the database says of a trial: its state by Optuna's name, and what the queue knows of it."""

    state: str
    facts: dict[str, Any]

    @property
    def host(self) -> str:
        """Who runs it, '' for nobody."""
        return (self.facts["owner"] or {}).get("host", "")


@dataclass
class Hosts:
    """A network with a head, and hosts that come and go; `folder` is the disk that they share."""

    folder: Path
    name: str
    started: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Make the network, and start the head on a disk of its own, small enough to be filled."""
        docker("network", "create", self.name)
        (self.folder / "train.py").write_text(SCRIPT)
        for name in ("logs", "data", "notebooks"):
            (self.folder / name).mkdir()
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, USER, GROUP)
        self.folder.chmod(0o755)
        options = "type=tmpfs", "device=tmpfs", f"o=size={DISK},mode=1777"
        docker("volume", "create", *(f"--opt={each}" for each in options), self.name)
        disk = f"--volume={self.name}:/var/lib/head"
        keeper = ["--entrypoint=sleep", disk]  # while it is mounted somewhere the disk keeps what it holds
        self.start("disk", [own_image("head"), "infinity"], *keeper, user="1000")
        known = [disk, "--env", f"HEAD_PASSWORD={PASSWORD}", "--restart=unless-stopped"]
        self.start("head", [own_image("head")], *known, user="1000")
        self.until_head_answers()

    def end(self) -> None:
        for name in self.started:
            docker("rm", "--force", "--volumes", self.container(name), check=False)
        docker("network", "rm", self.name, check=False)
        docker("volume", "rm", self.name, check=False)

    def container(self, host: str) -> str:
        return f"{self.name}-{host}"

    def start(self, host: str, command: Sequence[str], *options: str, user: str = f"{USER}:{GROUP}") -> None:
        """Start a host as docker-compose.yml does: read-only, without privileges."""
        hardened = ["--init", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true"]
        known = ["--detach", "--name", self.container(host), "--hostname", host, "--network", self.name]
        known += ["--network-alias", host, "--tmpfs", "/tmp:mode=1777,exec", "--user", user]
        docker("run", *known, *hardened, *options, *command)
        self.started.append(host)

    def compute(self, host: str, *command: str, mounts: Mounts | None = None, **environment: str) -> None:
        """Start a host that computes, `trainlab COMMAND`; `mounts` are beside the shared folder."""
        known = {
            "TRAINLAB_GRACE": str(GRACE),
            "TRAINLAB_HEAD_PASSWORD": PASSWORD,
            "OMP_NUM_THREADS": "1",
            "HOME": "/tmp",
            "NO_COLOR": "1",
        }
        options = [f"--env={name}={value}" for name, value in (known | environment).items()]
        places: Mounts = {"/workspace": self.folder, "/workspace/src:ro": CHECKOUT / "src"}
        places |= mounts or {}
        options += [f"--volume={path}:{place}" for place, path in places.items()]
        self.start(host, [own_images()["jupyter"], "trainlab", *command], *options)

    def lead(self, host: str, *words: str, trials: int = 2) -> None:
        """Start a host that leads a sweep over x = 1, 2, ..., and runs a trial at a time."""
        space = "x=" + ",".join(str(1.0 + each) for each in range(trials))
        said = ["--goal", GOAL, "--mode", "min", "--name", SWEEP, "--slots", "1", "--at", "head"]
        self.compute(host, "sweep", "train.py", space, *words, *said)

    def resume(self, host: str) -> None:
        """Start a host that leads the sweep from where it was left."""
        self.compute(host, "sweep", "--resume", SWEEP, "--slots", "1", "--at", "head")

    def work(self, host: str, mounts: Mounts | None = None, **environment: str) -> None:
        """Start a host that takes trials until none is left."""
        said = ["--join", "head", "--slots", "1", "--until-empty"]
        self.compute(host, "worker", *said, mounts=mounts, **environment)

    def said(self, host: str) -> str:
        """Return what a host has printed."""
        done = subprocess.run(
            ["docker", "logs", self.container(host)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        return done.stdout

    def state(self, host: str) -> dict[str, Any]:
        return json.loads(docker("inspect", self.container(host)))[0]["State"]

    def kill(self, host: str) -> None:
        """Take a host's power away: all that runs there is gone at once."""
        docker("kill", self.container(host))

    def cut(self, host: str) -> None:
        docker("network", "disconnect", self.name, self.container(host))

    def heal(self, host: str) -> None:
        docker("network", "connect", "--alias", host, self.name, self.container(host))

    def until_head_answers(self) -> None:
        asked = ["docker", "exec", self.container("head"), "health"]
        until(
            lambda: subprocess.run(asked, capture_output=True, check=False).returncode == 0,
            "the head answers",
        )

    def asked(self, query: str) -> list[tuple[Any, ...]]:
        """Return what the database answers, from outside of the hosts' network."""
        networks = json.loads(docker("inspect", self.container("head")))[0]["NetworkSettings"]["Networks"]
        where = {"host": networks[self.name]["IPAddress"], "dbname": "trainlab", "user": "trainlab"}
        with psycopg.connect(**where, password=PASSWORD, connect_timeout=5) as connection:
            return connection.execute(query).fetchall()

    def trials(self) -> list[Told]:
        """Return what the database says of each trial, by their numbers; none before there is a sweep."""
        query = (
            "select state, value_json from trials join trial_user_attributes using (trial_id) "
            "where key = 'trainlab' order by number"
        )
        try:
            return [Told(state, json.loads(facts)) for state, facts in self.asked(query)]
        except psycopg.errors.UndefinedTable:
            return []

    def trial_of(self, folder: Path) -> Told:
        """Return what the database says of a run's trial."""
        return self.trials()[int(folder.name[-3:])]

    def folders(self) -> list[Path]:
        """Return the runs' folders in the order of their trials."""
        found = [path.parent for path in self.folder.glob("logs/*/*/run.json")]
        return sorted(found, key=lambda each: each.name[each.name.index(SWEEP) :])

    def held(self, count: int) -> list[Path]:
        """Wait until so many runs have logged two values and wait; return all runs' folders."""
        until(
            lambda: sum(len(values(each)) == 2 and bool(lives(each)) for each in self.folders()) >= count,
            f"{count} runs wait at their second value",
            120,
        )
        return self.folders()

    def go(self) -> None:
        (self.folder / "go").touch()

    def ended(self, *hosts: str) -> None:
        """Wait until hosts have done their work; assert that all of it succeeded."""
        for host in hosts:
            until(lambda host=host: self.state(host)["Status"] == "exited", f"{host} ends", 180)
            assert self.state(host)["ExitCode"] == 0, self.said(host)

    def assert_complete(self, count: int) -> None:
        """Assert that each trial is finished with its value, in one folder, whose curve is whole."""
        found = self.trials()
        assert [each.state for each in found] == ["COMPLETE"] * count, found
        query = "select number, value from trials join trial_values using (trial_id) order by number"
        assert self.asked(query) == [(number, 1.25 + number) for number in range(count)]
        folders = self.folders()
        assert len(folders) == count, "one folder a trial"
        for folder, trial in zip(folders, found, strict=True):
            assert trial.facts["runs"] == [folder.relative_to(self.folder / "logs").as_posix()]
            known = record.read(folder)
            assert (known.status, known.reason) == ("finished", None)
            curve = events.read(folder).curves[GOAL]
            assert curve.steps == [0, 10, 20, 30], "one value a step"
            assert_one_writer(folder)


def values(folder: Path) -> list[float]:
    curve = events.read(folder).curves.get(GOAL)
    return curve.values if curve else []


def lives(folder: Path) -> list[tuple[str, float, int]]:
    """Return who wrote into a run, when and at which step, in the order in which it was written."""
    path = folder / "alive"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(host, float(when), int(step)) for host, when, step in map(str.split, lines)]


def writers(folder: Path) -> list[str]:
    """Return the hosts that wrote into a run, one after the other."""
    found: list[str] = []
    for host, _, _ in lives(folder):
        if found[-1:] != [host]:
            found.append(host)
    return found


def assert_one_writer(folder: Path) -> None:
    """Assert that no host wrote into a run once another one had begun to."""
    seen = writers(folder)
    assert len(seen) == len(set(seen)), seen
