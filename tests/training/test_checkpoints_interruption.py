"""A signal in whatever a training does: nothing that was trained is lost, and the process ends in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
from lightning.pytorch.callbacks import Callback

import trainlab
from noisy_training import STEPS, curves, fit, settings
from project import CHECKOUT
from trainlab.run import checkpoint, grace
from trainlab.run import signals as interruption
from trainlab.training import checkpoints


class InterruptIn(Callback):
    """Sends SIGINT, once, in one of a callback's methods, when so many steps are made."""

    def __init__(self, method: str, step: int) -> None:
        self.step = step
        setattr(self, method, self.interrupt)

    def interrupt(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.step = -1
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """The curves and the weights of a training without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    with trainlab.Run("noisy", settings(), logs=folder) as run:
        done = fit(run, settings())
    return curves(run.folder), done.lightning_module.state_dict()


@pytest.mark.parametrize(
    ("method", "step", "saved"),
    [
        ("on_train_start", 0, None),
        ("on_train_batch_start", 3, 4),
        ("on_train_batch_end", 5, 5),
        ("on_validation_batch_start", 5, 5),
        ("on_validation_epoch_end", 10, 10),
        ("on_validation_end", 10, 10),
        ("on_train_epoch_end", 10, 10),
        ("on_train_epoch_start", 5, 5),
        ("on_train_end", 15, 15),
    ],
)
def test_an_interruption_anywhere_loses_nothing(
    method: str,
    step: int,
    saved: int | None,
    whole: tuple[pd.DataFrame, dict[str, torch.Tensor]],
    tmp_path: Path,
) -> None:
    config = settings(checkpoint_every="1h", every_n_epochs=100)
    with pytest.raises(KeyboardInterrupt), trainlab.Run("noisy", config, logs=tmp_path) as run:
        fit(run, config, InterruptIn(method, step))
    states = [path.name for path in run.checkpoints.glob("step-*.ckpt")]
    assert states == ([] if saved is None else [f"step-{saved:08d}.ckpt"])
    with trainlab.Run("noisy", config, resume="last", logs=tmp_path) as run:
        done = fit(run, config)
    assert done.global_step == STEPS
    expected, weights = whole
    for name, value in done.lightning_module.state_dict().items():
        assert torch.equal(value, weights[name]), name
    pd.testing.assert_frame_equal(curves(run.folder), expected, check_exact=True)


def test_a_second_signal_and_the_end_of_patience_raise_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), interruption.deferred() as deferral:
        os.kill(os.getpid(), signal.SIGINT)
        assert deferral.requested == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second was deferred too")
    with pytest.raises(KeyboardInterrupt), interruption.deferred(patience=0.1):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
        pytest.fail("waited for the step")


def wait(seconds: float) -> None:
    """Wait in short sleeps: a handler that raises nothing ends none of them early."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)


@pytest.mark.parametrize("signals", [1, 2, 3])
def test_no_signal_cuts_a_save_and_none_is_forgotten(signals: int, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"

    class Slow:
        """Weights whose pickling takes a while, in the midst of which somebody presses Ctrl-C."""

        def __iter__(self) -> Iterator[tuple[str, int]]:
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGINT)
                wait(0.05)
            yield "step", 7

        def keys(self) -> list[str]:
            return ["step"]

        def __getitem__(self, _: str) -> int:
            return dict(iter(self))["step"]

    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(Slow(), path)  # type: ignore[arg-type]
        pytest.fail("the signal was forgotten")
    assert checkpoint.load(path) == {"step": 7}
    assert not list(path.parent.glob(".*"))


def test_the_end_of_patience_does_not_cut_a_save(tmp_path: Path) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interruption.deferred(patience=0.05):
        with interruption.held():
            os.kill(os.getpid(), signal.SIGINT)
            wait(0.3)
            os.kill(os.getpid(), signal.SIGINT)
            wait(0.1)
            done.append("saved")
        pytest.fail("two signals: the second ends it at once")
    assert done == ["saved"]


def test_patience_counts_from_the_longest_step() -> None:
    with pytest.raises(KeyboardInterrupt), interruption.deferred(patience=0.0) as deferral:
        deferral.longest_step = 0.2
        since = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)
        wait(60)
    assert time.monotonic() - since >= 0.4


def by_the_engines(folder: Path) -> int:
    """Return how long the container's entry and `make down` wait for a run's step, in seconds."""
    script = 'source jupyter/grace; patience "$1"'
    root = CHECKOUT
    done = subprocess.run(["bash", "-euc", script, "", folder], cwd=root, stdout=subprocess.PIPE, check=True)
    return int(done.stdout)


def test_a_long_step_is_written_down_for_whoever_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    with trainlab.Run("long", logs=tmp_path, monitor=False) as run, interruption.deferred() as deferral:
        keeper = checkpoints.FullState(run, settings())
        keeper.deferral = deferral
        told = []
        for seconds in (1.0, 8.0, 9.0, 30.0):
            keeper.before_step()
            keeper.before_step()  # of another batch of the same step
            clock[0] += seconds
            keeper.measure_step()
            told.append(grace.for_step(run.folder))
    assert told == [0.0, 16.0, 16.0, 60.0], "short steps, and little more than before, are not worth a write"
    assert by_the_engines(run.folder) == 12 + 2 * 30


def test_a_deadline_waits_for_a_save_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(grace.time, "monotonic", lambda: clock[0])
    deadline = grace.Deadline(tmp_path, 10.0)
    unfinished = tmp_path / "checkpoints" / ".step-00000002.ckpt.0123abcd.tmp"
    unfinished.parent.mkdir()
    unfinished.touch()
    clock[0] += 11
    assert not deadline.over()
    unfinished.unlink()
    assert deadline.over()
    unfinished.touch()
    clock[0] += grace.LONGEST
    assert deadline.over()


@pytest.mark.parametrize("known", ['"abc"', "-3", "[1]", "1e999", '"NaN"', "null", "99999999"])
def test_a_foreign_record_cannot_make_a_stop_wait_for_ever(known: str, tmp_path: Path) -> None:
    with trainlab.Run("foreign", logs=tmp_path, monitor=False) as run:
        pass
    path = run.folder / "run.json"
    path.write_text(path.read_text().replace("{", f'{{"longest_step": {known}, ', 1))
    assert 0 <= grace.for_step(run.folder) <= grace.LONGEST / 2
    assert 10 <= by_the_engines(run.folder) <= grace.LONGEST / 2


def test_a_signal_that_nobody_asked_for_is_raised_at_the_end_of_the_block() -> None:
    before = signal.getsignal(signal.SIGINT)
    reached = False
    with pytest.raises(KeyboardInterrupt), interruption.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert reached
    assert signal.getsignal(signal.SIGINT) is before


class Scenarios:
    """A process that has imported everything, and forks a child for each of `stopped_training.py`."""

    def __init__(self) -> None:
        script = CHECKOUT / "tests/support/stopped_training.py"
        self.process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def terminate(self, name: str, logs: Path) -> int:
        """Play one, send SIGTERM when it says so; return the exit code."""
        os.kill(self.play(name, logs), signal.SIGTERM)
        return self.code()

    def play(self, name: str, logs: Path) -> int:
        """Play one until it says that it is there; return the process."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{name} {logs}\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        wait_for(logs / "now")
        return child

    def code(self) -> int:
        """Wait for its end; return the exit code."""
        assert self.process.stdout
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def scenarios() -> Iterator[Scenarios]:
    """Processes end with the tests."""
    player = Scenarios()
    yield player
    player.process.kill()
    player.process.wait()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def test_a_training_that_is_killed_leaves_no_loader_s_worker_behind(
    scenarios: Scenarios, tmp_path: Path
) -> None:
    training = psutil.Process(scenarios.play("workers", tmp_path))
    workers = training.children(recursive=True)
    assert len(workers) >= 2
    training.kill()
    assert scenarios.code() == -signal.SIGKILL
    psutil.wait_procs(workers, timeout=60)
    assert not [each for each in workers if each.is_running()]


@pytest.mark.parametrize(
    ("scenario", "saved"),
    [
        ("preparation", 0),
        ("step", 4),
        ("hanging_step", 2),
        ("validation", 5),
        ("evaluation", 15),
        ("tuning", 4),
        ("tuning_evaluation", 0),  # Transformers saves behind the evaluation that this step ends with
    ],
)
def test_sigterm_ends_the_process_in_time_with_143(
    scenario: str, saved: int, scenarios: Scenarios, tmp_path: Path
) -> None:
    assert scenarios.terminate(scenario, tmp_path) == 128 + signal.SIGTERM
    (folder,) = (tmp_path / "stopped").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["reason"]) == ("interrupted", "SIGTERM")
    said = (tmp_path / "said").read_text()
    kept = (
        f'saved at step {saved}. Resume it with resume="{folder.name}"'
        if saved
        else "no checkpoint was saved."
    )
    assert said.splitlines()[-1] == f"interrupted by SIGTERM: {kept}"
    assert "Traceback" not in said
    steps = filter(None, map(checkpoint.step_of, folder.glob("checkpoints/*")))
    assert max(steps, default=0) == saved
    assert not list(folder.rglob("*.tmp"))
