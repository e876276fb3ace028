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
    "make down": "it would stop the services that the later commands need",
    "trainlab stop RUN": "needs a run that trains; tests/run/test_stop.py has one",
    "ssh -N -L 8888:127.0.0.1:8888 -L 6006:127.0.0.1:6006 you@machine": "needs a second machine",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def example(word: str) -> str:
    """Return the example in Python that holds a word."""
    (found,) = [block for block in blocks("python") if word in block]
    return found


def added(example: str) -> list[str]:
    """Return the lines of an example that it would not have without trainlab; a loop has its head anyway."""
    lines = example.splitlines()
    return [line for line in lines if re.search(r"trainlab|\brun\b", line) and "for step in" not in line]


SCRIPT = example("vars(args)")
LINE = example("class Line")


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


def executed(example: str, logs: Path, *words: str) -> None:
    environment = os.environ | {"TRAINLAB_LOGS": str(logs), "PYTHONPATH": str(CHECKOUT / "src")}
    subprocess.run([sys.executable, "-c", example, *words], env=environment, check=True)


def recorded(example: str, logs: Path, *words: str) -> tuple[Path, dict[str, Any]]:
    """Run an example of the README's; return the folder and the record of the run that it leaves."""
    executed(example, logs, *words)
    (record,) = logs.glob("*/*/run.json")
    return record.parent, json.loads(record.read_text())


def by_trainlab(folder: Path, *words: str) -> str:
    """Call the command in a folder; return what it prints."""
    environment = os.environ | {"TRAINLAB_LOGS": str(folder / "logs"), "PYTHONPATH": str(CHECKOUT / "src")}
    command = [str(Path(sys.executable).with_name("trainlab")), *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("word", ["vars(args)", "run.save", "class Line", "RunCallback"])
def test_an_example_adds_five_lines_at_most(word: str) -> None:
    assert 0 < len(added(example(word))) <= 5


def test_the_example_of_a_loop_leaves_a_run_named_by_its_arguments(tmp_path: Path) -> None:
    folder, run = recorded(SCRIPT, tmp_path)
    assert folder.name.endswith("-lr0.3-steps100")
    assert (folder.parent.name, run["status"]) == ("mine", "finished")
    assert run["config"] == {"lr": 0.3, "steps": 100}
    assert run["last"]["train/loss"]["step"] == 99


def test_the_example_of_a_script_gets_its_arguments_and_one_run(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    (command,) = [line for line in commands() if "train.py" in line]
    by_trainlab(tmp_path, *command.split()[1:])
    (record,) = tmp_path.glob("logs/mine/*/run.json")
    run = json.loads(record.read_text())
    assert (run["status"], run["config"]) == ("finished", {"lr": 0.1, "steps": 50})
    assert events.read(record.parent).curves["train/loss"].steps == [*range(50)]


def test_the_example_without_torch_goes_on_where_it_was(tmp_path: Path) -> None:
    text = example("run.save") + "\nimport sys; assert 'torch' not in sys.modules"
    folder, run = recorded(text, tmp_path)
    assert run["last"]["train/loss"]["step"] == 99
    assert sorted(path.name for path in folder.glob("checkpoints/*.ckpt")) == [
        "last.ckpt",
        "step-00000050.ckpt",
        "step-00000100.ckpt",
    ]
    assert recorded(text.replace('resume=""', 'resume="last"').replace("100", "150"), tmp_path)[0] == folder
    assert json.loads((folder / "run.json").read_text())["last"]["train/loss"]["step"] == 149


def test_the_example_of_an_own_lightning_trainer_leaves_curves_and_a_checkpoint(tmp_path: Path) -> None:
    folder, run = recorded(LINE, tmp_path)
    assert (run["experiment"], run["status"], run["config"]) == ("line", "finished", {"learning_rate": 0.2})
    assert run["last"]["val/loss"]["value"] < 0.01
    assert any(tag.startswith("lr-SGD") for tag in run["last"])  # by a callback of the reader's own
    best = checkpoint.load(folder / "checkpoints" / "best.ckpt")
    assert dict(best["hyper_parameters"]) == {"learning_rate": 0.2}


def test_the_example_of_the_shorthand_takes_the_settings_beside_it(tmp_path: Path) -> None:
    shorthand = example("from_command_line")
    (words,) = re.findall(r"from_command_line\(\)  # (.*)", shorthand)
    run = recorded(LINE.split("mine = ")[0] + shorthand, tmp_path, *words.split())[1]
    chosen = {key: run["config"][key] for key in ("epochs", "learning_rate", "patience")}
    assert (run["status"], chosen) == ("finished", {"epochs": 5, "learning_rate": 0.2, "patience": 3})


def test_the_example_of_an_own_subject_is_checked(tmp_path: Path) -> None:
    (tmp_path / "line.py").write_text(LINE.split("mine = ")[0] + example("def subject"))
    findings = json.loads(by_trainlab(tmp_path, "check", "line:subject", "--format", "json"))
    assert {each["status"] for each in findings} == {"passed", "skipped"}, findings


def test_the_example_of_a_transformers_trainer_leaves_curves_and_whole_checkpoints(tmp_path: Path) -> None:
    folder, run = recorded(example("RunCallback"), tmp_path)
    assert (run["experiment"], run["status"]) == ("first-word", "finished")
    assert run["config"] == {"learning_rate": 0.001}
    assert {"val/loss", "train/loss"} <= run["last"].keys()
    assert checkpoint.newest(folder) == folder / "checkpoints" / "checkpoint-60"


def test_the_example_of_tables_reads_a_run(tmp_path: Path) -> None:
    recorded(SCRIPT, tmp_path)
    executed(example("trainlab.table()"), tmp_path)


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
