"""An experiment is one folder: the tool finds its checks, data sets and commands there, and names none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from trainlab import experiments

SRC = Path(experiments.__file__).parent
FILES = {
    "config.py": "from trainlab.config import Config\n\nclass MineConfig(Config):\n    size: int = 3\n",
    "checks.py": "from tiny_classifier import subject as subject\n",
    "datasets.toml": "[my-data]\nwhat = 'made up'\nlicence = 'mine'\nshipped = {'one.txt' = '"
    + "0" * 64
    + "'}\n",
    "commands.py": "import typer\n\napp = typer.Typer()\n\n@app.command()\ndef greet(name: str) -> None:\n"
    '    """Say hello."""\n    print(f"hello {name}")\n',
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the experiment `mine`."""
    folder = tmp_path / "more" / "mine"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    for name, content in FILES.items():
        (folder / name).write_text(content)
    return folder.parent


def trainlab(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call the command where experiments lie in `place`, too."""
    code = (
        f"import {experiments.PACKAGE} as package; package.__path__.append({str(place)!r})\n"
        "from trainlab.cli import main; main()"
    )
    support = str(Path(__file__).parent / "support")
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={"PYTHONPATH": f"{SRC.parent}:{support}", "TRAINLAB_LOGS": str(place / "logs"), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_its_data_sets_are_listed(place: Path) -> None:
    done = trainlab(place, "data", "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert "my-data" in done.stdout
    assert "coco" in done.stdout


def test_its_command_is_the_tools_beside_those_of_the_others(place: Path) -> None:
    assert trainlab(place, "greet", "you").stdout == "hello you\n"
    told = trainlab(place, "--help").stdout
    assert all(command in told for command in ("greet", "recommend", "predict", "prepare-coco", "doctor"))


def test_it_is_checked_by_its_name(place: Path) -> None:
    done = trainlab(place, "check", "mine", "--only", "9")
    assert done.returncode == 0, done.stderr
    assert "8 of 8 texts" in done.stdout
    other = trainlab(place, "check", "min")
    assert other.returncode == 2
    assert "Did you mean 'mine'? Known: captions, mine, news, sentiment" in other.stderr


def test_commands_that_cannot_be_read_are_told_and_the_others_work(place: Path) -> None:
    (place / "mine" / "commands.py").write_text("import nothing_of_the_kind\n")
    done = trainlab(place, "data", "list")
    assert done.returncode == 0
    assert "warning: the commands of the experiment mine can't be read" in done.stderr


def test_the_tool_imports_no_experiment_by_name() -> None:
    names = experiments.with_file("config.py").keys() - {"training"}
    assert {"captions", "news", "sentiment"} <= names
    own = [path for path in SRC.rglob("*.py") if path.relative_to(SRC).parts[0] not in names]
    named = re.compile(rf"\b{experiments.PACKAGE}(\.| import )({'|'.join(names)})\b")
    found = [
        f"{path}: {line}" for path in own for line in path.read_text().splitlines() if named.search(line)
    ]
    assert not found


@pytest.mark.parametrize("name", ["news", "sentiment", "captions"])
def test_an_example_is_checked_before_its_run_without_loading_torch(name: str) -> None:
    code = (
        "import sys; from pathlib import Path; from trainlab.headless import notebook, parameters\n"
        f"path = Path({str(SRC.parents[1] / 'notebooks')!r}, {name + '.ipynb'!r})\n"
        "nb = notebook.read(path)\n"
        "settings = parameters.settings_class(nb, path.parent)\n"
        "values = {'accelerator': 'cpu', 'seed': '1'}\n"
        "known = parameters.resolve(settings, parameters.notebook_defaults(nb), values)\n"
        "notebook.filled(nb, known.injected)\n"
        "print(*{'torch', 'lightning', 'transformers', 'papermill'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not answer.stdout.strip(), "a headless run would wait for that before it starts"
