"""A mistake in what `trainlab run` is given is one sentence, and nothing is made."""

from __future__ import annotations

import subprocess
import sys

import nbformat
import pytest

from lab import KINDS, PARAMETERS
from trainlab import paths
from trainlab.errors import UserError
from trainlab.headless import launcher


@pytest.fixture
def here(here):
    """The project of this process, with notebooks."""
    here.notebook("foreign", "1", parameters=PARAMETERS)
    here.notebook("kinds", "1", parameters=KINDS)
    here.notebook("plain", "1")
    return here


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["foreing"], "Did you mean 'foreign'?"),
        (["foreign", "epoch=3"], "Did you mean 'epochs'?"),
        (["foreign", "epochs=many"], "epochs=many: should be a valid integer"),
        (["foreign", "epochs=1.5"], "epochs=1.5"),
        (["foreign", "quick=perhaps"], "quick=perhaps"),
        (["foreign", "layers=3"], "expected list"),
        (["foreign", "layers={[]}"], "expected list"),
        (["kinds", "size=[1, 2]"], "expected tuple"),
        (["kinds", "kinds={}"], "expected set"),
        (["kinds", "raw=x"], "expected bytes"),
        (["kinds", "wave=x"], "expected complex"),
        (["kinds", f"any=0x{'f' * 5000}"], "limit (4300 digits)"),
        (["foreign", "epochs"], "Expected key=value"),
        (["foreign", "seed=1", "--seed=2"], "given twice"),
        (["foreign", "api_key=sk-1234"], "a secret is no parameter"),
        (["plain", "epochs=3"], "tag that cell 'parameters'"),
        (["plain", "--seed=3"], "seed cannot be set"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_and_makes_nothing(here, words, told):
    seed = next((int(word.partition("=")[2]) for word in words if word.startswith("--seed")), None)
    with pytest.raises(UserError) as error:
        launcher.run(words[0], [word for word in words[1:] if not word.startswith("--")], seed=seed)
    assert told in str(error.value)
    assert list((here.root / "logs").iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "{}", '{"nbformat": 4}', "[1]"])
def test_a_file_that_is_no_notebook_is_told(here, content):
    (here.root / "broken.ipynb").write_text(content)
    with pytest.raises(UserError, match="is not a notebook"):
        launcher.run(str(here.root / "broken.ipynb"))


SAVE_AND_DIE = """
import os, signal, sys
from jupyter_server.services.contents.fileio import atomic_writing
with atomic_writing(sys.argv[1]) as file:
    file.write('{"cells": [')
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_notebook_killed_while_jupyter_saved_it_is_told_with_the_command_that_brings_it_back(here):
    path = here.root / "notebooks" / "plain.ipynb"
    whole = path.read_text()
    assert subprocess.run([sys.executable, "-c", SAVE_AND_DIE, path], check=False).returncode == -9
    assert path.read_text() != whole
    with pytest.raises(UserError) as error:
        launcher.run("plain")
    command = str(error.value).partition("Take that back: ")[2]
    subprocess.run(command, shell=True, check=True)
    assert path.read_text() == whole


@pytest.mark.parametrize("cell", ["epochs = ", f"epochs = {'-' * 50_000}1", "epochs = 1\0", "for"])
def test_a_cell_of_parameters_that_is_not_python_is_told(here, cell):
    here.notebook("odd", "1", parameters=cell)
    with pytest.raises(UserError, match="cell tagged 'parameters' is not Python: "):
        launcher.run("odd", ["epochs=3"])


def test_a_secret_among_a_notebook_s_defaults_is_not_recorded(here, monkeypatch):
    monkeypatch.setattr(launcher, "start", lambda *_: subprocess.Popen(["true"]))
    here.notebook("secret", "1", parameters="epochs = 2\nhf_token = 'hf-12345678'\npad_token = '<pad>'")
    assert launcher.run("secret", ["epochs=3"], detach=True) == 0
    assert here.record()["config"] == {"epochs": 3, "hf_token": "***", "pad_token": "<pad>"}


@pytest.mark.parametrize("reference", ["/home/me/mine.ipynb", "~/mine.ipynb", "../mine.ipynb"])
def test_a_notebook_of_the_host_s_is_told_where_the_container_can_see_it(here, monkeypatch, reference):
    monkeypatch.setattr(paths, "in_stack_container", lambda: True)
    with pytest.raises(UserError) as error:
        launcher.run(reference)
    assert "The container sees the project's folder alone" in str(error.value)
    assert f"name it {here.root / 'notebooks' / 'mine.ipynb'}" in str(error.value)
    monkeypatch.setattr(paths, "in_stack_container", lambda: False)
    with pytest.raises(UserError, match="neither here nor in"):
        launcher.run(reference)


def test_a_notebook_in_another_language_is_told(here):
    path = here.notebook("r", "1")
    made = nbformat.read(path, as_version=4)
    made.metadata.kernelspec = {"name": "ir", "display_name": "R", "language": "R"}
    nbformat.write(made, path)
    with pytest.raises(UserError, match="notebook in R"):
        launcher.run("r")
