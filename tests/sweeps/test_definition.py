"""A sweep's folder: whole or not there, read with suspicion."""

from __future__ import annotations

import errno
import json
import multiprocessing

import pytest

from trainlab.errors import UserError
from trainlab.run import lock
from trainlab.sweeps.definition import FILE, Definition, create, digest, extend, folder, led, load

KNOWN = {
    "name": "margins",
    "goal": "val/score",
    "mode": "max",
    "method": "grid",
    "trials": 3,
    "space": {"margin": [1, 3, 5]},
}


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("print(1)\n")
    return path


@pytest.fixture
def ordered(program):
    return Definition(program=str(program), **KNOWN)


def cells(*sources, output="1"):
    code = [{"cell_type": "code", "source": [each], "outputs": [output]} for each in sources]
    return json.dumps({"cells": code, "nbformat": 4})


def test_the_folder_holds_the_order_and_a_copy_of_the_program(ordered, program, tmp_path):
    place = create(ordered, tmp_path / "logs")
    assert place == tmp_path / "logs/.sweeps/margins" == folder("margins", tmp_path / "logs")
    assert (place / program.name).read_text() == program.read_text()
    assert load("margins", tmp_path / "logs") == ordered.model_copy(update={"code": digest(program)})


def test_a_second_sweep_of_one_name_is_refused_and_changes_nothing(ordered, program, tmp_path):
    place = create(ordered, tmp_path / "logs")
    before = (place / FILE).read_bytes()
    with pytest.raises(UserError, match="already: trainlab sweep --resume margins"):
        create(ordered.model_copy(update={"goal": "val/other"}), tmp_path / "logs")
    assert (place / FILE).read_bytes() == before
    assert [each.name for each in place.parent.iterdir()] == ["margins"]


def _create(ordered, logs, results):
    try:
        create(ordered, logs)
        results.put("made")
    except UserError:
        results.put("refused")


def test_of_four_that_make_one_sweep_at_once_one_does(ordered, tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=_create, args=(ordered, tmp_path / "logs", results)) for _ in range(4)
    ]
    for each in processes:
        each.start()
    assert sorted(results.get(timeout=60) for _ in processes) == ["made", *3 * ["refused"]]
    for each in processes:
        each.join()


def test_more_trials_can_be_ordered_and_the_rest_stays(ordered, tmp_path):
    create(ordered, tmp_path / "logs")
    extended = extend("margins", 20, tmp_path / "logs")
    assert extended.trials == 23
    assert load("margins", tmp_path / "logs") == extended
    with pytest.raises(UserError, match="Expected a number above 0"):
        extend("margins", 0, tmp_path / "logs")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "two words", "n" * 41, "new\nline"])
def test_a_name_that_can_be_no_folder_s_is_refused(name):
    with pytest.raises(UserError, match="can't name a sweep"):
        folder(name)


def test_an_unknown_sweep_names_the_nearest(ordered, tmp_path):
    create(ordered, tmp_path / "logs")
    with pytest.raises(UserError, match="Did you mean 'margins'"):
        load("margin", tmp_path / "logs")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        ("[" * 100, "not JSON"),
        ("{}", "name: Field required"),
        (json.dumps(KNOWN | {"program": "/p.py", "trials": 10**9}), "trials"),
        (json.dumps(KNOWN | {"program": "/p.py", "mode": "best"}), "mode"),
        (json.dumps(KNOWN | {"program": "/p.py", "command": "rm"}), "command"),
        (json.dumps(KNOWN | {"program": "/p.py", "name": "other"}), "that of the sweep 'other'"),
        (json.dumps(KNOWN | {"program": "/p.py", "at": "postgresql://u:secret@h/d"}), "holds a password"),
        (json.dumps(KNOWN | {"program": "x" * (1 << 20)}), "larger than"),
    ],
)
def test_a_damaged_or_hostile_file_is_refused_with_a_sentence(ordered, tmp_path, content, said):
    place = create(ordered, tmp_path / "logs")
    (place / FILE).write_text(content)
    with pytest.raises(UserError, match=said) as refused:
        load("margins", tmp_path / "logs")
    assert "secret" not in str(refused.value)


def test_a_link_in_the_file_s_place_is_not_followed(ordered, tmp_path):
    place = create(ordered, tmp_path / "logs")
    (place / FILE).rename(tmp_path / "elsewhere")
    (place / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="a link"):
        load("margins", tmp_path / "logs")


def test_a_notebook_s_outputs_do_not_change_it_and_its_code_does(tmp_path):
    path = tmp_path / "train.ipynb"
    path.write_text(cells("a = 1"))
    first = digest(path)
    path.write_text(cells("a = 1", output="2"))
    assert digest(path) == first
    path.write_text(cells("a = 2"))
    assert digest(path) != first


def test_a_program_that_is_not_there_makes_no_folder(ordered, program, tmp_path):
    program.unlink()
    with pytest.raises(UserError, match="is not there"):
        create(ordered, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_the_program_of_a_module_is_its_file(tmp_path, monkeypatch):
    (tmp_path / "training_of_mine.py").write_text("print(1)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    ordered = Definition(program="training_of_mine", module=True, **KNOWN)
    assert (create(ordered, tmp_path / "logs") / "training_of_mine.py").exists()


def test_a_name_whose_runs_are_there_without_its_folder_is_refused(ordered, tmp_path):
    logs = tmp_path / "logs"
    run = logs / "news" / "20260101-000000-margins-000"
    run.mkdir(parents=True)
    known = {"experiment": "news", "run": run.name, "started": "2026-01-01T00:00:00Z", "status": "finished"}
    mark = {"name": "margins", "trial": 0, "attempts": 1}
    (run / "run.json").write_text(json.dumps(known | {"sweep": mark}))
    with pytest.raises(UserError, match=r"whose own folder is gone.*another --name.*rebuild margins"):
        create(ordered, logs)
    assert not folder("margins", logs).exists()
    create(ordered.model_copy(update={"name": "others"}), logs)


def test_a_sweep_on_a_read_only_disk_is_led_by_nobody(ordered, tmp_path, monkeypatch):
    create(ordered, tmp_path / "logs")

    def refused(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(lock, "hold", refused)
    with pytest.raises(UserError, match="can't be written: Read-only file system"):
        led("margins", tmp_path / "logs")
