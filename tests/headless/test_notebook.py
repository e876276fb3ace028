"""`trainlab run`, with real kernels on tiny notebooks, as a command of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
from jupyter_core.utils import ensure_event_loop

from lab import COMMAND, KINDS, PARAMETERS, Lab, processes
from trainlab.headless import engine, launcher, notebook, worker
from trainlab.headless.parameters import Parameters
from trainlab.run import checkpoint, lock, record
from waiting import until

LONG = """
import subprocess, time, trainlab
child = subprocess.Popen(["sleep", "3210"])
with trainlab.Run("long", {"margin": 2.0}) as run:
    for step in range(3000):
        run.log({"train/loss": 1 / (1 + step)}, step)
        print(f"\\rstep {step}", end="", flush=True)
        time.sleep(0.05)
"""


STUBBORN = """
import time
print('go')
while True:
    try: time.sleep(9)
    except KeyboardInterrupt: print('no')
"""


def offspring(lab: Lab) -> list[psutil.Process]:
    """Return the kernel of the run at work, and what it started."""
    return [each for each in worker_of(lab).children(recursive=True) if each.name() != "sh"]


def worker_of(lab: Lab) -> psutil.Process:
    (worker,) = processes("-m trainlab.headless.worker", str(lab.folder()))
    return worker


def gone(those: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in those)


def marks(lab: Lab) -> list[str]:
    """Return what papermill has noted of each cell."""
    return [cell.metadata.papermill.status for cell in lab.executed().cells]


@pytest.fixture
def long_run(lab: Lab):
    """A run within a long cell, that its viewer watches."""
    lab.notebook("long", LONG)
    viewer = lab.start("long")
    until(lambda: "step 9" in lab.log(), "the long cell")
    yield viewer
    viewer.kill()
    viewer.communicate()


def test_a_foreign_notebook_is_executed_with_its_parameters_and_recorded(lab):
    lab.notebook(
        "foreign",
        "import os\nprint(learning_rate, epochs, seed, title, layers, quick)",
        "print(os.getcwd(), *map(os.environ.get, ['JUPYTER_TOKEN', 'NOTIFY']))\n"
        "!which python; echo env:$VIRTUAL_ENV",
        "print(get_ipython().history_manager.hist_file)\nimport tqdm.auto",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        parameters=PARAMETERS,
    )
    lab.environment["NOTIFY"] = "ntfy://a-secret-topic"
    lab.environment["PATH"] = "/usr/local/bin:/usr/bin:/bin"  # no virtual environment is active
    done = lab.run("foreign", "learning_rate=3e-4", "layers=[4]", "quick=true", "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert "cell 6/6" in done.stdout
    assert "0.0003 2 7 a = b [4] True\n" in lab.printed()
    assert f"{lab.root / 'notebooks'} None None\n" in lab.printed()
    assert str(Path(sys.executable).parent / "python") in lab.printed(), "what `!pip` installs into"
    assert f"env:{sys.prefix}\r\n" in lab.printed(), "what other tools install into"
    assert ":memory:\n" in lab.printed(), "the user's history is what they typed"
    assert "IProgress" not in lab.printed(), "no warning of widgets that are not installed"
    pictures = [out for out in lab.executed().cells[-1].outputs if "image/png" in out.get("data", {})]
    assert len(pictures) == 1
    record = lab.record()
    assert record["status"] == "finished"
    assert record["seed"] == 7
    assert record["config"]["learning_rate"] == 0.0003
    assert record["config"]["title"] == "a = b"
    assert record["git"] is None, "the notebook lies in no repository"
    assert record["trainlab_git"]["commit"]
    assert lab.folder().parent.name == "foreign"
    assert lab.folder().name.endswith("-quickTrue-seed7")


GIVEN = {
    "size": "(32, -0.0)",
    "kinds": "{'c', (1, 2)}",
    "raw": r"b'\xff'",
    "wave": "2",
    "opt": "{'a': (3, 4), 1: {5}}",
    "any": "...",
    "rate": "nan",
}


def test_a_notebook_gets_values_of_every_kind_as_python_has_them_and_the_record_is_json(lab):
    lab.notebook(
        "kinds", "print([size, kinds, raw, wave, opt, any, rate, far], type(wave))", parameters=KINDS
    )
    done = lab.run("kinds", *(f"{name}={text}" for name, text in GIVEN.items()))
    assert done.returncode == 0, done.stderr
    printed = "[(32, -0.0), {'c', (1, 2)}, b'\\xff', (2+0j), {'a': (3, 4), 1: {5}}, Ellipsis, nan, inf]"
    other = printed.replace("{'c', (1, 2)}", "{(1, 2), 'c'}")
    assert lab.printed().strip() in (f"{printed} <class 'complex'>", f"{other} <class 'complex'>")
    assert lab.record()["config"] == {
        **{"size": [32, -0.0], "kinds": [[1, 2], "c"], "raw": r"b'\xff'", "wave": "(2+0j)"},
        **{"opt": {"a": [3, 4], "1": [5]}, "any": "Ellipsis", "rate": "NaN", "far": "Infinity"},
    }


def test_the_notebook_s_run_takes_over_the_folder_and_the_table_shows_it(lab):
    code = (
        "import trainlab\nwith trainlab.Run('other', {'margin': 5.0}) as run: run.log({'val/loss': 0.5}, 1)"
    )
    lab.notebook("mine", code)
    assert lab.run("mine", "--name", "first").returncode == 0
    assert lab.folder().parent.name == "other", "the name that the code gives, not the file's"
    assert lab.folder().name.endswith("-first")
    listed = subprocess.run(
        [*COMMAND[:-1], "runs", "--format", "json"], env=lab.environment, capture_output=True, check=True
    )
    (row,) = json.loads(listed.stdout)
    assert (row["experiment"], row["status"], row["config"]) == ("other", "finished", {"margin": 5.0})
    assert row["last"]["val/loss"] == 0.5


def test_cells_that_are_empty_skipped_or_meant_to_fail_do_not_fail_the_run(lab):
    lab.notebook("tagged", "", "print('skipped')", "raise ValueError('meant')", "print('end')")
    lab.tag("tagged", 1, "skip-execution")
    lab.tag("tagged", 2, "raises-exception")
    done = lab.run("tagged")
    assert done.returncode == 0, done.stderr
    assert "cell 2/2: print('end')" in done.stdout
    assert lab.printed() == "end\n"


def test_an_exception_fails_the_run_and_keeps_the_output_until_then(lab):
    lab.notebook("boom", "print('before')", "raise ValueError('boom')", "print('never')")
    done = lab.run("boom")
    assert done.returncode == 1
    assert "ValueError: boom" in done.stdout
    assert (lab.record()["status"], lab.record()["reason"]) == ("failed", "ValueError: boom")
    assert lab.printed() == "before\n"
    assert marks(lab) == ["completed", "failed", "pending"]


DISPLAY = "class Shown:\n    def {method}(self): raise {error}\nprint('before')\nShown()"
MISTAKE = "__import__('trainlab.errors').errors.UserError('news.tsv is empty.')"


@pytest.mark.parametrize(
    ("method", "error", "reason", "code"),
    [
        ("_repr_html_", "ValueError('no html')", "ValueError: no html", 1),
        ("__repr__", MISTAKE, "news.tsv is empty.", 2),
    ],
)
def test_a_value_that_cannot_be_shown_fails_the_run_with_its_own_error(lab, method, error, reason, code):
    lab.notebook("shown", DISPLAY.format(method=method, error=error), "print('never')")
    assert lab.run("shown").returncode == code
    assert (lab.record()["status"], lab.record()["reason"]) == ("failed", reason)
    assert lab.printed() == "before\n"


def test_a_user_s_mistake_in_a_cell_is_told_without_traceback(lab):
    lab.notebook("mistake", "from trainlab.errors import UserError\nraise UserError('news.tsv is empty.')")
    done = lab.run("mistake")
    assert done.returncode == 2
    assert done.stderr == "error: news.tsv is empty.\n"
    assert "Traceback" not in done.stdout
    assert (lab.record()["status"], lab.record()["reason"]) == ("failed", "news.tsv is empty.")


def test_a_killed_kernel_is_told_with_a_hint_on_memory(lab):
    lab.notebook("killed", "print('before')", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    done = lab.run("killed")
    assert done.returncode == 1
    assert lab.record()["status"] == "failed"
    assert "the kernel died (signal 9)" in lab.record()["reason"]
    assert "memory" in lab.record()["reason"]
    assert lab.printed() == "before\n"
    assert marks(lab) == ["completed", "failed"]


@pytest.mark.parametrize("way", ["import sys; sys.exit(0)", "quit()", "import os; os._exit(0)"])
def test_a_cell_that_leaves_early_fails_the_run(lab, way):
    lab.notebook("leave", way, "print('never')")
    assert lab.run("leave").returncode == 1
    assert lab.record()["status"] == "failed"
    assert "SystemExit" in lab.record()["reason"] or "exit code 0" in lab.record()["reason"]
    assert lab.printed().count("never") == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_viewer_interrupts_the_run(lab, long_run, number, code):
    family = offspring(lab)
    long_run.send_signal(number)
    assert long_run.wait(timeout=30) == code
    record = lab.record()
    assert record["status"] == "interrupted"
    assert record["config"] == {"margin": 2.0}
    assert record["last"]["train/loss"]["step"] >= 9
    assert "step" in lab.printed()
    assert len(family) >= 2
    assert gone(family)


def test_a_notebook_that_ignores_sigterm_is_ended_by_a_second_one(lab):
    lab.notebook("stubborn", STUBBORN)
    viewer = lab.start("stubborn")
    until(lambda: "go\n" in lab.log(), "the cell")
    viewer.terminate()
    until(lambda: "no\n" in lab.log(), "the first one's answer")
    viewer.terminate()
    viewer.communicate(timeout=30)
    assert viewer.returncode == 143
    assert lab.record()["status"] == "interrupted"


SLOW_SAVE = """
import time, trainlab
from trainlab.run import checkpoint

class Slow:
    def keys(self):
        return ["step"]
    def __getitem__(self, key):
        for _ in range(500):
            time.sleep(0.01)
        return 7

with trainlab.Run("slow", monitor=False) as run:
    checkpoint.save(Slow(), run.checkpoints / "step-00000007.ckpt")
    time.sleep(600)
"""


def test_neither_a_first_nor_a_second_signal_cuts_a_save_and_what_was_saved_is_said(lab):
    lab.notebook("slow_save", SLOW_SAVE)
    viewer = lab.start("slow_save")
    until(lambda: list(lab.root.glob("logs/*/*/checkpoints/.*.tmp")), "the save")
    for _ in range(2):
        viewer.terminate()
        time.sleep(0.5)  # else the two may become one
    out = viewer.communicate(timeout=60)[0]
    assert viewer.returncode == 143
    (path,) = lab.folder().glob("checkpoints/*.ckpt")
    assert checkpoint.load(path) == {"step": 7}
    name = lab.folder().name
    assert out.splitlines()[-1].endswith(
        f" s by SIGTERM: saved at step 7. Resume it: trainlab run slow_save --resume {name}"
    )
    assert "Traceback" not in out
    assert (lab.record()["status"], lab.record()["reason"]) == ("interrupted", "SIGTERM")


def test_a_long_cell_is_saved_while_it_runs_and_goes_on_when_the_terminal_closes(lab, long_run):
    until(lambda: "step" in lab.printed(), "the saved output", 60)
    long_run.send_signal(signal.SIGHUP)
    assert long_run.wait(timeout=60) == -signal.SIGHUP
    size = len(lab.log())
    until(lambda: len(lab.log()) > size, "further output")
    assert lab.record()["status"] == "running"
    assert lock.alive(lab.folder())

    family = offspring(lab)
    worker_of(lab).kill()
    until(lambda: gone(family), "the end of the kernel and its child", 60)
    until(lambda: not lock.alive(lab.folder()), "the release of its locks", 60)


def test_a_worker_that_is_killed_is_told_by_its_viewer(lab, long_run):
    worker_of(lab).kill()
    assert long_run.wait(timeout=10) == 137
    assert (lab.record()["status"], lab.record()["reason"]) == (
        "failed",
        "the runner died (signal 9, SIGKILL)",
    )


def test_a_detached_run_returns_at_once_and_ends_by_a_signal_to_its_worker(lab):
    lab.notebook("long", LONG)
    done = lab.run("long", "--detach")
    assert done.returncode == 0
    assert str(lab.folder()) in done.stdout
    assert f"stop: trainlab stop {lab.folder().name}" in done.stdout
    until(lambda: "step 9" in lab.log(), "the long cell")
    worker = worker_of(lab)
    assert "secret-token" not in worker.environ().values()
    worker.terminate()
    worker.wait(10)
    assert lab.record()["status"] == "interrupted"


def test_a_folder_that_is_moved_meanwhile_is_told_in_one_sentence_and_nothing_is_left(lab, long_run):
    family = [worker_of(lab), *offspring(lab)]
    (lab.root / "logs" / "long").rename(lab.root / "logs" / "elsewhere")
    out, errors = long_run.communicate(timeout=60)
    assert long_run.returncode == 2
    assert errors.startswith("error: The run's folder")
    assert errors.count("\n") == 1
    assert "it was moved, deleted or replaced" in errors
    assert "Traceback" not in out + errors
    until(lambda: gone(family), "the end of worker and kernel")


def test_a_run_that_was_paused_goes_on_as_if_nothing_had_been(lab):
    lab.notebook("paused", "import time\nprint('go')\ntime.sleep(1)\nprint('on')", "print('end')")
    viewer = lab.start("paused")
    until(lambda: "go\n" in lab.log(), "the cell")
    family = [psutil.Process(viewer.pid), worker_of(lab), *offspring(lab)]
    for each in family:  # as `docker pause` does
        each.suspend()
    time.sleep(2)  # which the pause takes
    assert "on\n" not in lab.log()
    for each in family:
        each.resume()
    _, errors = viewer.communicate(timeout=60)
    assert (viewer.returncode, errors) == (0, "")
    assert lab.printed() == "go\non\nend\n"
    assert lab.record()["status"] == "finished"


@pytest.fixture
def own_handlers() -> Iterator[None]:
    """A worker ends with its process, and leaves its signals' handlers behind in this one."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        ensure_event_loop().remove_signal_handler(number)
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_handlers")
@pytest.mark.parametrize("step", [timedelta(days=1), timedelta(days=-1)])
def test_a_clock_that_is_set_meanwhile_does_not_change_how_long_a_run_took(lab, monkeypatch, capfd, step):
    monkeypatch.setenv("TRAINLAB_ROOT", str(lab.root))
    for name in ("LOGS", "NOTEBOOKS", "DATA"):
        monkeypatch.delenv(f"TRAINLAB_{name}", raising=False)
    path = lab.notebook("quick", "print('end')")
    folder, held = launcher.prepare(path, notebook.read(path), Parameters({}, {}), None)
    held.release()

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + step

    monkeypatch.setattr(record, "datetime", Clock)
    assert worker.main(folder, []) == 0
    assert "finished after" in capfd.readouterr().out
    assert 0 < lab.record()["seconds"] < 600


def test_sockets_of_workers_that_are_gone_are_removed_and_those_of_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    names = [f"trainlab-{ended.pid}-abc", f"trainlab-{os.getpid()}-abc", "trainlab-elsewhere", "trainlab-x-y"]
    (tmp_path / f"trainlab-{zombie.pid}-abc").mkdir()
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernel.json").touch()
    (tmp_path / f"trainlab-{ended.pid}-link").symlink_to(tmp_path / "trainlab-elsewhere")
    engine.sweep()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*names[1:], f"trainlab-{ended.pid}-link"}
    assert (tmp_path / "trainlab-elsewhere" / "kernel.json").exists()


def test_no_secret_stands_in_anything_that_a_run_leaves(lab):
    key, literal, url = "sk-0123456789abcdef", "hf_abcdefghijklmnop", "let-me-in-please"
    lab.environment |= {"OPENAI_API_KEY": key, "STORE": f"postgres://me:{url}@db/runs"}
    (lab.root / ".env").write_text('MY_PASSWORD = "from the file"\n')
    lab.notebook(
        "leaky",
        "import os, sys, time, trainlab\n"
        f"login = dict(token='{literal}')\nkey = os.environ['OPENAI_API_KEY']",
        "for part in (key[:7], key[7:], 'and', login['token'][:3], login['token'][3:], '\\n'):\n"
        "    print(part, end='', flush=True)\n    time.sleep(0.05)",
        "print('from the file', os.environ['STORE'], file=sys.stderr)\n{'shown': key}",
        "config = {'api_key': 'given-in-code', 'note': key, 'margin': 1}\n"
        "run = trainlab.Run('leaky', config, name=f'with-{key}', tracker='csv')\n"
        "run.log_text('text', f'the key is {key}', 1)\nrun.log({f'loss/{key}': 1.0}, 1)\n"
        "run.update(detail={'password': 'hunter2-hunter2'}, where=f'{key}')\n"
        "run.finish()",
        "raise ValueError(f\"{key}, {login['token']}, {os.environ['STORE']}\")",
        parameters=f"api_key = '{literal}'\nnote = 'x'",
    )
    done = lab.run("leaky", f"note={key}", "--name", f"named-{key}")
    assert done.returncode == 1
    everything = done.stdout + done.stderr + str(lab.folder())
    for path in lab.folder().rglob("*"):
        everything += path.name + (path.read_bytes().decode(errors="replace") if path.is_file() else "")
    for secret in (key, key[:7], literal, url, "from the file", "hunter2", "given-in"):
        assert secret not in everything, secret
    assert "***and***\n" in lab.printed()
    assert "ValueError: ***, ***, postgres://***@db/runs" in lab.record()["reason"]
    assert lab.record()["config"] == {"api_key": "***", "note": "***", "margin": 1}
    assert "the key is ***" in everything
    assert "loss/***" in (lab.folder() / "metrics.csv").read_text()
    assert lab.folder().name.endswith("-named")
