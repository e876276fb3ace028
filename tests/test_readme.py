"""What README.md tells people to type works, and what it says is there is there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from project import CHECKOUT, clean_environment
from trainlab.run import checkpoint, events

if TYPE_CHECKING:
    from project import Project

README = (CHECKOUT / "README.md").read_text()
QUICK = "epochs=1 class_size=4 triplets_per_item=2 max_tokens=16"
RUN_ELSEWHERE = {
    "make demo": "test_real_engine.py runs it on the engine that people get",
    "make test": "it is what runs this test",
    "trainlab stop RUN": "needs a run at work; tests/run/test_stop.py has one",
    "ssh -N -L 8888:127.0.0.1:8888 -L 6006:127.0.0.1:6006 you@machine": "needs a second machine",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def example(word: str) -> str:
    """Return the example in Python that holds a word."""
    (found,) = [block for block in blocks("python") if word in block]
    return found


SCRIPT = example("SummaryWriter")


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line and line not in RUN_ELSEWHERE]


def runnable(command: str, project: Project) -> str:
    """Shorten the training, and put the newest run where the README says RUN."""
    names = sorted(path.name for path in (project.folder / "logs").glob("*/2*"))
    command = command.replace("RUN", names[-1]) if names else command
    command = command.replace("margin=5", f"margin=5 {QUICK}")
    return (
        command.replace("trainlab ", ".venv/bin/trainlab ", 1) if command.startswith("trainlab") else command
    )


@pytest.mark.slow
def test_every_command_works_in_the_order_in_which_it_is_read(local_project: Project) -> None:
    environment = (
        clean_environment() | local_project.environment | {"TRAINLAB_ROOT": str(local_project.folder)}
    )
    (local_project.folder / "train.py").write_text(SCRIPT)
    for command in commands():
        done = subprocess.run(
            ["bash", "-c", runnable(command, local_project)],
            cwd=local_project.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        # doctor says what is wrong with this machine, and exits 1 where something is
        allowed = (0, 1) if command.startswith("trainlab doctor") else (0,)
        assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"


def recorded(example: str, logs: Path) -> tuple[Path, dict[str, Any]]:
    """Run an example of the README's; return the folder and the record of the run that it leaves."""
    environment = os.environ | {"TRAINLAB_LOGS": str(logs), "PYTHONPATH": str(CHECKOUT / "src")}
    subprocess.run([sys.executable, "-c", example], env=environment, check=True)
    (record,) = logs.glob("*/*/run.json")
    return record.parent, json.loads(record.read_text())


def test_the_example_of_a_script_leaves_a_finished_run_with_its_curve(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    (command,) = [line for line in commands() if "train.py" in line]
    environment = os.environ | {"TRAINLAB_LOGS": str(tmp_path / "logs")}
    trainlab = Path(sys.executable).with_name("trainlab")
    words = [str(trainlab), *command.split()[1:]]
    subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    (record,) = tmp_path.glob("logs/train/*/run.json")
    run = json.loads(record.read_text())
    assert (run["status"], run["config"]) == ("finished", {"lr": 0.3})
    assert events.read(record.parent).curves["train/loss"].steps == [*range(50)]


def test_the_example_of_a_training_loop_leaves_a_finished_run(tmp_path: Path) -> None:
    folder, run = recorded(example("my-experiment"), tmp_path)
    assert folder.parent.name == "my-experiment"
    assert run["status"] == "finished"
    assert run["config"] == {"learning_rate": 0.3}
    assert {tag for tag in run["last"] if not tag.startswith("vitals/")} == {"train/loss", "val/loss"}


def test_the_example_of_a_loop_with_arguments_leaves_a_run_named_by_them(tmp_path: Path) -> None:
    folder, run = recorded(example("vars(args)"), tmp_path)
    assert folder.name.endswith("-lr0.3")
    assert (run["status"], run["config"]) == ("finished", {"lr": 0.3})
    assert run["last"]["train/loss"]["step"] == 99


def test_the_example_of_a_loop_with_checkpoints_goes_on_where_it_was(tmp_path: Path) -> None:
    text = example("run.save")
    folder, run = recorded(text, tmp_path)
    assert run["last"]["train/loss"]["step"] == 99
    assert sorted(path.name for path in folder.glob("checkpoints/*.ckpt")) == [
        "last.ckpt",
        "step-00000050.ckpt",
        "step-00000100.ckpt",
    ]
    assert recorded(text.replace('resume=""', 'resume="last"').replace("100", "150"), tmp_path)[0] == folder
    assert json.loads((folder / "run.json").read_text())["last"]["train/loss"]["step"] == 149


def test_the_example_of_an_own_subject_is_checked(tmp_path: Path) -> None:
    line, subject = example("class Line"), example("def subject")
    (tmp_path / "mine.py").write_text(f"{line.split('x = ')[0]}{subject}")
    environment = os.environ | {"TRAINLAB_LOGS": str(tmp_path / "logs"), "PYTHONPATH": str(CHECKOUT / "src")}
    command = [str(Path(sys.executable).with_name("trainlab")), "check", "mine:subject", "--format", "json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert {each["status"] for each in json.loads(done.stdout)} == {"passed", "skipped"}, done.stdout


def test_the_example_of_an_own_module_leaves_curves_and_a_checkpoint_that_loads(tmp_path: Path) -> None:
    folder, run = recorded(example("class Line"), tmp_path)
    assert (run["experiment"], run["status"], run["config"]["learning_rate"]) == ("line", "finished", 0.2)
    assert run["last"]["val/loss"]["value"] < 0.01
    best = checkpoint.load(folder / "checkpoints" / "best.ckpt")
    assert dict(best["hyper_parameters"]) == {"learning_rate": 0.2}


def test_the_example_of_a_transformers_trainer_leaves_curves_and_whole_checkpoints(tmp_path: Path) -> None:
    (example,) = (block for block in blocks("python") if "RunCallback" in block)
    added = [line for line in example.splitlines() if re.search(r"trainlab|\brun\b", line)]
    assert len(added) <= 5
    folder, run = recorded(example, tmp_path)
    assert (run["experiment"], run["status"], run["config"]) == (
        "first-word",
        "finished",
        {"learning_rate": 0.001},
    )
    assert {"val/loss", "train/loss"} <= run["last"].keys()
    assert checkpoint.newest(folder) == folder / "checkpoints" / "checkpoint-60"


def test_everything_in_the_tree_exists() -> None:
    (tree,) = blocks("text")
    parents = [CHECKOUT]
    for line in tree.splitlines():
        names = re.split(r"\s{3,}", line.strip(), maxsplit=1)[0].split()
        parents = parents[:1] if not line.startswith(" ") else parents
        folder = parents[-1]
        for name in names:
            assert (folder / name).exists(), name
        if not line.startswith(" ") and names[0].endswith("/"):
            parents.append(CHECKOUT / names[0])


def test_every_picture_and_file_that_is_linked_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (CHECKOUT / target).exists(), target
