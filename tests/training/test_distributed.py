"""Two processes on the CPU. A start takes ten seconds, mostly for importing torch: the tests share them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pandas as pd
import psutil
import pytest
import torch
from nbclient import NotebookClient

import ddp_work
import trainlab
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.run.run import HOSTS
from trainlab.runs.frames import scalars
from trainlab.training import distributed
from trainlab.training.config import TrainingConfig
from trainlab.training.trainer import Trainer

pytestmark = pytest.mark.slow
DEADLINE = 180.0  # seconds
NEAR = 1e-6  # sums of floats in another order; measured: 1.2e-7


def curves(run: trainlab.Run) -> pd.Series:
    """What was learned; speed and the machine's use differ."""
    points = scalars(run.folder).set_index(["tag", "step"])["value"].sort_index()
    machine = points.index.get_level_values("tag").str.match("vitals/")
    return points[~machine]


def weights(trainer: Trainer) -> torch.Tensor:
    return trainer.lightning_module.layer.weight.detach()


def record(run: trainlab.Run) -> dict[str, Any]:
    return json.loads((run.folder / "run.json").read_text())


def alike(run: trainlab.Run, other: trainlab.Run) -> bool:
    first, second = curves(run), curves(other)
    return first.index.equals(second.index) and bool(((first - second).abs() < NEAR).all())


Trained = tuple[trainlab.Run, Trainer]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return ddp_work.train(tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return ddp_work.train(tmp_path_factory.mktemp("two"), 2)


def test_two_processes_learn_what_one_does(one: Trained, two: Trained) -> None:
    assert torch.allclose(weights(one[1]), weights(two[1]), rtol=0, atol=NEAR)
    alone, shared = curves(one[0]), curves(two[0])
    assert alone.index.equals(shared.index)
    assert len(shared) == 36
    assert (alone - shared).abs().max() < NEAR


def test_afterwards_the_parent_knows_what_the_processes_did(one: Trained, two: Trained) -> None:
    (_, alone), (run, trainer) = one, two
    assert (trainer.global_step, trainer.current_epoch) == (alone.global_step, alone.current_epoch) == (15, 3)
    assert trainer.best_checkpoint == run.checkpoints / "best.ckpt"
    assert set(trainer.callback_metrics) == set(alone.callback_metrics)
    assert checkpoint.load(run.checkpoints / "last.ckpt")["global_step"] == 15
    assert not list(run.folder.rglob("*.tmp*"))


def test_the_record_is_as_with_one_process(one: Trained, two: Trained) -> None:
    alone, shared = record(one[0]), record(two[0])
    assert shared["status"] == "finished"
    assert set(shared["last"]) >= set(alone["last"])
    assert shared["best"]["val/loss"]["value"] == pytest.approx(alone["best"]["val/loss"]["value"], abs=NEAR)
    assert shared["best_checkpoint"]["step"] == alone["best_checkpoint"]["step"]
    assert sorted(path.name for path in two[0].checkpoints.iterdir()) == sorted(
        path.name for path in one[0].checkpoints.iterdir()
    )


def test_a_killed_process_ends_the_run_and_one_alone_can_go_on(one: Trained, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Process 1 of 2 was killed"):
        ddp_work.train(tmp_path, 2, ddp_work.kill_the_second, checkpoint_every="1")
    (folder,) = tmp_path.glob("line/*")
    ended = json.loads((folder / "run.json").read_text())
    assert ended["status"] == "failed"
    assert "Process 1 of 2 was killed" in ended["reason"]
    run, trainer = ddp_work.train(tmp_path, 1, checkpoint_every="1", resume=folder.name)
    assert torch.allclose(weights(trainer), weights(one[1]), rtol=0, atol=NEAR)
    assert alike(run, one[0])


def test_a_run_of_one_process_goes_on_with_two(one: Trained, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ddp_work.train(tmp_path, 1, ddp_work.interrupt)
    (folder,) = tmp_path.glob("line/*")
    run, trainer = ddp_work.train(tmp_path, 2, resume=folder.name, num_workers=1)
    assert torch.allclose(weights(trainer), weights(one[1]), rtol=0, atol=NEAR)
    assert alike(run, one[0])
    run.refresh()
    assert record(run)["resumes"][-1]["step"] == 8


def started(tmp_path: Path, script: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=tmp_path, **pipes)


FOREVER = (
    "import ddp_work; from pathlib import Path; "
    "ddp_work.train(Path('.'), 2, data=ddp_work.Forever(), checkpoint_every='50', num_workers=1)"
)


CELLS = (
    "from pathlib import Path; import ddp_work",
    "run, trainer = ddp_work.train(Path('.'), 2, epochs=1)",
    "print('steps:', trainer.global_step)",
)


def test_it_works_from_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # else the kernel leaves what other processes print alone
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in CELLS])
    client = NotebookClient(notebook, timeout=DEADLINE, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    texts = [[out.get("text", "") for out in cell.outputs] for cell in notebook.cells]
    assert "epoch 1/1" in "".join(texts[1])
    assert texts[2] == ["steps: 5\n"]


def torchrun(tmp_path: Path, script: str) -> subprocess.Popen[str]:
    (tmp_path / "mine.py").write_text(script)
    return started(
        tmp_path,
        "import sys; from torch.distributed.run import main; "
        "main(['--standalone', '--local-addr=127.0.0.1', '--nproc-per-node=2', 'mine.py'])",
    )


TRAIN = "import ddp_work; from pathlib import Path; ddp_work.train(Path('.'), 1, checkpoint_every='5', {})"


def test_under_torchrun_one_run_is_recorded_and_goes_on(one: Trained, tmp_path: Path) -> None:
    process = torchrun(tmp_path, TRAIN.format("epochs=2"))
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    assert out.count("epoch 2/2 100%") == 1
    process = torchrun(tmp_path, TRAIN.format("epochs=3, resume='last'"))
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    (folder,) = tmp_path.glob("line/*")
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    first, second = curves(one[0]), curves(SimpleNamespace(folder=folder))  # type: ignore[arg-type]
    assert first.index.equals(second.index)
    assert (first - second).abs().max() < NEAR
    assert len(list(folder.glob("events.out.*"))) == 2, "one of each session"


PLAIN = """
import lightning, trainlab, ddp_work; from pathlib import Path
with trainlab.Run("plain", logs=Path("."), monitor=False) as run:
    options = dict(accelerator="cpu", max_epochs=1, enable_progress_bar=False, {})
    lightning.Trainer(logger=trainlab.RunLogger(run), callbacks=run.callbacks(), **options).fit(
        ddp_work.Net(), ddp_work.Points()
    )
"""
SPLIT = "devices=2, strategy='ddp_find_unused_parameters_true'"


def test_a_plain_trainer_that_starts_the_script_again_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLAIN.format(SPLIT))
    process = started(tmp_path, "import runpy, sys; sys.argv = ['mine.py']; runpy.run_path('mine.py')")
    out, err = process.communicate(timeout=DEADLINE)
    assert out.count("warning: Lightning has started this script 2 times") == 1, out + err
    assert "torchrun --nproc-per-node 2 SCRIPT" in out


@pytest.mark.parametrize(("options", "warned"), [("devices='auto'", 1), (SPLIT, 0)])
def test_processes_that_each_train_the_whole_are_named(options: str, warned: int, tmp_path: Path) -> None:
    process = torchrun(tmp_path, PLAIN.format(options))
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    assert out.count("warning: torchrun has started 2 processes, and each trains the whole") == warned


def forever(tmp_path: Path, start: Any) -> tuple[subprocess.Popen[str], Path]:
    """Start a training without end; return it and the run's folder once it has saved."""
    process = start(tmp_path, FOREVER)
    end = time.monotonic() + DEADLINE
    while not (saved := list(tmp_path.glob("line/*/checkpoints/step-*.ckpt"))):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.1)
    return process, saved[0].parents[1]


@pytest.mark.parametrize("start", [started, torchrun])
def test_sigterm_ends_all_processes_with_a_checkpoint(start: Any, tmp_path: Path) -> None:
    process, folder = forever(tmp_path, start)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE)
    if start is started:
        assert process.returncode == 143, err
        assert "Traceback" not in err
    assert out.count("| 0/10000 batches") == 1
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert len(gone) >= 4  # each with a worker
    assert not alive
    ended = json.loads((folder / "run.json").read_text())
    assert (ended["status"], ended["reason"]) == ("interrupted", "SIGTERM")
    newest = checkpoint.newest(folder)
    assert newest is not None
    assert checkpoint.load(newest)["global_step"] > ended["last"]["train/loss"]["step"]


def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    process, _ = forever(tmp_path, started)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=DEADLINE)
    _, alive = psutil.wait_procs(children, timeout=DEADLINE)
    assert not alive


@pytest.mark.parametrize("devices", [1, 2])
def test_several_devices_are_several_processes(devices: int) -> None:
    chosen = distributed.processes_of(TrainingConfig(devices=devices))
    assert (chosen["devices"], chosen["strategy"] == "auto") == (devices, devices == 1)


def test_torchrun_decides_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}
    for name, value in {"TORCHELASTIC_RUN_ID": "1", **sizes}.items():
        monkeypatch.setenv(name, value)
    chosen = distributed.processes_of(TrainingConfig())
    assert (chosen["devices"], chosen["num_nodes"]) == (4, 2)
    assert isinstance(chosen["strategy"], distributed.Started)
    assert chosen["strategy"]._timeout > timedelta(minutes=5), "a long save by the first process is no fault"
    monkeypatch.setenv(HOSTS, "2")
    chosen = distributed.processes_of(TrainingConfig(nodes="2", host_timeout=30))
    assert chosen["strategy"]._timeout == timedelta(seconds=30)


def test_hosts_that_were_not_started_as_such_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainingConfig(nodes="1:2")
    for check in (config.check_machine, lambda: distributed.processes_of(config)):
        with pytest.raises(UserError, match=r"trainlab run WHAT nodes=1:2 --join HEAD --name NAME"):
            check()
    monkeypatch.setenv(HOSTS, "1:2")
    config.check_machine()


def test_what_cannot_be_sent_is_said(tmp_path: Path) -> None:
    said = r"can't be sent to another process: .*lambda.*must be picklable"
    with pytest.raises(UserError, match=said):
        ddp_work.train(tmp_path, 2, lambda module: None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "move what this notebook defines into a module"),
        ("print('started')", "would start over"),
        ('if __name__ == "__main__":\n    pass', None),
    ],
)
def test_a_script_that_would_start_over_and_a_notebook_are_refused(
    content: str | None, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, path = sys.modules["__main__"], tmp_path / "mine.py"
    monkeypatch.setattr(main, "__file__", str(path), raising=False)
    if content is None:
        monkeypatch.delattr(main, "__file__")
    else:
        path.write_text(content)
    if said is None:
        with distributed._main_for(b"c__main__"):
            assert sys.modules["__main__"] is main
    else:
        with pytest.raises(UserError, match=said), distributed._main_for(b"c__main__"):
            pass
    with distributed._main_for(b"cmodule"):
        assert sys.modules["__main__"] is not main, "not read again where the work does without"
    assert sys.modules["__main__"] is main
