"""`trainlab run train.py`: any Python script, recorded as a notebook is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import COMMAND, Lab, git, processes
from trainlab import origin, system
from trainlab.config import Config
from trainlab.errors import UserError
from trainlab.headless import launcher
from trainlab.run import record
from waiting import until

ARGPARSE = """
import argparse, os, sys
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--flag", action="store_true")
parser.add_argument("files", nargs="*")
print(parser.parse_args())
print(os.getcwd(), os.environ.get("JUPYTER_TOKEN"), os.environ["TRAINLAB_RUN"])
print("to stderr", file=sys.stderr)
"""
WAITING = """
import os, time
with open(os.path.join(os.environ["TRAINLAB_RUN"], "mine.txt"), "a") as file:
    file.write("begun\\n")
print("go", flush=True)
try:
    time.sleep(600)
finally:
    print("tidied up")
"""
OURS = """
import trainlab
from trainlab.config import Config
from trainlab.run import checkpoint

class Settings(Config):
    lr: float = 1.0
    epochs: int = 1

with trainlab.Run("mine", Settings.from_command_line(), metrics=["val/loss"], monitor=False) as run:
    step = checkpoint.load(run.checkpoint)["step"] if run.checkpoint else 0
    print("from", step, "resumed", run.resumed)
    if run.checkpoint:
        run.rewind(step, run.checkpoint)
    run.log({"val/loss": 1.0 - step / 10}, step)
    checkpoint.save({"step": step + 1}, run.checkpoints / f"step-{step + 1:08}.ckpt")
    if not step:
        raise ValueError("the first time it breaks")
"""


def script(lab: Lab, body: str, name: str = "train.py") -> Path:
    path = lab.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(body)
    return path


def test_any_script_is_recorded_with_its_arguments_and_what_it_prints(lab):
    path = script(lab, ARGPARSE)
    done = lab.run("train.py", "lr=0.1", "--", "--flag", "a=b", "--", "-x")
    assert done.returncode == 0, done.stdout + done.stderr
    known, folder = lab.record(), lab.folder()
    assert "Namespace(lr=0.1, flag=True, files=['a=b', '-x'])" in lab.log()
    assert f"{lab.root} None {folder}\n" in lab.log()
    assert "to stderr\n" in done.stdout
    assert "finished after" in lab.log()
    assert (folder.parent.name, folder.name[15:]) == ("train", "-lr0.1")
    assert (known["status"], known["config"]) == ("finished", {"lr": 0.1})
    assert known["script"] == str(path)
    assert known["arguments"] == ["--lr=0.1", "--flag", "a=b", "--", "-x"]
    assert known["git"] is None
    assert known["trainlab_git"] == system.git(origin.OURS)


@pytest.mark.parametrize("words", [["mine/train.py"], ["-m", "cProfile", "--", "mine/train.py"]])
def test_a_script_is_of_its_own_repository_whatever_executes_it(lab, words):
    path = script(lab, "print(1)", "mine/train.py")
    git(path.parent, "init", "-q")
    git(path.parent, "add", ".")
    git(path.parent, "commit", "-qm", "first")
    path.with_name("new.py").touch()
    assert lab.run("--name", "first", *words).returncode == 0
    assert lab.record()["git"] == {"commit": git(path.parent, "rev-parse", "HEAD"), "dirty": True}
    assert lab.folder().name.endswith("-first")


@pytest.mark.parametrize("place", ["", "/tensorboard"])
def test_event_files_that_a_script_writes_itself_are_in_the_table(lab, place):
    script(
        lab,
        "import os\nfrom torch.utils.tensorboard import SummaryWriter\n"
        f"with SummaryWriter(os.environ['TRAINLAB_RUN'] + '{place}') as writer:\n"
        "    writer.add_scalar('val/loss', 0.5, 3)\n    writer.add_scalar('val/loss', 0.75, 4)\n",
    )
    assert lab.run("train.py").returncode == 0
    listed = subprocess.run(
        [*COMMAND[:-1], "runs", "--format", "json"], env=lab.environment, capture_output=True, check=True
    )
    (row,) = (row for row in json.loads(listed.stdout) if row["last"])
    assert (row["last"]["val/loss"], row["best"]["val/loss"]) == (0.75, 0.5)
    assert row["status"] == ("unknown" if place else "finished")


def test_a_script_s_own_run_is_the_recorded_one_and_goes_on_with_the_same_arguments(lab):
    script(lab, OURS)
    done = lab.run("train.py", "lr=0.5", "--", "--epochs", "3")
    assert done.returncode == 1
    assert "Traceback" in done.stdout, "what it did not expect"
    known = lab.record()
    assert (known["status"], known["reason"]) == ("failed", "ValueError: the first time it breaks")
    assert (known["experiment"], known["config"]) == ("mine", {"lr": 0.5, "epochs": 3})
    before = lab.folder()
    done = lab.run("train.py", "--resume", "last")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "from 1 resumed True" in done.stdout
    known = lab.record()
    assert lab.folder() == before
    assert (known["status"], known["reason"], known["resumes"][0]["step"]) == ("finished", None, 1)
    assert known["best"]["val/loss"] == {"value": 0.9, "step": 1}
    assert done.stdout.count("from") == 1, "what the first session printed is not shown again"


def test_of_a_script_s_processes_the_first_has_its_run_and_each_other_one_of_its_own(lab):
    one = "import trainlab; trainlab.Run('mine', {'number': %d}, monitor=False).finish()"
    script(
        lab,
        "import subprocess, sys\nfor number in range(3):\n"
        f"    subprocess.run([sys.executable, '-c', {one!r} % number], check=True)\n",
    )
    assert lab.run("train.py", "--name", "first").returncode == 0
    found = [json.loads((folder / "run.json").read_text()) for folder in lab.folders()]
    assert sorted(each["config"]["number"] for each in found) == [0, 1, 2]
    assert [each["config"]["number"] for each in found if each["run"].endswith("-first")] == [0]
    assert {each["status"] for each in found} == {"finished"}


@pytest.mark.parametrize(
    ("body", "code", "reason", "told"),
    [
        ("import sys\nprint('half'); sys.exit(3)", 3, "exit code 3: half", ""),
        ("raise SystemExit(4)", 4, "exit code 4", ""),
        ("def f():\n  raise OSError('lost')\ntry:\n  1/0\nexcept Exception:\n  f()", 1, "OSError: lost", ""),
        ("import os\nos.kill(os.getpid(), 9)", 1, "the script died (signal 9)", ""),
        ("import os\nos.kill(os.getpid(), 11)", 1, "the script died (signal 11, SIGSEGV)", ""),
        (
            ARGPARSE.replace("lr", "rate"),
            2,
            "exit code 2: train.py: error: unrecognized",
            "error: exit code 2",
        ),
    ],
)
def test_a_script_that_fails_says_why_and_hands_on_its_exit_code(lab, body, code, reason, told):
    script(lab, body)
    done = lab.run("train.py", *(["lr=1"] if "argparse" in body else []))
    assert done.returncode == code
    assert (lab.record()["status"], lab.record()["reason"][: len(reason)]) == ("failed", reason)
    assert done.stderr.startswith(told)


@pytest.mark.parametrize(
    ("number", "code", "by"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_script_that_is_stopped_tidies_up_and_says_how_to_go_on(lab, number, code, by):
    path = script(lab, WAITING)
    viewer = lab.start("train.py")
    until(lambda: "go\n" in lab.log(), "the script")
    viewer.send_signal(number)
    out, errors = viewer.communicate(timeout=60)
    assert (viewer.returncode, errors) == (code, "")
    assert "tidied up\n" in out
    assert "Traceback" not in out
    assert "KeyboardInterrupt" not in out
    assert (lab.record()["status"], lab.record()["reason"]) == ("interrupted", by)
    typed = f"trainlab run {path} --resume {lab.folder().name}"
    assert out.splitlines()[-1].endswith(
        f"by {by}: no checkpoint was saved by trainlab; the script's own files are in the run's folder. "
        f"Resume it: {typed}"
    )
    script(lab, WAITING.replace("600", "0"))
    assert lab.run(*typed.split()[2:]).returncode == 0
    assert (lab.folder() / "mine.txt").read_text() == "begun\n" * 2
    assert lab.record()["status"] == "finished"


def test_a_detached_script_is_stopped_by_its_command_and_leaves_nothing_behind(lab):
    script(lab, "import subprocess\nsubprocess.Popen(['sleep', '4321'])\n" + WAITING)
    folder, follow, stop = lab.run("train.py", "-d").stdout.splitlines()
    assert follow == f"follow: trainlab logs {Path(folder).name}"
    until(lambda: "go\n" in lab.log(), "the script")
    done = subprocess.run(
        [*COMMAND[:-1], *stop.split()[2:]],
        env=lab.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{lab.folder().name}: interrupted, no checkpoint was saved by trainlab"), (
        done
    )
    until(lambda: not processes("sleep", "4321"), "the end of what it started")


def test_a_script_ends_with_its_worker(lab):
    path = script(lab, WAITING)
    viewer = lab.start("train.py")
    until(lambda: "go\n" in lab.log(), "the script")
    (worker,) = processes("trainlab.headless.worker", str(lab.folder()))
    worker.kill()
    assert viewer.wait(20) == 137
    until(lambda: not processes(sys.executable, str(path)), "the end of the script")
    assert lab.record()["reason"] == "the runner died (signal 9, SIGKILL)"
    viewer.communicate()


@pytest.mark.parametrize("name", ["mine.train", "mine"])
def test_a_module_is_executed_as_python_does_it(lab, name):
    script(lab, "from . import VALUE\nimport sys\nprint(__name__, VALUE, sys.argv[1:])", "mine/train.py")
    (lab.root / "mine" / "__init__.py").write_text("VALUE = 7")
    (lab.root / "mine" / "__main__.py").write_text(
        "import sys\nfrom . import train\nprint('__main__ 7', sys.argv[1:])"
    )
    done = lab.run("-m", name, "lr=1", "--name", "first")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "__main__ 7 ['--lr=1']" in lab.log()
    assert lab.folder().parent.name == name.rpartition(".")[2]
    assert lab.run("-m", name, "--resume", "first").returncode == 0
    assert lab.log().count("__main__ 7 ['--lr=1']") == 2


def test_no_secret_of_a_script_s_is_recorded(lab):
    lab.environment["OPENAI_API_KEY"] = key = "sk-0123456789abcdef"
    script(lab, f"import sys\nprint(sys.argv[-1][-9:] == '{key[-9:]}', sys.argv[-1], flush=True)")
    done = lab.run("train.py", "--", "--note", key)
    assert "True ***" in done.stdout
    assert lab.record()["arguments"] == ["--note", "***"]
    for path in lab.folder().rglob("*"):
        assert path.is_dir() or key not in path.read_text(errors="replace"), path
    done = lab.run("train.py", "--resume", "last")
    assert (done.returncode, done.stderr) == (
        2,
        "error: Say the arguments again, they hold a secret: --note ***\n",
    )
    assert lab.run("train.py", "--resume", "last", "--", "--note", key).returncode == 0


@pytest.mark.parametrize(
    ("words", "options", "told"),
    [
        (["deaf.py", "lr=1"], {}, r"deaf\.py does not look at its arguments.* run deaf\.py -- --lr=1"),
        (["train.py", "lr"], {}, "Expected key=value"),
        (["train.py"], {"arguments": ["--api-key", "sk-1234567890"]}, "a secret is no parameter"),
        (["plain"], {"arguments": ["--flag"]}, "no arguments behind `--`"),
        (["trian.py"], {}, r"no notebook or script 'trian\.py'"),
        (["no.such"], {"module": True}, r"no module 'no\.such'"),
        (["train.py"], {"resume": "last"}, "No run of train"),
    ],
)
def test_a_mistake_is_told_and_makes_nothing(here, monkeypatch, words, options, told):
    monkeypatch.chdir(here.root)
    script(here, "print('large margin')", "deaf.py")
    script(here, ARGPARSE)
    here.notebook("plain", "1")
    arguments = options.pop("arguments", [])
    with pytest.raises(UserError, match=told):
        launcher.run(words[0], words[1:], arguments, **options)
    assert list((here.root / "logs").iterdir()) == []


def test_a_resumed_script_keeps_its_arguments_and_its_working_folder(here, monkeypatch):
    place = here.root / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(launcher, "start", lambda _, held, *__: held.release() or subprocess.Popen(["true"]))
    script(here, ARGPARSE, "place/train.py")
    assert launcher.run("train.py", ["lr=1"], detach=True) == 0
    for refused in ({"words": ["lr=2"]}, {"words": ["lr=1"], "arguments": ["--flag"]}):
        with pytest.raises(UserError, match="gets its first arguments again: --lr=1"):
            launcher.run("train.py", resume="last", **refused)
    with pytest.raises(UserError, match="has its name already"):
        launcher.run("train.py", resume="last", name="new")
    monkeypatch.chdir(here.root)
    path = script(here, ARGPARSE)
    assert launcher.run("train.py", ["lr=1"], resume="last", detach=True) == 0
    assert (here.record()["script"], here.record()["working_folder"]) == (str(path), str(place))
    place.rename(here.root / "elsewhere")
    with pytest.raises(UserError, match="place, which is no longer there"):
        launcher.run("train.py", resume="last")


@pytest.mark.parametrize(
    "fields", [{}, {"arguments": "--lr=1"}, {"arguments": [1]}, {"arguments": [], "working_folder": None}]
)
def test_a_record_that_is_none_of_a_script_s_is_not_gone_on_with(here, monkeypatch, fields):
    path = script(here, ARGPARSE)
    monkeypatch.setattr(launcher, "start", lambda *_: pytest.fail("it was started"))
    folder = here.root / "logs" / "train" / "a"
    folder.mkdir(parents=True)
    known = {"experiment": "train", "run": "a", "status": "failed", "started": "2026-01-01T00:00:00Z"}
    (folder / "run.json").write_text(json.dumps(known | {"working_folder": str(here.root)} | fields))
    with pytest.raises(UserError, match="is none of a script"):
        launcher.run(str(path), resume="a")


def test_a_record_does_not_choose_where_a_module_is_looked_for(here, monkeypatch):
    monkeypatch.chdir(here.root)
    script(here, "import sys\nprint(sys.argv)", "mine/train.py")
    monkeypatch.setattr(launcher, "start", lambda _, held, *__: held.release() or subprocess.Popen(["true"]))
    assert launcher.run("mine.train", module=True, detach=True) == 0
    record.update(here.folder(), working_folder=str(here.root / "elsewhere"))
    assert launcher.run("mine.train", module=True, resume="last", detach=True) == 0
    assert here.record()["working_folder"] == str(here.root)


class Settings(Config):
    learning_rate: float = 0.1
    note: str = ""


def test_settings_are_read_from_a_command_line_in_each_way_that_people_write_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "learning_rate=0.5"])
    assert Settings.from_command_line().learning_rate == 0.5
    for words in (["--learning-rate", "-2", "--note=a=b"], ["--learning_rate=-2", "note=a=b"]):
        assert Settings.from_command_line(words) == Settings(learning_rate=-2, note="a=b")
    with pytest.raises(UserError, match="Did you mean 'learning_rate'"):
        Settings.from_command_line(["--learning-rat", "1"])
    with pytest.raises(UserError, match="is not a parameter"):
        Settings.from_command_line(["--note"])
