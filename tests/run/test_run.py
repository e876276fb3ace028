from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from trainlab.config import Config
from trainlab.errors import UserError
from trainlab.run import events, lock, naming, record, signals
from trainlab.run import run as run_module
from trainlab.run.run import Run
from trainlab.runs import listing

SRC = Path(run_module.__file__).parents[2]
DEADLINE = 60  # seconds for a subprocess to reach its place


class Settings(Config):
    margin: float = 3.0
    backbone: str = "minilm"
    seed: int = 0


def strict(path):
    """Read JSON that holds nothing but JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def start(body, logs, **environment):
    """Start a plain script whose `logs` is a folder; its words are imported as a user would."""
    script = "from pathlib import Path\nimport os, sys, time, trainlab\nlogs = Path(sys.argv[1])\n"
    return subprocess.Popen(
        [sys.executable, "-c", script + textwrap.dedent(body), str(logs)],
        env=os.environ | {"PYTHONPATH": str(SRC)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def the_run(logs):
    (row,) = listing.rows(logs)
    return row


def wait_for(condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_finished_run_leaves_its_settings_machine_and_metrics(tmp_path):
    with Run("news", Settings(margin=5), data={"rows": 3}, metrics=["val/loss"], logs=tmp_path) as run:
        for step, loss in enumerate([3.0, 1.0, 2.0]):
            run.log({"val/loss": loss, "val/accuracy": 1 - loss / 4}, step)
    found = strict(run.folder / "run.json")
    assert run.folder.parent == tmp_path / "news"
    assert run.name.endswith("-margin5")
    assert (found["experiment"], found["run"], found["status"]) == ("news", run.name, "finished")
    assert found["config"] == {"margin": 5.0, "backbone": "minilm", "seed": 0}
    assert found["seed"] == 0
    assert found["data"] == {"rows": 3}
    assert found["last"]["val/loss"] == {"value": 2.0, "step": 2}
    assert found["best"]["val/loss"] == {"value": 1.0, "step": 1}
    assert found["best"]["val/accuracy"] == {"value": 0.75, "step": 1}
    assert found["hardware"]["cores"] >= 1
    assert found["packages"]["python"] == platform.python_version()
    assert found["seconds"] >= 0
    assert datetime.fromisoformat(found["ended"]) - datetime.now(UTC) < timedelta(minutes=1)
    assert events.read(run.folder).curves["val/loss"].values == [3.0, 1.0, 2.0]


def test_an_exception_marks_the_run_failed_and_goes_on_up(tmp_path):
    with pytest.raises(ValueError, match="loss is NaN"), Run("news", logs=tmp_path) as run:
        raise ValueError("loss is NaN")
    found = record.read(run.folder)
    assert (found.status, found.reason) == ("failed", "ValueError: loss is NaN")


def test_a_kernel_interrupt_marks_the_run_interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt), Run("news", logs=tmp_path) as run:
        raise KeyboardInterrupt
    found = record.read(run.folder)
    assert (found.status, found.reason) == ("interrupted", "KeyboardInterrupt")


@pytest.mark.parametrize(
    ("code", "status"), [(None, "finished"), (0, "finished"), (1, "failed"), ("a message", "failed")]
)
def test_leaving_with_exit_counts_as_its_code_says(code, status):
    assert signals.ending(SystemExit(code))[0] == status


def test_an_exit_that_answers_an_interrupt_is_an_interrupt():
    with pytest.raises(SystemExit) as caught:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # what Lightning does
    assert signals.ending(caught.value)[0] == "interrupted"


def test_sigterm_ends_a_plain_script_with_143_and_marks_it(tmp_path):
    script = start(
        """
        with trainlab.Run("plain", logs=logs) as run:
            print(run.folder, flush=True)
            time.sleep(60)
        """,
        tmp_path,
    )
    folder = Path(script.stdout.readline().strip())
    script.send_signal(signal.SIGTERM)
    script.communicate(timeout=DEADLINE)
    assert script.returncode == 143
    assert (record.read(folder).status, record.read(folder).reason) == ("interrupted", "SIGTERM")


def test_the_handler_of_sigterm_is_gone_after_the_block(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with Run("news", logs=tmp_path):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_killed_run_is_shown_as_interrupted_with_all_that_it_logged(tmp_path):
    script = start(
        """
        with trainlab.Run("plain", logs=logs) as run:
            for step in range(50):
                run.log({"val/loss": 1 / (step + 1)}, step)
            print("logged", flush=True)
            time.sleep(60)
        """,
        tmp_path,
    )
    assert script.stdout.readline() == "logged\n"
    assert the_run(tmp_path).status == "running"
    wait_for(lambda: the_run(tmp_path).last.get("val/loss") == pytest.approx(1 / 50))
    script.kill()
    script.communicate(timeout=DEADLINE)
    row = the_run(tmp_path)
    assert (row.status, row.reason) == ("interrupted", record.UNKNOWN)
    assert row.last["val/loss"] == pytest.approx(1 / 50)


def test_a_forked_worker_that_lives_on_does_not_keep_a_dead_run_alive(tmp_path):
    script = start(
        """
        run = trainlab.Run("plain", logs=logs)
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        print(child, flush=True)
        os._exit(1)
        """,
        tmp_path,
    )
    child = int(script.stdout.readline())
    script.wait(timeout=DEADLINE)
    try:
        os.kill(child, 0)
        wait_for(lambda: the_run(tmp_path).status == "interrupted")
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_leaves_the_block_does_not_end_its_parents_run(tmp_path):
    with Run("news", logs=tmp_path) as run:
        child = os.fork()
        if child == 0:
            run.finish("failed", "I am the child")
            os._exit(0)
        os.waitpid(child, 0)
        assert record.read(run.folder).status == "running"
        assert lock.alive(run.folder)


def _make_folders(logs):
    return [str(naming.new_folder(logs, "news", "same")) for _ in range(10)]


def test_runs_of_one_second_get_folders_of_their_own_across_processes(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        made = [each for some in pool.map(_make_folders, [tmp_path] * 4) for each in some]
    assert len(set(made)) == 40
    assert len(list((tmp_path / "news").iterdir())) == 40


@pytest.mark.parametrize("name", ["../../etc", "a/b", "..", "a\0b", "ü" * 300, ".hidden", "new\nline"])
def test_no_name_leaves_the_folder_of_its_experiment(tmp_path, name):
    folder = naming.new_folder(tmp_path / "logs", "news", name)
    assert folder.parent == tmp_path / "logs" / "news"
    assert folder.is_dir()
    assert not folder.name.startswith(".")


def test_an_experiment_without_a_letter_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'\.\./' can't name an experiment"):
        Run("../", logs=tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_numbers_that_json_lacks_are_written_as_words(tmp_path):
    config = {
        "clip": math.inf,
        "shape": (1, 2),
        "where": Path("a"),
        "rate": np.float32(0.5),
        "count": np.int64(3),
    }
    with Run("news", config, logs=tmp_path) as run:
        run.log({"val/loss": 2.0, "val/x": -math.inf}, 0)
        run.log({"val/loss": math.nan}, 1)
    found = strict(run.folder / "run.json")
    assert found["config"] == {"clip": "Infinity", "shape": [1, 2], "where": "a", "rate": 0.5, "count": 3}
    assert found["last"]["val/loss"] == {"value": "NaN", "step": 1}
    assert found["best"]["val/loss"] == {"value": 2.0, "step": 0}
    assert math.isnan(record.read(run.folder).last["val/loss"].value)
    assert record.read(run.folder).last["val/x"].value == -math.inf


def prepared(tmp_path):
    """Make the folder of a run as the headless runner does."""
    folder = tmp_path / "elsewhere" / "20261120-153012"
    folder.mkdir(parents=True)
    record.create(folder, "elsewhere", seed=7, command="trainlab run news")
    return folder


def test_the_first_run_takes_over_the_runners_folder_and_the_next_makes_its_own(tmp_path, monkeypatch):
    folder = prepared(tmp_path)
    monkeypatch.setenv("TRAINLAB_RUN", str(folder))
    with Run("news", {"margin": 5}, metrics=["val/loss"], logs=tmp_path / "logs") as first:
        assert (first.folder, first.experiment) == (folder, "elsewhere")
        assert not (tmp_path / "logs").exists()
        assert lock.alive(folder)
    with Run("news", logs=tmp_path / "logs") as second:
        assert second.folder.parent == tmp_path / "logs" / "news"
    found = record.read(folder)
    assert (found.config, found.metrics, found.seed) == ({"margin": 5}, ["val/loss"], 7)
    assert found.command == "trainlab run news"
    assert found.status == "running", "only the runner knows whether the later cells run"


def test_a_seed_of_zero_is_a_seed(tmp_path, monkeypatch):
    folder = prepared(tmp_path)
    monkeypatch.setenv("TRAINLAB_RUN", str(folder))
    with Run("news", seed=0):
        assert record.read(folder).seed == 0


def test_a_failure_in_an_adopted_run_is_written_at_once(tmp_path, monkeypatch):
    folder = prepared(tmp_path)
    monkeypatch.setenv("TRAINLAB_RUN", str(folder))
    with pytest.raises(ValueError, match="no"), Run("news"):
        raise ValueError("no")
    assert record.read(folder).status == "failed"


def test_a_run_keeps_what_the_runner_writes_meanwhile(tmp_path):
    with Run("news", logs=tmp_path) as run:
        record.update(run.folder, notebook="news.ipynb")
        run.update(data={"rows": 5})
    assert strict(run.folder / "run.json")["notebook"] == "news.ipynb"
    assert record.read(run.folder).data == {"rows": 5}


@pytest.mark.parametrize("content", ["", "{", '{"status": "running"}', None])
def test_a_record_that_somebody_breaks_meanwhile_is_written_anew(tmp_path, content):
    with Run("news", {"margin": 5}, logs=tmp_path) as run:
        path = run.folder / "run.json"
        path.unlink() if content is None else path.write_text(content)
        run.log({"val/loss": 1}, 1)
    found = record.read(run.folder)
    assert (found.status, found.config, found.last["val/loss"].value) == ("finished", {"margin": 5}, 1)


def test_metrics_reach_the_record_while_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "FLUSH_SECONDS", -1)
    with Run("news", logs=tmp_path) as run:
        run.log({"val/loss": 1}, 1)
        assert record.read(run.folder).last["val/loss"].step == 1


def test_nothing_is_logged_to_a_run_that_has_ended(tmp_path):
    with Run("news", logs=tmp_path) as run:
        run.log({"a": 1}, 1)
    with pytest.raises(UserError, match="has ended"):
        run.log({"a": 2}, 2)
    run.finish("failed", "a second end")
    assert record.read(run.folder).status == "finished"
    assert len(events.files(run.folder)) == 1


def test_a_full_disk_is_one_clear_error_and_the_run_is_marked_failed(tmp_path):
    script = start(
        """
        import resource
        with trainlab.Run("plain", logs=logs) as run:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
            for step in range(100_000):
                run.log({"train/loss": 1.0}, step)
        """,
        tmp_path,
    )
    _, errors = script.communicate(timeout=DEADLINE)
    row = the_run(tmp_path)
    assert script.returncode == 1
    assert errors.startswith(f"error: {row.folder} can't be written: File too large.")
    assert "Traceback" not in errors
    assert row.status == "failed"
    assert "File too large" in row.reason


def test_a_folder_that_cannot_be_written_is_named_with_the_mend(tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(UserError, match=r"logs/news can't be written: Not a directory.*ls -ld"):
        Run("news", logs=tmp_path / "logs")


def test_the_record_holds_no_secret(tmp_path):
    secret = "s3cr3t-and-long"
    script = start(
        'trainlab.Run("plain", logs=logs).finish()\nsys.exit()\n# --token', tmp_path, JUPYTER_TOKEN=secret
    )
    script.communicate(timeout=DEADLINE)
    text = (the_run(tmp_path).folder / "run.json").read_text()
    assert the_run(tmp_path).status == "finished"
    assert secret not in text


def test_everything_that_can_be_logged_is_in_one_event_file(tmp_path):
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots()
    axes.plot([1, 2])
    with Run("news", {"a": 1}, logs=tmp_path) as run:
        run.log({"val/loss": np.float64(1)}, step=1)
        run.log_text("notes", "**hello**", step=1)
        run.log_figure("figure", figure, step=1)
        for layout in [(4, 5), (4, 5, 3), (3, 4, 5)]:
            run.log_image(f"image/{layout}", np.zeros(layout), step=1)
        run.log_histogram("distances", np.arange(10.0).reshape(2, 5), step=1)
    (path,) = events.files(run.folder)
    tags = {value.tag for event in EventFileLoader(str(path)).Load() for value in event.summary.value}
    assert {"val/loss", "notes/text_summary", "figure", "distances", "image/(4, 5)"} <= tags
    assert plt.get_fignums() == []


def test_an_image_of_another_shape_is_refused(tmp_path):
    with Run("news", logs=tmp_path) as run, pytest.raises(ValueError, match="expected"):
        run.log_image("image", np.zeros((2, 2, 2)), step=1)


def test_metadata_that_does_not_fit_the_vectors_is_refused(tmp_path):
    with Run("news", logs=tmp_path) as run:
        with pytest.raises(ValueError, match="2 vectors, but 1 rows"):
            run.log_embedding("a", np.eye(2), [["x"]], ["title"], 0)
        with pytest.raises(ValueError, match="expected 2 columns"):
            run.log_embedding("a", np.eye(2), [["x"], ["y"]], ["title", "category"], 0)


def test_a_single_column_of_metadata_has_no_header(tmp_path):
    with Run("news", logs=tmp_path) as run:
        run.log_embedding("a", np.eye(2), ["x\ty", "z"], ["title"], 0)
    (path,) = run.folder.rglob("metadata.tsv")
    assert path.read_text() == "x y\nz\n"


def test_vectors_written_again_at_the_same_step_replace_the_first_in_silence(tmp_path, capsys):
    with Run("news", logs=tmp_path) as run:
        run.log_embedding("titles/all", np.eye(2), [["x"], ["y"]], ["title"], 7)
        run.log_embedding("titles/all", np.eye(3), [["x"], ["y"], ["z"]], ["title"], 7)
    (path,) = run.folder.rglob("metadata.tsv")
    assert path.read_text() == "x\ny\nz\n"
    assert "warning" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def kernel():
    """A Jupyter kernel as JupyterLab starts one, that can import the package."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=os.environ | {"PYTHONPATH": str(SRC)})
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=DEADLINE)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run_cell_by_hand(client, logs):
    """Start a cell with a run in it; return the run's folder while the cell is at work."""
    cell = f"""
    import pathlib, time, trainlab
    logs = pathlib.Path({str(logs)!r})
    with trainlab.Run("by-hand", logs=logs):
        (logs / "inside").touch()
        time.sleep(60)
    """
    client.execute(textwrap.dedent(cell), stop_on_error=False)  # or the next cell might be dropped
    wait_for((logs / "inside").exists)
    return the_run(logs).folder


def test_an_interrupted_cell_in_jupyter_marks_its_run_interrupted(kernel, tmp_path):
    manager, client = kernel
    folder = run_cell_by_hand(client, tmp_path)
    manager.interrupt_kernel()
    wait_for(lambda: record.read(folder).status == "interrupted")
    wait_for(lambda: not lock.alive(folder))
    assert manager.is_alive()


def test_a_kernel_that_gets_sigterm_marks_its_run_and_ends(kernel, tmp_path):
    manager, client = kernel
    folder = run_cell_by_hand(client, tmp_path)
    manager.signal_kernel(signal.SIGTERM)
    wait_for(lambda: not manager.is_alive())
    assert (record.read(folder).status, record.read(folder).reason) == ("interrupted", "SIGTERM")
