"""`trainlab sweep` and `trainlab worker`, as people type them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from trainlab.sweeps import worker
from waiting import until

TRAINLAB = str(Path(sys.executable).with_name("trainlab"))
# Saves a checkpoint at each step; with `hold` it waits there for a file `go`
SCRIPT = """
import pathlib, time
import trainlab
from trainlab.config import Config
from trainlab.run import checkpoint

class Settings(Config):
    x: int = 1
    rate: float = 0.5
    hold: bool = False

settings = Settings.from_command_line()
with trainlab.Run("tiny", settings, monitor=False) as run:
    first = checkpoint.load(run.checkpoint)["step"] if run.checkpoint else 0
    if first:
        run.rewind(first, run.checkpoint)
    for step in range(first, 3):
        run.log({"val/loss": settings.x + settings.rate / (step + 1)}, step)
        checkpoint.save({"step": step + 1}, run.checkpoints / f"step-{step + 1:08}.ckpt")
        while settings.hold and step == 1 and not pathlib.Path(__file__).with_name("go").exists():
            time.sleep(0.02)
"""


class Typed:
    """The command in a folder with `train.py`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logs = folder, folder / "logs"
        (folder / "train.py").write_text(SCRIPT)
        self.environment = os.environ | {"TRAINLAB_LOGS": str(self.logs), "COLUMNS": "100"}

    def __call__(self, *words: str, code: int = 0) -> str:
        """Type a command; return what it prints, errors behind it."""
        done = subprocess.run(
            [TRAINLAB, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def popen(self, *words: str) -> subprocess.Popen[str]:
        """Type a command that goes on beside the test."""
        return subprocess.Popen(
            [TRAINLAB, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def refused(self, *words: str) -> str:
        """Type a command that is a mistake; return the sentence."""
        return self(*words, code=2)

    def trials(self, name: str) -> list[dict]:
        return json.loads(self("sweep", "show", name, "--format", "json"))["trials"]

    def states(self, name: str) -> list[str]:
        return [each["state"] for each in self.trials(name)]

    def leader(self, name: str) -> psutil.Process:
        """Wait until somebody leads a sweep."""
        until(lambda: worker.leader(name, self.logs), "a process that leads the sweep", 60)
        return psutil.Process(worker.leader(name, self.logs))

    def held(self, count: int) -> None:
        """Wait until so many runs wait for the file `go`."""
        pattern = "tiny/*/checkpoints/step-00000002.ckpt"
        until(lambda: len([*self.logs.glob(pattern)]) == count, f"{count} runs that wait", 60)

    def go(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture
def typed(tmp_path):
    typed = Typed(tmp_path)
    yield typed
    for each in typed.logs.glob(".sweeps/*/"):
        while leader := worker.leader(each.name, typed.logs):
            os.kill(leader, signal.SIGKILL)
    for each in psutil.process_iter(["cmdline"]):
        if str(tmp_path) in " ".join(each.info["cmdline"] or []):
            each.kill()


def test_one_command_tries_all_settings_and_says_which_is_best(typed):
    said = typed(
        "sweep", "train.py", "x=1,2", "rate=0.1,0.2", "--goal", "val/loss", "--slots", "2", "--name", "a"
    )
    head = said.splitlines()
    assert head[0] == "sweep a: 4 trials, grid"
    assert head[1] == "goal: val/loss, lower is better"
    assert head[2].startswith("2 slots on CPUs")
    assert head[3:5] == ["stop: Ctrl-C, or trainlab sweep stop a", "go on: trainlab sweep --resume a"]
    assert "4 of 4 done: 4 finished" in said
    assert "The best 4" in said
    assert f"trainlab run {typed.folder}/train.py x=1 rate=0.1" in said
    trials = typed.trials("a")
    assert [(each["state"], each["settings"]["x"]) for each in trials] == [
        ("finished", x) for x in (1, 1, 2, 2)
    ]
    runs = [json.loads((typed.logs / each["runs"][0] / "run.json").read_text()) for each in trials]
    assert [run["sweep"]["trial"] for run in runs] == [0, 1, 2, 3]
    assert [run["config"]["rate"] for run in runs] == [0.1, 0.2, 0.1, 0.2]
    listed = typed("runs", "--where", "sweep=a", "--sort", "val/loss")
    assert listed.count("-a-00") == 4
    assert "done" in typed("sweep", "list")
    assert typed("sweep", "show", "a", "--format", "csv").startswith("trial,state,value")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x=1,3"], "Train what? Name a notebook or a script first"),
        (["nothing", "x=1,3"], "no notebook or script 'nothing'"),
        (["train.py", "x=1,y", "--goal", "val/loss"], "x=y: should be a valid integer"),
        (["train.py", "x=3..1", "--goal", "val/loss"], "the low end is above the high one"),
        (["train.py", "x=1..3", "--goal", "val/loss", "--trials", "+5"], "expected a whole number"),
        (
            ["train.py", "x=1..3", "--goal", "val/loss", "--slots", "0"],
            "--slots 0: expected a number above 0",
        ),
        (["train.py", "x=1,3", "--goal", "val/loss", "--name", "../a"], "can't name a sweep"),
        (["sweep.toml"], "sweep.toml can't be read"),
        (["--resume", "none"], "No sweep 'none'"),
        (["train.py", "x=1,3", "--goal", "val/loss", "--anyway"], "--anyway: it resumes a sweep"),
        (["show", "none"], "No sweep 'none'"),
        (["stop", "none"], "No sweep 'none'"),
        (["rebuild", "../.."], "can't name a sweep"),
    ],
)
def test_a_mistake_is_a_sentence_and_makes_nothing(typed, words, said):
    assert said in typed.refused("sweep", *words)
    assert not typed.logs.exists()


def test_a_notebook_that_is_called_like_a_command_is_named_by_its_path(typed):
    (typed.folder / "list").mkdir()
    (typed.folder / "list" / "list").write_text("{}")
    assert "is not a notebook" in typed.refused("sweep", "list/list", "x=1,3", "--goal", "val/loss")


def test_a_function_of_one_s_own_is_tried_too(typed):
    (typed.folder / "mine.py").write_text(
        "import trainlab\ndef train(rate: float = 0.1):\n"
        "    with trainlab.Run('mine', {'rate': rate}, monitor=False) as run:\n"
        "        run.log({'val/loss': rate})\n"
    )
    typed("sweep", "mine:train", "rate=0.1,0.2", "--goal", "val/loss", "--name", "a", "--slots", "2")
    assert [(each["value"], each["runs"][0][:5]) for each in typed.trials("a")] == [
        (0.1, "mine/"),
        (0.2, "mine/"),
    ]


def test_a_sweep_goes_on_with_more_trials_and_only_as_what_it_was(typed):
    words = ["train.py", "x=1..9", "--goal", "val/loss", "--method", "random"]
    typed("sweep", *words, "--trials", "1", "--name", "a")
    assert "There is a sweep 'a' already" in typed.refused("sweep", *words, "--name", "a")
    for more, said in [
        (["x=1..8"], "x: the sweep a was made with something else"),
        (["--goal", "val/f1"], "goal: the sweep a was made with something else"),
        (["other.py"], "no notebook or script 'other.py'"),
        (["train.py", "sweep.toml"], "no notebook or script 'train.py sweep.toml'"),
        (["--trials", "5"], "say how many more the sweep is to have"),
        (["--name", "b"], "has its name already"),
        (["-m"], "-m: the sweep a was made with something else"),
        (["--at", "head"], "--at head: the sweep a lies in"),
        (["--ray", "auto"], "no head keeps a, and the nodes of a cluster need one: start a new sweep"),
        (["--ray", "auto", "--at", "head"], "no head keeps a"),
    ]:
        assert said in typed.refused("sweep", "--resume", "a", *more)
    assert typed.states("a") == ["finished"]
    typed("sweep", "--resume", "a", "train.py", "x=1..9", "--trials", "+1")
    (typed.folder / "train.py").write_text(f"{SCRIPT}# changed\n")
    assert "train.py has changed since the sweep a was made" in typed.refused("sweep", "--resume", "a")
    typed("sweep", "--resume", "a", "--anyway", "--trials", "+1")
    assert typed.states("a") == ["finished"] * 3


def test_a_grid_has_no_more_trials(typed):
    typed("sweep", "train.py", "x=1,2", "--goal", "val/loss", "--name", "a", "--slots", "2")
    assert "a grid has all of its combinations" in typed.refused("sweep", "--resume", "a", "--trials", "+1")


def test_a_file_is_a_sweep_and_a_script_gets_its_own_arguments(typed):
    (typed.folder / "sweep.toml").write_text(
        'notebook = "other.py"\ngoal = "val/loss"\nspace = {x = [1, 2]}\nfixed = {rate = 0.25}\n'
    )
    (typed.folder / "other.py").write_text(
        "import argparse, trainlab\np = argparse.ArgumentParser()\np.add_argument('--x', type=int)\n"
        "p.add_argument('--rate', type=float)\np.add_argument('--steps', type=int)\na = p.parse_args()\n"
        "with trainlab.Run('other', a, monitor=False) as run:\n"
        "    run.log({'val/loss': a.x + a.rate + a.steps})\n"
    )
    said = typed("sweep", "sweep.toml", "x=4,5", "--name", "a", "--slots", "2", "--", "--steps", "10")
    assert "its settings can't be checked before it starts" in said
    assert [each["value"] for each in typed.trials("a")] == [14.25, 15.25]


def test_a_detached_sweep_is_small_and_is_stopped_and_resumed_without_a_loss(typed):
    said = typed(
        *("sweep", "train.py", "x=1,2,3", "hold=true", "--goal", "val/loss"),
        *("--slots", "2", "--name", "a", "-d"),
    )
    assert "follow: trainlab sweep show a" in said
    leader = typed.leader("a")
    typed.held(2)
    assert leader.memory_info().rss < 110 << 20
    assert "libtorch" not in Path(f"/proc/{leader.pid}/maps").read_text()
    assert "running here" in typed("sweep", "list")
    assert "goes on already" in typed.refused("sweep", "--resume", "a")
    assert "goes on just now" in typed.refused("sweep", "rebuild", "a")
    said = typed("sweep", "stop", "a")
    assert "a: 0 of 3 done; 3 waiting" in said
    assert "go on: trainlab sweep --resume a" in said
    assert not leader.is_running() or leader.status() == psutil.STATUS_ZOMBIE
    assert "Nobody leads the sweep a" in typed.refused("sweep", "stop", "a")
    assert typed.states("a") == ["waiting"] * 3
    typed.go()
    typed("sweep", "--resume", "a", "--slots", "2")
    assert [(each["state"], len(each["runs"])) for each in typed.trials("a")] == [("finished", 1)] * 3


def test_ctrl_c_lets_the_runs_save_and_says_how_to_go_on(typed):
    leading = subprocess.Popen(
        [TRAINLAB, "sweep", "train.py", "x=1,2", "hold=true", "--goal", "val/loss", "--name", "a"],
        cwd=typed.folder,
        env=typed.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    typed.held(1)
    leading.send_signal(signal.SIGINT)
    said, _ = leading.communicate(timeout=60)
    assert leading.returncode == 128 + signal.SIGINT
    assert said.splitlines()[-1] == "go on: trainlab sweep --resume a"
    assert typed.states("a") == ["waiting"] * 2


def test_a_worker_works_off_what_waits(typed):
    typed("sweep", "train.py", "x=1,2", "hold=true", "--goal", "val/loss", "--name", "a", "-d")
    typed.held(1)
    typed("sweep", "stop", "a")
    typed.go()
    said = typed("worker", "a", "--until-empty", "--slots", "2")
    assert said.startswith("2 slots on CPUs")
    assert typed.states("a") == ["finished"] * 2
    if not Path("/dev/nvidiactl").exists():
        assert "no GPU is seen here" in typed.refused("worker", "--gpus", "all", "--until-empty")


def test_from_make_the_commands_are_make_s(typed):
    typed.environment["TRAINLAB_MAKE"] = "1"
    said = typed("sweep", "train.py", "x=1,2", "--goal", "val/loss", "--name", "a", "--slots", "2")
    assert 'go on: make sweep ARGS="--resume a"' in said


def test_a_lost_database_is_made_anew_from_the_runs(typed):
    typed("sweep", "train.py", "x=1,2", "--goal", "val/loss", "--name", "a", "--slots", "2")
    before = typed.trials("a")
    (typed.logs / ".sweeps" / "a" / "study.db").unlink()
    assert "trainlab sweep rebuild a" in typed.refused("sweep", "show", "a")
    assert "a: 2 of 2 done: 2 finished" in typed("sweep", "rebuild", "a")
    assert [each["value"] for each in typed.trials("a")] == [each["value"] for each in before]


def test_a_module_is_found_from_where_the_sweep_was_made_whoever_goes_on_with_it(typed):
    (typed.folder / "own").mkdir()
    (typed.folder / "own" / "train.py").write_text(SCRIPT)
    typed("sweep", "-m", "own.train", "x=1,2", "hold=true", "--goal", "val/loss", "--name", "a", "-d")
    typed.held(1)
    typed("sweep", "stop", "a")
    (typed.folder / "own" / "go").touch()
    elsewhere, typed.folder = typed.folder, typed.folder / "own"
    typed("sweep", "--resume", "a", "--slots", "2")
    assert typed.states("a") == ["finished"] * 2
    working = {json.loads(each.read_text())["working_folder"] for each in typed.logs.glob("tiny/*/run.json")}
    assert working == {str(elsewhere)}


def test_nothing_is_made_anew_beside_a_worker_that_goes_on_in_the_old_database(typed):
    typed("sweep", "train.py", "x=1,2", "hold=true", "--goal", "val/loss", "--name", "a", "-d")
    typed.held(1)
    leader = typed.leader("a")
    typed("sweep", "stop", "a")
    until(lambda: not leader.is_running(), "the leader's end", 60)
    worker = typed.popen("worker", "a", "--until-empty")
    until(lambda: "running" in typed.states("a"), "a trial that runs", 60)
    assert "Stop that worker first" in typed.refused("sweep", "rebuild", "a")
    typed.go()
    worker.communicate(timeout=120)
    assert typed.states("a") == ["finished"] * 2


def test_what_the_program_is_given_stays_and_holds_no_secret(typed):
    typed("sweep", "train.py", "x=1,2", "--goal", "val/loss", "--name", "a", "--slots", "2")
    assert "has its arguments" in typed.refused("sweep", "--resume", "a", "--", "--hold=true")
    secret = ["--goal", "val/loss", "--name", "b", "--", "--password", "hunter2hunter2"]
    assert "password" in typed.refused("sweep", "train.py", "x=1,2", *secret)
    assert not (typed.logs / ".sweeps" / "b").exists()


def test_a_sweep_whose_output_nobody_reads_any_more_goes_on(typed):
    process = typed.popen("sweep", "train.py", "x=1,2,3", "--goal", "val/loss", "--name", "a")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert typed.states("a") == ["finished"] * 3


def test_a_detached_sweep_that_dies_at_once_says_why_and_nobody_is_told_to_follow_it(typed):
    typed("sweep", "train.py", "x=1,2", "--goal", "val/loss", "--name", "a", "--slots", "2")
    (typed.logs / ".sweeps" / "a" / "study.db").write_bytes(b"no database" * 999)
    said = typed.refused("sweep", "--resume", "a", "-d")
    assert "It has ended at once" in said
    assert "trainlab sweep rebuild a" in said
    assert "follow:" not in said
