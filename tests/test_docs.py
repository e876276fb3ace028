"""What README.md and docs/ tell people to type works, and what they say is there is there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main
import yaml

from project import CHECKOUT, clean_environment
from trainlab import cli
from trainlab.cli import sweep
from trainlab.run import checkpoint, events
from trainlab.sweeps import order

if TYPE_CHECKING:
    from project import Project

# In the order in which the commands are tried: some pages need runs, and compare.md deletes them at its end
FIRST = ("serving", "clicks", "examples", "loop", "script", "resume", "share")
OTHERS = sorted({path.stem for path in (CHECKOUT / "docs").glob("*.md")} - {*FIRST, "compare"})
NAMES = ("README.md", *(f"docs/{stem}.md" for stem in (*FIRST, *OTHERS, "compare")))
PAGES = {name: (CHECKOUT / name).read_text() for name in NAMES}
README = PAGES["README.md"]
WORDS = "\n".join([*PAGES.values(), (CHECKOUT / "CONTRIBUTING.md").read_text()])
QUICK = "epochs=1 class_size=4 triplets_per_item=2 max_tokens=16"
RUN_ELSEWHERE = {
    "make demo": "test_real_engine.py runs it on the engine that people get",
    "make down": "it would stop the services that the later commands need",
    "make serve RUN=last": "tests/stack/test_serve.py runs it on both engines",
    "make unserve": "the same",
    "make password": "asks somebody at a terminal; tests/stack/test_share_local.py types it",
    "make up SHARE=lab.example.org": "needs that password; tests/stack/test_share_containers.py has one",
    "trainlab serve RUN": "it would serve on; tests/cli/test_serve.py starts it",
    "trainlab stop RUN": "needs a run that trains; tests/run/test_stopping.py has one",
    "make stop RUN=last": "needs a run that trains; tests/stack/test_make.py has one",
    "ssh -N -L 8888:127.0.0.1:8888 -L 6006:127.0.0.1:6006 you@machine": "needs a second machine",
    "trainlab notify --test": "needs somebody to tell; tests/cli/test_notify.py has a server",
    "trainlab store --address 192.168.1.2": "needs a private network; tests/hosts/ has hosts",
    "trainlab run news --nodes 1:2 --join 192.168.1.2 --name big": "the same",
    'pip install "./trainlab[notebook,compare]"': "needs a package index",
}


def blocks(language: str, text: str | None = None) -> list[str]:
    text = "\n".join(PAGES.values()) if text is None else text
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def example(word: str) -> str:
    """Return the example in Python that holds a word."""
    (found,) = [block for block in blocks("python") if word in block]
    return found


def added(example: str) -> list[str]:
    """Return the lines of an example that it would not have without trainlab; a loop has its head anyway."""
    lines = example.splitlines()
    return [line for line in lines if re.search(r"trainlab|\brun\b", line) and "for step in" not in line]


SCRIPT = example("vars(args)")
ARRAYS = example("run.save")
LINE = example("class Line")
TUNE = example("def train(lr")
SWEEP = re.search(r"```toml\n(.*?)```", PAGES["docs/sweeps.md"], re.DOTALL)[1]


def commands() -> list[str]:
    return [line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines() if line]


def runnable(command: str, project: Project) -> str:
    """Shorten the training, and put the newest run where a page says RUN."""
    names = sorted((path.name for path in (project.folder / "logs").glob("*/2*")), reverse=True)
    command = re.sub(r"\bRUN\b(?!=)", names[0], command) if names else command
    command = command.replace("restore run.zip", "restore run.zip --logs elsewhere")  # as on another machine
    command = command.replace("check news", "check news --only 1")
    command = command.replace("0.1,0.2,0.4 --goal", f"0.1,0.2 {QUICK} --goal")
    return command.replace("=0.1 --seed", f"=0.1 {QUICK} --seed").replace('=0.1"', f'=0.1 {QUICK}"')


def test_the_readme_leads_to_every_page() -> None:
    assert {name for name in PAGES if f"]({name})" not in README} == {"README.md"}


def test_what_is_not_tried_here_is_still_told() -> None:
    assert RUN_ELSEWHERE.keys() <= set(commands())


@pytest.mark.slow
def test_every_command_works_in_the_order_of_the_pages(local_project: Project) -> None:
    folder = local_project.folder
    path = f"{folder / '.venv/bin'}:{os.environ['PATH']}"
    environment = clean_environment() | local_project.environment
    environment |= {"TRAINLAB_ROOT": str(folder), "PATH": path}
    (folder / "train.py").write_text(SCRIPT)
    (folder / "arrays.py").write_text(ARRAYS)
    (folder / "tune.py").write_text(TUNE)
    (folder / "elsewhere").mkdir()
    for command in commands():
        if command in RUN_ELSEWHERE:
            continue
        done = subprocess.run(
            ["bash", "-c", runnable(command, local_project)],
            cwd=folder,
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
    """Run an example; return the folder and the record of the run that it leaves."""
    executed(example, logs, *words)
    (record,) = logs.glob("*/*/run.json")
    return record.parent, json.loads(record.read_text())


def by_trainlab(folder: Path, *words: str) -> str:
    """Call the command in a folder; return what it prints."""
    environment = os.environ | {"TRAINLAB_LOGS": str(folder / "logs"), "PYTHONPATH": str(CHECKOUT / "src")}
    command = [str(Path(sys.executable).with_name("trainlab")), *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("word", ['{"lr": 0.3}) as', "vars(args)", "run.save", "class Line", "RunCallback"])
def test_an_example_adds_five_lines_at_most(word: str) -> None:
    assert 0 < len(added(example(word))) <= 5


def test_the_first_example_leaves_a_run(tmp_path: Path) -> None:
    folder, run = recorded(example('{"lr": 0.3}) as'), tmp_path)
    assert (folder.parent.name, run["status"], run["config"]) == ("mine", "finished", {"lr": 0.3})


def test_the_example_of_a_cloud_notebook_writes_where_it_says(tmp_path: Path) -> None:
    there = tmp_path / "drive" / "logs"
    executed(example("/content/drive").replace("/content/drive/MyDrive/logs", str(there)), tmp_path / "logs")
    assert len([*there.glob("mine/*/run.json")]) == 1
    assert not (tmp_path / "logs").exists()


def test_the_example_of_a_loop_leaves_a_run_named_by_its_arguments(tmp_path: Path) -> None:
    folder, run = recorded(SCRIPT, tmp_path)
    assert folder.name.endswith("-lr0.3-steps100")
    assert (folder.parent.name, run["status"]) == ("mine", "finished")
    assert run["config"] == {"lr": 0.3, "steps": 100}
    assert run["last"]["train/loss"]["step"] == 99


def test_the_example_of_a_script_gets_its_arguments_and_one_run(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    (command,) = [line for line in commands() if "run train.py" in line]
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


def test_the_example_of_a_sweep_finds_the_better_settings(tmp_path: Path) -> None:
    (tmp_path / "tune.py").write_text(TUNE)
    (command,) = [line for line in commands() if "--name first" in line]
    by_trainlab(tmp_path, *command.split()[1:])
    known = json.loads(by_trainlab(tmp_path, "sweep", "show", "first", "--format", "json"))
    assert [each["state"] for each in known["trials"]] == ["finished"] * 8
    assert min(known["trials"], key=lambda each: each["value"])["settings"]["margin"] > 1


def test_the_file_of_a_sweep_is_one(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(SWEEP)
    definition, _ = order.define(order.from_file(tmp_path / "sweep.toml"), tmp_path)
    assert (definition.trials, definition.method, definition.mode) == (40, "tpe", "max")


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
    (tree,) = blocks("text", README)
    parents = [CHECKOUT]
    for line in tree.splitlines():
        names = re.split(r"\s{3,}", line.strip(), maxsplit=1)[0].split()
        parents = parents[:1] if not line.startswith(" ") else parents
        folder = parents[-1]
        for name in names:
            assert (folder / name).exists(), name
        if not line.startswith(" ") and names[0].endswith("/"):
            parents.append(CHECKOUT / names[0])


def test_every_picture_and_page_that_is_linked_exists() -> None:
    for name, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (CHECKOUT / name).parent.joinpath(target).exists(), f"{name}: {target}"


def test_the_readme_is_short_and_says_early_how_to_bring_code_of_one_s_own() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    assert "## Your own code" in lines[:50]


def snippets() -> list[str]:
    """Return what the pages show in code."""
    return [
        *blocks("bash", WORDS),
        *(each.replace("\n", " ") for each in re.findall(r"(?<!`)`([^`]+)`(?!`)", WORDS)),
    ]


def called(program: str) -> list[list[str]]:
    """Return the words behind each call of a program that the pages show."""
    lines = [line.split("  #")[0].strip() for each in snippets() for line in each.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{program} ")]


def test_make_and_the_pages_name_the_same_targets() -> None:
    targets = set(
        re.findall(r"^  make (\w+)", subprocess.check_output(["make"], cwd=CHECKOUT, text=True), re.MULTILINE)
    )
    named = {words[0] for words in called("make")}
    listed = README.partition("`make help` lists all targets:")[2].partition(" are the others")[0]
    assert len(targets) > 10
    assert named | set(re.findall(r"`(\w+)`", listed)) == targets


def test_trainlab_and_the_pages_name_the_same_commands_and_options() -> None:
    program = typer.main.get_command(cli.app)
    missing, wrong = {(name,) for name in program.commands}, []
    for group in ("runs", "data", "sweep"):
        missing |= {
            (group, name) for name, each in program.commands[group].commands.items() if not each.hidden
        }
    for words in called("trainlab"):
        command, path = program, ()
        while deeper := getattr(command, "commands", {}).get(
            words[len(path)] if len(words) > len(path) else ""
        ):
            command, path = deeper, (*path, words[len(path)])
            missing.discard(path)
        command = getattr(command, "commands", {}).get(
            sweep.START, command
        )  # what any other first word means
        known = {"--help", *(option for each in command.params for option in each.opts)}
        given = words[: words.index("--")] if "--" in words else words
        options = {word.partition("=")[0] for word in given if word.startswith("-")}
        group = command is program or path == ("data",)  # which needs a command behind it
        if options - known or (group and not options):
            wrong.append(words)
    assert (missing, wrong) == (set(), [])
    assert all(each.help or each.callback.__doc__ for each in program.commands.values()), "each has one line"


def test_an_option_that_a_page_names_alone_is_one_of_trainlab_s() -> None:
    options = {
        option
        for command in every(typer.main.get_command(cli.app))
        for each in command.params
        for option in each.opts
    }
    alone = {each.split()[0] for each in snippets() if re.match(r"--\w[\w-]*(?!\S*=)", each)}
    assert alone <= options


def every(command: Any) -> list[Any]:
    return [command, *(each for below in getattr(command, "commands", {}).values() for each in every(below))]


def test_citation_and_changes_have_the_version_of_the_package() -> None:
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    cited = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (version, "MIT")
    assert re.findall(r"^## (.*)", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == version


def test_the_workflow_calls_ci_with_few_rights_and_a_limit() -> None:
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/test.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert workflow["permissions"] == {"contents": "read"}
    assert job["timeout-minutes"] == 90
    assert job["steps"][-1]["run"] == ".ci/run"


def test_the_hooks_of_git_are_the_linters_of_develop_lint() -> None:
    (repository,) = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {re.search(r"\.venv/bin/(\w+)", each["entry"])[1] for each in repository["hooks"]}
    linters = set(re.findall(r"check (\w+)", (CHECKOUT / "develop/lint").read_text()))
    assert repository["repo"] == "local"
    assert hooks == linters - {"COMMAND"}


def test_the_shell_completes_trainlab_once_that_is_installed(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"HOME": str(tmp_path), "PATH": path}
    script = (
        "trainlab --install-completion bash; COMP_WORDS='trainlab runs re' COMP_CWORD=2; source ~/.bashrc"
    )
    script += "; COMP_WORDS=(trainlab runs re); _trainlab_completion trainlab; echo ${COMPREPLY[*]}"
    environment |= {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "report restore"
