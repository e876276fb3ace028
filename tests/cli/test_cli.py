"""The command `trainlab` itself: quick to start, and kind about mistakes."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

import trainlab
from trainlab import cli
from trainlab.errors import UserError

COSTLY = ["torch", "pandas", "lightning", "transformers", "matplotlib", "IPython", "nbformat", "sklearn"]


def test_help_needs_no_costly_package():
    code = (
        "import sys\nfrom trainlab.cli import main\nsys.argv = ['trainlab', '--help']\n"
        f"try: main()\nexcept SystemExit: pass\nprint([name for name in {COSTLY} if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "doctor" in told
    assert told.splitlines()[-1] == "[]"


def test_help_comes_in_half_a_second_of_computing():
    code = (
        "import sys, time\nfrom trainlab.cli import main\nsys.argv = ['trainlab', '--help']\n"
        "try: main()\nexcept SystemExit: print(time.process_time())"
    )
    shown = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(3)]
    assert min(float(text.splitlines()[-1]) for text in shown) < 0.5


def test_the_version_is_the_package_s(monkeypatch, capsys):
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"trainlab {trainlab.__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "no-such-notebook"],
        ["runs", "show", "no-such-run"],
        ["data", "fetch", "no-such-data"],
        ["data", "verify", "no-such-data"],
    ],
)
def test_a_mistake_is_one_sentence_on_stderr_and_exit_code_2(monkeypatch, capsys, tmp_path, words):
    monkeypatch.setenv("TRAINLAB_LOGS", str(tmp_path))
    assert call(monkeypatch, *words) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert words[-1] in told.err
    assert "Traceback" not in told.err


def test_an_unknown_option_is_exit_code_2(monkeypatch, capsys):
    assert call(monkeypatch, "run", "news", "--sed", "1") == 2
    assert "--sed" in capsys.readouterr().err


def test_recommendations_are_shown_title_by_title(monkeypatch, capsys):
    from experiments.news import recommend as news

    asked = []

    def recommend(run, titles, k):
        asked.append((run, titles, k))
        row = {
            "query": "a [bold] title",
            "rank": 1,
            "title": "near [1]",
            "category": "sports",
            "distance": 0.5,
        }
        return pd.DataFrame([row, row | {"query": "second"}])

    monkeypatch.setattr(news, "recommend", recommend, raising=False)
    assert call(monkeypatch, "recommend", "last", "a [bold] title", "second", "-k", "3") == 0
    told = capsys.readouterr().out
    assert asked == [("last", ["a [bold] title", "second"], 3)]
    assert "a [bold] title" in told
    assert "near [1]" in told
    assert "0.500" in told


def test_an_error_that_is_not_the_user_s_keeps_its_traceback(monkeypatch):
    from trainlab import datasets

    def fail(name):
        raise ZeroDivisionError

    monkeypatch.setattr(datasets, "lookup", fail)
    with pytest.raises(ZeroDivisionError):
        call(monkeypatch, "data", "verify", "sample")


def test_user_errors_carry_the_exit_code():
    assert UserError.exit_code == 2


def call(monkeypatch, *words: str) -> int:
    """Call the command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["trainlab", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)
