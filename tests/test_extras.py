"""What an optional part needs is said in one sentence, with the command that installs it."""

from __future__ import annotations

import sys

import pytest

import trainlab
from trainlab import cli, extras
from trainlab.errors import UserError


@pytest.fixture
def lacking(monkeypatch):
    """Make modules look as if they were not installed."""

    def lack(*modules):
        for name in [each for each in sys.modules if each.partition(".")[0] in modules]:
            monkeypatch.delitem(sys.modules, name)
        for name in [each for each in sys.modules if each.startswith("trainlab.training")]:
            monkeypatch.delitem(sys.modules, name)

        class Finder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name.partition(".")[0] in modules:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        known = extras.find_spec
        monkeypatch.setattr(extras, "find_spec", lambda name: None if name in modules else known(name))
        monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])

    return lack


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [
        ("lightning", "RunLogger", "lightning"),
        ("lightning", "Trainer", "lightning"),
        ("transformers", "RunCallback", "transformers"),
    ],
)
def test_a_name_of_the_package_says_what_it_needs(lacking, module, name, extra):
    lacking(module)
    with pytest.raises(
        UserError, match=rf'trainlab.{name} needs {module}.*: pip install "trainlab\[{extra}\]"'
    ):
        getattr(trainlab, name)


def test_a_command_ends_with_the_sentence_and_code_2(lacking, monkeypatch, capsys, tmp_path):
    (tmp_path / "mine.ipynb").write_text("{}")
    lacking("ipykernel")
    monkeypatch.setattr(sys, "argv", ["trainlab", "run", str(tmp_path / "mine.ipynb")])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    told = capsys.readouterr().err
    assert told == (
        "error: The notebook mine.ipynb needs ipykernel, which is not installed: "
        'pip install "trainlab[notebook]"\n'
    )


def test_what_no_extra_brings_is_an_error_as_ever():
    error = ModuleNotFoundError("No module named 'mine'", name="mine")
    assert extras.explained(error, "x") is error
