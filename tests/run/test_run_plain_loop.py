"""A plain loop's way in: settings of any kind, steps left out, checkpoints with and without torch."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import trainlab
from trainlab import files
from trainlab.errors import UserError
from trainlab.run import checkpoint, events, record
from trainlab.run.checkpoint import CheckpointError

SRC = Path(trainlab.__file__).parents[1]
WITHOUT_TORCH = "import sys\nsys.modules['torch'] = None  # an import of it fails\n"


@dataclass
class Options:
    learning_rate: float = 0.1
    layers: int = 2
    amp: bool = True


def started(logs, config=None, **options):
    return trainlab.Run("mine", config, logs=logs, monitor=False, **options)


def script(body, logs, **environment):
    """Run a program; return what it printed on standard output, and on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)],
        env=os.environ | {"PYTHONPATH": str(SRC), "TRAINLAB_LOGS": str(logs)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("settings", "config", "name"),
    [
        ({"lr": 0.3, "data": "/a/b.csv", "amp": False, "tag": ""}, {"lr": 0.3}, "lr0.3"),
        (argparse.Namespace(lr=0.3, resume="last", layers=2), {"lr": 0.3, "layers": 2}, "lr0.3-layers2"),
        (Options(learning_rate=0.3, amp=False), {"layers": 2, "amp": False}, "learning_rate0.3-ampFalse"),
        (None, {}, ""),
    ],
)
def test_settings_of_any_kind_are_recorded_and_name_the_run(tmp_path, settings, config, name):
    with started(tmp_path, settings) as run:
        found = record.read(run.folder).config
    assert config.items() <= found.items()
    assert "resume" not in found
    assert run.name.partition("-")[2].partition("-")[2] == name


def test_settings_of_no_known_kind_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"type list: expected a dict, an argparse\.Namespace, a dataclass"):
        started(tmp_path, ["lr", 0.3])
    assert not list(tmp_path.iterdir())


def test_steps_left_out_count_up_where_a_tag_comes_again(tmp_path):
    with started(tmp_path) as run:
        for _ in range(3):
            run.log({"train/loss": 1.0})
            run.log({"train/accuracy": 1.0})
        run.log({"val/loss": 1.0})
        assert run.step == 3
    steps = {tag: curve.steps for tag, curve in events.read(run.folder).curves.items()}
    assert steps == {"train/loss": [0, 1, 2], "train/accuracy": [0, 1, 2], "val/loss": [2]}


def interrupted(logs, state):
    """Train for four steps, and save after the first two of them."""
    with pytest.raises(KeyboardInterrupt), started(logs, {"lr": 0.5}) as run:
        assert run.load() is None
        for step in range(4):
            run.log({"train/loss": float(step)})
            if step == 1:
                run.save(state)
        raise KeyboardInterrupt
    return run


def test_a_resumed_loop_has_its_state_its_step_and_its_curves(tmp_path):
    network = torch.nn.Linear(2, 1)
    adam = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    adam.step()
    run = interrupted(tmp_path, {"model": network.state_dict(), "adam": adam.state_dict(), "best": 0.5})
    with started(tmp_path, {"lr": 0.5}, resume="last") as again:
        state = again.load()
        assert (again.folder, again.step, state["best"]) == (run.folder, 2, 0.5)
        again.log({"train/loss": 20.0})
    assert torch.equal(state["model"]["weight"], network.weight)
    adam.load_state_dict(state["adam"])
    curve = events.read(run.folder).curves["train/loss"]
    assert (curve.steps, curve.values) == ([0, 1, 2], [0.0, 1.0, 20.0])
    assert record.read(run.folder).resumes[0].step == 2


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, capsys):
    with started(tmp_path) as run:
        paths = []
        for step in range(3):
            run.log({"train/loss": 1.0}, step)
            paths.append(run.save({"weights": np.full(3, step)}))
    assert [path.exists() for path in paths] == [False, True, True]
    content = paths[-1].read_bytes()
    (run.checkpoints / "last.ckpt").write_bytes(content[:-30] + b"x" + content[-29:])
    with started(tmp_path, resume=run.name) as again:
        assert again.load()["weights"].tolist() == [1, 1, 1]
    assert f"{paths[-1].name} is damaged" in capsys.readouterr().out


STATE = {
    "weights": {"layer": np.arange(6, dtype=np.float32).reshape(2, 3), 3: [np.array(True), None, "text"]},
    "shape": (2, 3.5),
    "generator": np.random.default_rng(0).bit_generator.state,
    "word": np.array(["a", "bc"]),
    "infinite": float("inf"),
}


def test_arrays_numbers_and_texts_come_back_as_they_were_without_a_pickle(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.save(STATE, path)
    np.testing.assert_equal(checkpoint.load(path), STATE)
    assert checkpoint.load(path)["weights"]["layer"].dtype == np.float32
    assert b".pkl" not in path.read_bytes()


@pytest.mark.parametrize("value", [object(), np.array([object()]), {1, 2}, b"bytes"])
def test_what_could_not_be_loaded_is_not_saved_without_torch(tmp_path, value, monkeypatch):
    path = tmp_path / "last.ckpt"
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(CheckpointError, match=r"not written: a value of type .*can't be saved\. Save"):
        checkpoint.save({"value": value}, path)
    assert not path.exists()


def test_an_array_of_objects_made_elsewhere_is_not_loaded(tmp_path):
    import zipfile

    path = tmp_path / "last.ckpt"
    checkpoint.save({"value": np.zeros(1)}, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("state.json", '{"dict": [["value", {"array": 0}]]}')
        with archive.open("0.npy", "w") as place:
            np.lib.format.write_array(place, np.array([{"a": 1}]), allow_pickle=True)
    checkpoint.digest_file(path).write_text(f"{files.digest(path)}  {path.name}\n")
    with pytest.raises(CheckpointError, match="Object arrays cannot be loaded"):
        checkpoint.load(path)


def test_a_checkpoint_of_something_else_is_not_taken_for_a_loops(tmp_path):
    with started(tmp_path) as run:
        checkpoint.save({"state_dict": {}}, run.checkpoints / "last.ckpt")
    with started(tmp_path, resume=run.name) as again, pytest.raises(CheckpointError, match=r"run\.save"):
        again.load()


def test_a_run_needs_no_torch(tmp_path):
    body = """
        import numpy as np
        import trainlab

        def train(resume):
            with trainlab.Run("keras", {"lr": 0.3}, metrics=["val/loss"], resume=resume) as run:
                state = run.load() or {"weights": np.zeros(2)}
                for _ in range(run.step, run.step + 2):
                    run.log({"val/loss": np.float32(0.5)})
                run.log_text("note", "**hello**", run.step)
                run.log_histogram("weights", state["weights"], run.step)
                run.log_image("image", np.zeros((4, 5, 3)), run.step)
                run.save({"weights": state["weights"] + 1})
            return run.step, state["weights"].tolist()

        print(train(None), train("last"))
        print(sorted(name for name in sys.modules if name.partition(".")[0] == "torch"))
        """
    out, _ = script(WITHOUT_TORCH + textwrap.dedent(body), tmp_path)
    assert out == "(2, [0.0, 0.0]) (4, [1.0, 1.0])\n['torch']\n"
    (folder,) = tmp_path.glob("keras/*")
    assert record.read(folder).status == "finished"
    assert events.read(folder).curves["val/loss"].steps == [0, 1, 2, 3]


def test_what_the_package_names_is_imported_when_it_is_asked_for(tmp_path):
    body = """
        import sys
        import trainlab
        print(*(name for name in ("torch", "pandas", "lightning", "pydantic") if name in sys.modules))
        names = ("Run", "Config", "RunLogger", "Trainer", "table", "scalars", "find")
        print(*(getattr(trainlab, name).__name__ for name in names))
        """
    out, _ = script(body, tmp_path)
    assert out.splitlines() == ["", "Run Config RunLogger Trainer table scalars find"]


LOUD = {"TRAINLAB_QUIET": "", "TENSORBOARD_PORT": "6100"}
NAMED = 'import trainlab\nwith trainlab.Run("mine", {"a+b": 1}, monitor=False) as run: print(run.folder)'


def test_a_run_says_once_where_it_lies_and_where_its_curves_are(tmp_path):
    out, err = script(NAMED, tmp_path, **LOUD)
    folder = Path(out.strip())
    page = f"http://127.0.0.1:6100/?runFilter=mine/{folder.name.replace('+', '.')}#timeseries"
    assert err.splitlines() == [f"run: {folder}", f"curves: {page}"]


@pytest.mark.parametrize("worker", [{"RANK": "1"}, {"LOCAL_RANK": "1"}, {"TRAINLAB_QUIET": "1"}])
def test_a_worker_process_says_nothing(tmp_path, worker):
    assert script(NAMED, tmp_path, **LOUD | worker)[1] == ""


def test_curves_that_no_tensorboard_of_the_stack_shows_have_no_address(tmp_path):
    body = NAMED.replace("monitor", f"logs=__import__('pathlib').Path({str(tmp_path / 'other')!r}), monitor")
    printed = script(body, tmp_path, **LOUD)[1]
    assert [line for line in printed.splitlines() if line.startswith("run: ")]
    assert "http" not in printed


def test_a_metric_that_was_named_and_never_logged_is_reported_at_the_end(tmp_path, capsys):
    with started(tmp_path, metrics=["val/los", "train/loss"]) as run:
        run.log({"val/loss": 1.0, "train/loss": 1.0})
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "metrics: val/los never logged. Did you mean 'val/loss'? Logged: val/loss, train/loss."


def test_metrics_that_were_all_logged_are_no_news(tmp_path, capsys):
    with started(tmp_path, metrics=["val/loss"]) as run:
        run.log({"val/loss": 1.0})
    assert capsys.readouterr().err == ""
