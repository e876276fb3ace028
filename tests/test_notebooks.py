"""Rules that every notebook keeps, and the news notebook executed whole."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from compared_runs import record, record_foreign
from project import CHECKOUT
from trainlab.headless.parameters import notebook_defaults, settings_class
from trainlab.run.record import read as record_of
from trainlab.runs.frames import scalars

ROOT = CHECKOUT
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TRAINLAB = [sys.executable, "-c", "from trainlab.cli import main; main()"]
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert "news" in {path.stem for path in NOTEBOOKS}


def test_the_first_one_leads_to_all_others_and_to_nothing_that_is_not_there() -> None:
    start = nbformat.read(ROOT / "notebooks" / "START.ipynb", as_version=4)
    linked = set(re.findall(r"\]\(([^)]+)\)", "".join(cell.source for cell in start.cells)))
    others = {path.name for path in NOTEBOOKS} - {"START.ipynb"}
    assert others <= linked
    assert all((ROOT / "notebooks" / link).is_file() for link in linked)


def test_a_notebook_is_valid_and_starts_with_words(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert notebook.metadata.kernelspec.name == "python3"


def test_a_notebook_has_no_outputs_in_git(notebook: nbformat.NotebookNode) -> None:
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))


def test_a_notebook_defines_nothing(notebook: nbformat.NotebookNode) -> None:
    nodes = [node for cell in code(notebook) for node in ast.walk(ast.parse(cell.source))]
    assert not [node for node in nodes if isinstance(node, DEFINITIONS)]


def test_the_parameters_are_the_settings_names_and_defaults(notebook: nbformat.NotebookNode) -> None:
    settings = settings_class(notebook, ROOT / "notebooks")
    if not code(notebook):  # words alone
        return
    assert settings is not None
    defaults = {name: field.default for name, field in settings.model_fields.items()}
    written = notebook_defaults(notebook)
    assert written == {name: value for name, value in defaults.items() if name in written}
    own = (set(settings.__annotations__) | {"resume"}) & set(defaults)
    assert set(written) >= own, "all that are the experiment's own"


def trainlab(logs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRAINLAB_LOGS": str(logs), "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [*TRAINLAB, *words], env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("margin=-1", ["margin=-1", "greater than 0"]),
        ("clas_size=3", ["clas_size", "'class_size'"]),
        ("data=nowhere.tsv", ["nowhere.tsv", "Expected"]),
        ("data={latin}", ["latin.tsv, row 1", "UTF-8"]),
    ],
)
def test_bad_input_exits_2_with_a_sentence_and_no_run(tmp_path: Path, words: str, said: list[str]) -> None:
    latin = tmp_path / "latin.tsv"
    latin.write_bytes(b"N1\ta\ta\tCaf\xe9\t\t\t[]\t[]\n")
    done = trainlab(
        tmp_path / "logs", "run", str(ROOT / "notebooks" / "news.ipynb"), words.format(latin=latin)
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for each in said:
        assert each in done.stderr
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_the_news_notebook_runs_whole_from_the_command_line(tmp_path: Path) -> None:
    words = ["class_size=4", "triplets_per_item=1", "epochs=1", "batch_size=16", "max_tokens=8"]
    done = trainlab(tmp_path, "run", str(ROOT / "notebooks" / "news.ipynb"), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    systems = ("untrained, Euclidean (mean)", "untrained, cosine (mean)", "TF-IDF", "trained")
    for shown in ("860 news in 17 categories", "epoch 1/1 100%", *systems, "nDCG@10", "distance"):
        assert shown in done.stdout + done.stderr, shown
    assert "Warning" not in done.stdout + done.stderr
    (folder,) = (tmp_path / "news").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["config"]["class_size"] == 4
    assert {"train/loss", "val/precision_at_10", "val_untrained_cosine/mrr"} <= set(scalars(folder)["tag"])
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    kinds = [kind for cell in code(executed) for output in cell.outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == 2
    asked = trainlab(tmp_path, "recommend", folder.name, "Storm warning for the coast", "-k", "3")
    assert asked.returncode == 0, asked.stderr
    assert "Storm warning for the coast" in asked.stdout


@pytest.mark.slow
def test_the_tour_of_training_runs_whole_and_its_resumed_curves_are_the_same(tmp_path: Path) -> None:
    words = ["class_size=6", "max_tokens=8", "epochs=1"]
    done = trainlab(tmp_path, "run", str(ROOT / "notebooks" / "training.ipynb"), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(True, True)" in done.stdout, "killed in the middle of an epoch, and resumed: the same two curves"
    assert "interrupted the process ended" in done.stdout
    assert "Warning" not in done.stdout + done.stderr
    (folder,) = (tmp_path / "training").iterdir()
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    kinds = [kind for cell in code(executed) for output in cell.outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == 3


@pytest.mark.slow
def test_the_articles_series_trains_each_setting_with_both_splits(tmp_path: Path) -> None:
    words = ["only=2", "epochs=1", "data=" + str(tmp_path / "news.tsv")]
    titles = [f"N{i}\tc{i % 3}\tc{i % 3}\ttitle {i} of {i % 3}\t\t\t[]\t[]\n" for i in range(24)]
    (tmp_path / "news.tsv").write_text("".join(titles))
    done = trainlab(tmp_path / "logs", "run", str(ROOT / "notebooks" / "article.ipynb"), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stdout + done.stderr
    for shown in (
        "M=3 untrained, Euclidean, split by triplet: loss",
        "M=3 CS=30 TI=10 title, split by item: loss",
    ):
        assert shown in done.stdout, shown
    (folder,) = (tmp_path / "logs" / "article").iterdir()
    record = json.loads((folder / "run.json").read_text())
    trained = {path.name for path in (tmp_path / "logs" / "news").iterdir()}
    assert (record["status"], set(record["runs"]), len(trained)) == ("finished", trained, 4)
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    shown = "".join(str(output) for cell in code(executed) for output in cell.outputs)
    assert (
        "loss, by triplet" in shown
        and "precision_at_10, by item" in shown
        and "validation loss 2.47" in shown
    )


def test_the_comparing_notebook_runs_whole_with_our_runs_and_foreign_ones(tmp_path: Path) -> None:
    for margin in (3.0, 5.0):
        record(tmp_path, f"margin{margin:g}", {"margin": margin, "batch_size": 8}, [margin, 1.0])
    record_foreign(tmp_path / "news" / "theirs", [1.0, 0.5])
    done = trainlab(tmp_path, "run", str(ROOT / "notebooks" / "compare.ipynb"), "best=1", "x=examples")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 runs, 3 with val/loss, lower is better." in done.stdout
    assert "Neither a batch size nor a tag such as train/examples is recorded: theirs" in done.stdout
    assert "Warning" not in done.stdout + done.stderr
    (folder,) = (tmp_path / "compare").iterdir()
    assert record_of(folder).looks
    listed = trainlab(tmp_path, "runs", "--format", "json").stdout
    assert {each["experiment"] for each in json.loads(listed)} == {"news"}
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    kinds = [kind for cell in code(executed) for output in cell.outputs for kind in output.get("data", {})]
    assert kinds.count("application/vnd.vegalite.v5+json") == 3
    assert kinds.count("image/png") == 3


def test_the_comparing_notebook_says_so_where_there_is_no_run(tmp_path: Path) -> None:
    done = trainlab(tmp_path, "run", str(ROOT / "notebooks" / "compare.ipynb"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No run with metrics is chosen" in done.stdout
