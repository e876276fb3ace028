"""The form from which a notebook or script is started: checked as the command line checks, nothing lost."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("fastapi")

from acting import SCRIPT, Browser, marked
from runs_folder import make

PARAMETERS = (
    "margin = 3\ntitle = 'a = b'\nsize = (3, 4)\nquick = False\nany = None\napi_key = 'hunter2hunter2'"
)


@pytest.fixture
def browser(here):
    (here.root / "notebooks" / "tiny.py").write_text(SCRIPT)
    here.notebook("plain", "print(margin)", parameters=PARAMETERS)
    return Browser(here.root / "logs")


def values(page):
    """Return what stands in the fields of a form that have a text."""
    return dict(re.findall(r'<input id="set\.(\w+)"[^>]* value="([^"]*)"', page))


def test_a_form_has_each_setting_with_its_kind_its_default_and_what_its_class_says(browser):
    page = browser.get("/start?notebook=tiny.py")
    assert values(page) == {"slope": "3.0", "steps": "2"}
    assert "number above 0. A line: slope is how steep it is." in page
    assert "whole number from 1 up to 9." in page
    assert '<option value="line" selected>line</option><option value="curve">' in page
    assert '<label for="set.hold">' in page


def test_a_notebook_without_a_class_shows_its_tagged_cell_and_no_secret(browser):
    page = browser.get("/start?notebook=plain")
    shown = {"margin": "3", "title": "a = b", "size": "(3, 4)", "any": "", "api_key": "***"}
    assert values(page) == shown
    assert "hunter2" not in page


def test_every_mistake_stands_beside_its_field_and_nothing_that_was_typed_is_lost(here, browser):
    answer = browser.send(
        "start",
        program="tiny.py",
        of_slope="-1",
        of_steps="99",
        of_shape="box",
        others="--x\nno=no",
        name="mine",
    )
    assert answer.status_code == 422
    assert marked(answer.text) == {
        "slope": "slope=-1: should be greater than 0.",
        "steps": "steps=99: should be less than or equal to 9.",
        "shape": "shape=box: should be 'line' or 'curve'.",
    }
    assert values(answer.text) == {"slope": "-1", "steps": "99"}
    assert "<option selected>box</option>" in answer.text
    assert "--x\nno=no</textarea>" in answer.text
    assert 'value="mine"' in answer.text
    assert not here.folders()
    (line,) = (here.root / "logs" / ".board" / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["outcome"].startswith("refused: slope=-1")


def test_mistakes_in_a_tagged_cell_s_values_are_all_told_and_nothing_is_started(here, browser):
    answer = browser.send(
        "start", program="plain", **{"set.margin": "x", "set.size": "3", "set.__class__": "int"}
    )
    assert answer.status_code == 422
    assert marked(answer.text)["margin"].startswith("margin=x: should be a valid integer")
    assert marked(answer.text)["size"].startswith("size=3: expected tuple like its default (3, 4)")
    assert "__class__: no such parameter." in answer.text
    assert not here.folders()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"set.api_key": "hunter2hunter2", "program": "tiny.py"}, "api_key: a secret is no parameter"),
        ({"others": "no-sense", "program": "tiny.py"}, "&#39;no-sense&#39; is not a parameter."),
        ({"others": "resume=../../etc", "program": "tiny.py"}, "resume: no such parameter."),
        ({"set.--resume": "last", "program": "plain"}, "--resume: no such parameter."),
        ({"set.": "1", "program": "plain"}, "&#39;=1&#39; is not a parameter."),
    ],
)
def test_what_is_no_setting_is_refused_before_anything_is_made(here, browser, fields, said):
    answer = browser.send("start", **fields)
    assert answer.status_code == 422
    assert said in answer.text
    assert not here.folders()


@pytest.mark.parametrize(
    "name",
    [
        "../elsewhere.py",
        "{}/elsewhere.py",
        "a/../../elsewhere.py",
        "link.py",
        ".hidden.py",
        "plain.txt",
        "a\nb.py",
    ],
)
def test_only_programs_that_lie_in_notebooks_are_looked_at_or_started(here, browser, name):
    notebooks = here.root / "notebooks"
    for path in (here.root / "elsewhere.py", notebooks / ".hidden.py", notebooks / "plain.txt"):
        path.write_text("open('executed', 'w')")
    (notebooks / "link.py").symlink_to(here.root / "elsewhere.py")
    name = name.format(here.root)
    said = browser.refused("start", program=name)
    assert said.startswith("There is no notebook or script ")
    for page in ("start", "sweeps/new"):
        answer = browser.client.get(f"/{page}", params={"notebook": name})
        assert "There is no notebook or script" in answer.text
    assert not list(here.root.rglob("executed"))
    assert not here.folders()


def test_the_list_has_the_notebooks_and_scripts_of_folders_too_and_no_copies_of_jupyter_s(here, browser):
    for folder in ("deep/er", ".ipynb_checkpoints", "__pycache__"):
        (here.root / "notebooks" / folder).mkdir(parents=True)
        (here.root / "notebooks" / folder / "x y.py").touch()
    page = browser.get("/start")
    assert re.findall(r"start\?notebook=([^\"]+)", page) == ["plain.ipynb", "tiny.py", "deep/er/x%20y.py"]


def test_a_clone_is_filled_in_with_what_the_run_had_and_without_its_secrets(here, browser):
    config = {
        "margin": 7,
        "title": "t",
        "size": [3, 4],
        "quick": True,
        "any": None,
        "api_key": "***",
        "gone": 1,
    }
    make(here.root / "logs", "plain/a", notebook=str(here.root / "notebooks" / "plain.ipynb"), config=config)
    answer = browser.send("clone", run="plain/a")
    page = browser.get(answer.headers["location"])
    found = values(page)
    assert found == {"margin": "7", "title": "t", "size": "(3, 4)", "any": "", "api_key": "***"}
    assert '<option value="True" selected>' in page
    assert "Default: 3." in page


def test_a_clone_of_a_script_s_run_has_its_other_arguments(here, browser):
    script = str(here.root / "notebooks" / "own.py")
    (here.root / "notebooks" / "own.py").write_text("import sys\nprint(sys.argv)")
    fields = {"config": {"x": 1}, "arguments": ["--x=1", "--flag", "file"]}
    make(here.root / "logs", "own/a", script=script, **fields)
    assert "x=1\n--flag\nfile</textarea>" in browser.get("/start?run=own/a")


def test_a_form_out_of_all_bounds_is_refused(browser):
    many = {f"set.{number}": "1" for number in range(1001)}
    assert browser.send("start", program="tiny.py", **many).status_code == 400
    assert browser.send("start", program="tiny.py", of_slope="1" * (1 << 20)).status_code == 400
    files = {"program": ("x", b"data")}
    answer = browser.client.post("/do/start", files=files, headers={"x-xsrftoken": browser.token})
    assert answer.status_code == 400
