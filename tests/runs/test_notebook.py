"""`trainlab run`, with real kernels on tiny notebooks, as a command of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import nbformat
import psutil
import pytest

from headless import COMMAND, Lab, processes, until
from trainlab.errors import UserError
from trainlab.runs import lock, notebook

PARAMETERS = "learning_rate = 0.001\nepochs = 2\nseed = 0\ntitle = 'a = b'\nlayers = [1, 2]\nquick = False"
LONG = """
import subprocess, time, trainlab
child = subprocess.Popen(["sleep", "3210"])
with trainlab.Run("ignored", {"margin": 2.0}) as run:
    for step in range(3000):
        run.log({"train/loss": 1 / (1 + step)}, step)
        print(f"\\rstep {step}", end="", flush=True)
        time.sleep(0.05)
"""


def offspring(lab: Lab) -> list[psutil.Process]:
    """Return the kernel of the run at work, and what it started."""
    return [each for each in worker_of(lab).children(recursive=True) if each.name() != "sh"]


def worker_of(lab: Lab) -> psutil.Process:
    (worker,) = processes("-m trainlab.runs.worker", str(lab.folder()))
    return worker


def gone(those: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in those)


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
        "print(os.getcwd(), os.environ.get('JUPYTER_TOKEN'))",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        parameters=PARAMETERS,
    )
    done = lab.run("foreign", "learning_rate=3e-4", "layers=[4]", "quick=true", "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert "cell 5/5" in done.stdout
    assert "0.0003 2 7 a = b [4] True\n" in lab.printed()
    assert f"{lab.root / 'notebooks'} None\n" in lab.printed()
    pictures = [out for out in lab.executed().cells[-1].outputs if "image/png" in out.get("data", {})]
    assert len(pictures) == 1
    record = lab.record()
    assert record["status"] == "finished"
    assert record["seed"] == 7
    assert record["config"]["learning_rate"] == 0.0003
    assert record["config"]["title"] == "a = b"
    assert lab.folder().parent.name == "foreign"
    assert lab.folder().name.endswith("-quickTrue-seed7")


def test_the_notebook_s_run_takes_over_the_folder_and_the_table_shows_it(lab):
    code = (
        "import trainlab\nwith trainlab.Run('other', {'margin': 5.0}) as run: run.log({'val/loss': 0.5}, 1)"
    )
    lab.notebook("mine", code)
    assert lab.run("mine", "--name", "first").returncode == 0
    assert lab.folder().parent.name == "mine"
    assert lab.folder().name.endswith("-first")
    listed = subprocess.run(
        [*COMMAND[:-1], "runs", "--format", "json"], env=lab.environment, capture_output=True, check=True
    )
    (row,) = json.loads(listed.stdout)
    assert (row["experiment"], row["status"], row["config"]) == ("mine", "finished", {"margin": 5.0})
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


def test_a_notebook_that_ignores_sigterm_is_ended_all_the_same(lab):
    stubborn = (
        "import time\nprint('go')\nwhile True:\n    try: time.sleep(9)\n    except KeyboardInterrupt: pass"
    )
    lab.notebook("stubborn", stubborn)
    viewer = lab.start("stubborn")
    until(lambda: "go\n" in lab.log(), "the cell")
    viewer.terminate()
    viewer.communicate(timeout=30)
    assert viewer.returncode == 143
    assert lab.record()["status"] == "interrupted"


def test_a_long_cell_is_saved_while_it_runs_and_goes_on_when_the_terminal_closes(lab, long_run):
    until(lambda: "step" in lab.printed(), "the saved output", 60)
    long_run.send_signal(signal.SIGHUP)
    assert long_run.wait(timeout=10) == -signal.SIGHUP
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
    assert "tail -f" in done.stdout
    until(lambda: "step 9" in lab.log(), "the long cell")
    worker = worker_of(lab)
    assert "secret-token" not in worker.environ().values()
    worker.terminate()
    worker.wait(10)
    assert lab.record()["status"] == "interrupted"


@pytest.fixture
def here(lab, monkeypatch):
    """The same project, for calls in this process that start nothing."""
    monkeypatch.setenv("TRAINLAB_ROOT", str(lab.root))
    for name in ("LOGS", "NOTEBOOKS", "DATA"):
        monkeypatch.delenv(f"TRAINLAB_{name}", raising=False)
    lab.notebook("foreign", "1", parameters=PARAMETERS)
    lab.notebook("plain", "1")
    return lab


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["foreing"], "Did you mean 'foreign'?"),
        (["foreign", "epoch=3"], "Did you mean 'epochs'?"),
        (["foreign", "epochs=many"], "epochs=many: should be a valid integer"),
        (["foreign", "epochs=1.5"], "epochs=1.5"),
        (["foreign", "quick=perhaps"], "quick=perhaps"),
        (["foreign", "layers=3"], "expected a list"),
        (["foreign", "epochs"], "Expected key=value"),
        (["foreign", "seed=1", "--seed=2"], "given twice"),
        (["plain", "epochs=3"], "tag that cell 'parameters'"),
        (["plain", "--seed=3"], "seed cannot be set"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_and_makes_nothing(here, words, told):
    seed = next((int(word.partition("=")[2]) for word in words if word.startswith("--seed")), None)
    with pytest.raises(UserError) as error:
        notebook.run(words[0], [word for word in words[1:] if not word.startswith("--")], seed=seed)
    assert told in str(error.value)
    assert list((here.root / "logs").iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "{}", '{"nbformat": 4}', "[1]"])
def test_a_file_that_is_no_notebook_is_told(here, content):
    (here.root / "broken.ipynb").write_text(content)
    with pytest.raises(UserError, match="is not a notebook"):
        notebook.run(str(here.root / "broken.ipynb"))


SAVE_AND_DIE = """
import os, signal, sys
from jupyter_server.services.contents.fileio import atomic_writing
with atomic_writing(sys.argv[1]) as file:
    file.write('{"cells": [')
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_notebook_killed_while_jupyter_saved_it_is_told_with_the_command_that_brings_it_back(here):
    path = here.root / "notebooks" / "plain.ipynb"
    whole = path.read_text()
    assert subprocess.run([sys.executable, "-c", SAVE_AND_DIE, path], check=False).returncode == -9
    assert path.read_text() != whole
    with pytest.raises(UserError) as error:
        notebook.run("plain")
    command = str(error.value).partition("Take that back: ")[2]
    subprocess.run(command, shell=True, check=True)
    assert path.read_text() == whole


def test_a_notebook_in_another_language_is_told(here):
    path = here.notebook("r", "1")
    made = nbformat.read(path, as_version=4)
    made.metadata.kernelspec = {"name": "ir", "display_name": "R", "language": "R"}
    nbformat.write(made, path)
    with pytest.raises(UserError, match="notebook in R"):
        notebook.run("r")


SETTINGS = """
from pydantic import Field
from trainlab.config import Config
from headless import COMMAND, Lab, processes, until
from trainlab.errors import UserError

class Settings(Config):
    margin: float = Field(3.0, gt=0)
    epochs: int = 1
    data: str = "sample"
    seed: int = 0

    def preflight(self):
        if self.data == "missing":
            raise UserError("data=missing: no such file.")
"""


@pytest.fixture
def settings(here, monkeypatch):
    """A notebook that names its settings class, which lies beside it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "its_settings", raising=False)
    (here.root / "notebooks" / "its_settings.py").write_text(SETTINGS)
    here.notebook("named", "1", parameters="epochs = 5\nother = object()", config="its_settings:Settings")
    return here


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("margin=-1", "margin=-1: should be greater than 0."),
        ("margn=1", "Did you mean 'margin'?"),
        ("data=missing", "data=missing: no such file."),
    ],
)
def test_the_settings_class_checks_values_before_anything_is_made(settings, word, told):
    with pytest.raises(UserError) as error:
        notebook.run("named", [word])
    assert told in str(error.value)
    assert list((settings.root / "logs").iterdir()) == []


def test_the_command_line_goes_before_the_notebook_and_the_notebook_before_the_default(settings, monkeypatch):
    monkeypatch.setattr(notebook, "start", lambda *_: subprocess.Popen(["true"]))
    assert notebook.run("named", ["margin=5"], seed=4, detach=True) == 0
    record = settings.record()
    assert record["config"] == {"margin": 5.0, "epochs": 5, "data": "sample", "seed": 4}
    assert record["seed"] == 4
    assert settings.folder().name.endswith("-margin5-seed4")
    cell = settings.executed().cells[1]
    assert cell.metadata.tags == ["injected-parameters"]
    assert "margin = 5.0" in cell.source
    assert "epochs" not in cell.source


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
