"""The pages of sweeps: one is started from a form, seen, stopped, and goes on."""

from __future__ import annotations

import importlib.util

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("optuna")

from acting import HTMX, SCRIPT, Browser, marked
from swept import definition, trial
from trainlab import extras
from trainlab.run import lock
from trainlab.sweeps import listing
from trainlab.sweeps.definition import LEADER, create, load
from trainlab.sweeps.queue import Queue
from waiting import until


@pytest.fixture
def logs(here):
    (here.root / "notebooks" / "tiny.py").write_text(SCRIPT)
    return here.root / "logs"


@pytest.fixture
def browser(logs):
    return Browser(logs)


@pytest.fixture
def stopped(here, logs):
    """A sweep that nobody leads, with all its trials waiting."""
    known = definition(
        name="slopes", program=str(here.root / "notebooks" / "tiny.py"), space={"slope": [1.0, 2.0]}, trials=2
    )
    create(known, logs)
    Queue.create(known, logs=logs).close()
    return known


def test_a_sweep_is_started_from_a_form_and_its_page_shows_trials_and_the_best(here, logs, browser):
    page = browser.get("/sweeps/new?notebook=tiny.py")
    assert 'placeholder="3.0"' in page
    answer = browser.send(
        "sweep", HTMX, program="tiny.py", name="slopes", goal="val/loss", of_slope="1,2", of_steps="1"
    )
    assert answer.headers["HX-Redirect"] == "/sweep/slopes", answer.text
    known = load("slopes", logs)
    assert (known.method, known.trials, known.mode, known.fixed) == ("grid", 2, "min", {"steps": "1"})
    until(lambda: not lock.taken(logs / ".sweeps" / "slopes", LEADER), "its end")
    until(lambda: "2 of 2 done" in browser.get("/sweep/slopes"), "the page's next look")
    page = browser.get("/sweep/slopes")
    assert "Best so far: <strong>1</strong> in trial 0, slope 1." in page
    assert page.count('href="/run/tiny/') == 2
    assert 'href="/compare?run=tiny%2F' in page
    assert '<a href="/sweep/slopes">slopes</a>' in browser.get("/sweeps")
    part = browser.client.get("/sweep/slopes", headers=HTMX)
    assert "<nav" not in part.text
    assert (
        browser.client.get("/sweep/slopes", headers={**HTMX, "x-seen": part.headers["x-seen"]}).status_code
        == 204
    )
    assert "has all of its combinations" in browser.refused("sweep-resume", sweep="slopes", trials="3")


PLAIN = """
import argparse, trainlab
parser = argparse.ArgumentParser()
parser.add_argument("--slope", type=float)
settings = vars(parser.parse_args())
with trainlab.Run("plain", settings, monitor=False) as run:
    run.log({"val/loss": settings["slope"]}, 0)
"""


def test_of_a_script_without_a_class_of_settings_what_varies_is_written_in_lines(here, logs, browser):
    (here.root / "notebooks" / "plain.py").write_text(PLAIN)
    assert 'name="others"' in browser.get("/sweeps/new?notebook=plain.py")
    told = {"program": "plain.py", "name": "plain", "goal": "val/loss"}
    again = browser.send("sweep", **told, others="slope")
    assert again.status_code == 422
    assert ">\nslope</textarea>" in again.text, "what was typed is lost"
    browser.send("sweep", HTMX, **told, others="slope=1,2\r\n")
    assert load("plain", logs).trials == 2
    until(lambda: "2 of 2 done" in browser.get("/sweep/plain"), "its end")


def test_every_mistake_stands_beside_its_field_and_nothing_is_started(logs, browser):
    answer = browser.send(
        "sweep", program="tiny.py", goal="", trials="many", slots="-1", of_slope="1..", of_steps="1,,2"
    )
    assert answer.status_code == 422
    assert marked(answer.text).keys() == {"--trials", "slope", "steps"}
    assert 'value="1.."' in answer.text
    assert 'value="many"' in answer.text
    assert not (logs / ".sweeps").exists()


@pytest.mark.parametrize(
    ("fields", "place", "said"),
    [
        ({"of_slope": "1,-2"}, "slope", "slope=-2: should be greater than 0."),
        (
            {"of_slope": "1,2", "goal": "my/score"},
            "--mode",
            "nothing says whether less or more of it is better",
        ),
        ({"of_slope": "1,2", "slots": "x"}, "--slots", "expected a whole number."),
        ({"of_slope": "1,2", "slots": "0" * 40}, "--slots", "expected a whole number."),
        ({"of_slope": "1,2", "trials": "3"}, "--trials", "the grid has 2 combinations"),
        ({"of_slope": "1,2", "name": "../a"}, "--name", "can't name a sweep"),
        ({"of_slope": "1,2", "name": "a\nb"}, "--name", "can't name a sweep"),
    ],
)
def test_the_whole_space_is_checked_as_the_command_line_checks_it(logs, browser, fields, place, said):
    answer = browser.send("sweep", program="tiny.py", **{"goal": "val/loss"} | fields)
    assert answer.status_code == 422
    assert said in marked(answer.text)[place]
    assert not (logs / ".sweeps").exists()


def test_settings_that_are_none_and_a_form_without_any_are_told_above_the_fields(logs, browser):
    for fields, said in (
        ({}, "Nothing varies."),
        ({"set.__class__": "1,2"}, "__class__: no such parameter."),
    ):
        answer = browser.send("sweep", program="tiny.py", goal="val/loss", **fields)
        assert answer.status_code == 422
        assert said in answer.text
    assert not (logs / ".sweeps").exists()


def test_a_sweep_that_is_stopped_saves_and_its_trials_wait(here, logs, browser):
    fields = {"of_slope": "1,2", "of_hold": "True", "goal": "val/loss", "name": "slopes"}
    assert browser.send("sweep", HTMX, program="tiny.py", **fields).status_code == 204
    until(lambda: list(logs.glob("tiny/*/checkpoints/*.ckpt")), "a checkpoint")
    until(lambda: 'action="/do/sweep-stop"' in browser.get("/sweep/slopes"), "the button on its page")
    assert "The sweep slopes has stopped; its trials wait" in browser.told("sweep-stop", sweep="slopes")
    assert not lock.taken(logs / ".sweeps" / "slopes", LEADER)
    until(lambda: "0 of 2 done; 2 waiting" in browser.get("/sweep/slopes"), "the page's next look")
    assert 'action="/do/sweep-stop"' not in browser.get("/sweep/slopes")


def test_a_sweep_that_nobody_leads_can_t_be_stopped_and_one_that_is_led_elsewhere_not_from_here(
    logs, browser, stopped
):
    assert "Nobody leads the sweep slopes." in browser.refused("sweep-stop", sweep="slopes")
    assert "No sweep 'slope'" in browser.refused("sweep-stop", sweep="slope")
    for name in ("../slopes", "/etc", "", "a\nb"):
        assert "can't name a sweep" in browser.refused("sweep-stop", sweep=name)
        assert "can't name a sweep" in browser.refused("sweep-resume", sweep=name)


def test_a_sweep_whose_program_has_changed_goes_on_once_somebody_says_that_it_may(
    here, logs, browser, stopped
):
    (here.root / "notebooks" / "tiny.py").write_text(SCRIPT + "# changed")
    said = browser.refused("sweep-resume", sweep="slopes", trials="1")
    assert "has changed since the sweep slopes was made" in said
    assert load("slopes", logs).trials == 2
    browser.send("sweep-resume", HTMX, sweep="slopes", trials="1", anyway="yes")
    assert load("slopes", logs).trials == 3
    until(lambda: "3 of 3 done" in browser.get("/sweep/slopes"), "its trials")


def test_a_sweep_that_goes_on_is_not_started_twice(logs, browser, stopped):
    held = lock.hold(logs / ".sweeps" / "slopes", LEADER)
    assert "The sweep slopes goes on already." in browser.refused("sweep-resume", sweep="slopes")
    held.release()


def test_a_sweep_that_can_t_be_read_hides_no_other_and_its_page_says_why(logs, browser, stopped):
    (logs / ".sweeps" / "broken").mkdir()
    (logs / ".sweeps" / "broken" / "sweep.json").write_text("{")
    page = browser.get("/sweeps")
    assert "not JSON" in page
    assert "0 of 2 done; 2 waiting" in page
    assert "not JSON" in browser.get("/sweep/broken", 400)
    assert "No sweep &#39;none&#39;" in browser.get("/sweep/none", 400)


def test_texts_of_trials_are_no_markup(logs, browser, stopped, monkeypatch):
    hostile = trial(0, "failed", reason="<script>alert(1)</script>", runs=("x/<b>",))
    listed = listing.Listed("slopes", stopped, [hostile])
    monkeypatch.setattr(listing, "found", lambda _: [listed])
    page = browser.get("/sweep/slopes")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "<b>" not in page


def test_without_the_extra_one_sentence_says_what_to_install(browser, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "optuna" else found(name))
    for page in ("/sweeps", "/sweeps/new?notebook=tiny.py", "/sweep/slopes"):
        assert "A sweep needs optuna, which is not installed: pip install" in browser.get(page, 400)
    assert "A sweep needs optuna" in browser.refused("sweep", program="tiny.py")
