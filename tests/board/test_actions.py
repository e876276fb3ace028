"""What is done to runs from the pages: refused as the command line refuses, done once, and nothing lost."""

from __future__ import annotations

import io
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("fastapi")

from acting import HTMX, SCRIPT, Browser
from runs_folder import content, make, points
from trainlab import ending
from trainlab.board import actions, audit, server
from trainlab.board.pages import XSRF
from trainlab.errors import UserError
from trainlab.headless import jobs
from trainlab.run import lock, record
from trainlab.web.limits import Limits
from waiting import until


@pytest.fixture
def logs(here):
    return here.root / "logs"


@pytest.fixture
def browser(logs):
    return Browser(logs)


def test_a_run_is_started_stopped_with_a_checkpoint_and_goes_on(here, logs, browser):
    (here.root / "notebooks" / "tiny.py").write_text(SCRIPT)
    answer = browser.send("start", HTMX, program="tiny.py", of_slope="5", of_steps="3", of_hold="True")
    label = answer.headers["HX-Redirect"].removeprefix("/run/")
    folder = logs / label
    assert folder.name.endswith("-slope5-steps3-holdTrue"), "what is as usual is not in its name"
    until(lambda: list((folder / "checkpoints").glob("*.ckpt")), "a checkpoint")
    assert "is still running" in browser.refused("delete", run=label, sure="yes")
    assert "is still running" in browser.refused("resume", run=label)
    assert f"{folder.name}: interrupted, saved at step" in browser.told("stop", run=label)
    assert record.read(folder).status == "interrupted"
    assert f"The run {folder.name} is not running." in browser.refused("stop", run=label)
    (here.root / "notebooks" / "go").touch()
    assert browser.send("resume", HTMX, run=label).headers["HX-Redirect"] == f"/run/{label}"
    until(lambda: record.read(folder).status == "finished", "its end")
    assert record.read(folder).last["val/loss"].step == 2
    assert len(here.folders()) == 1


def test_two_who_press_stop_at_once_end_the_run_by_one_signal(logs, browser, monkeypatch):
    make(logs, "news/a", status="running")
    called, go = [], threading.Event()

    def stop(folder):
        called.append(folder)
        go.wait(10)
        return f"{folder.name}: interrupted"

    monkeypatch.setattr(actions.stopping, "stop", stop)
    with ThreadPoolExecutor() as pool:
        pressed = [pool.submit(browser.send, "stop", HTMX, run="news/a") for _ in range(2)]
        until(lambda: called, "the first call")
        go.set()
        said = {each.result().headers["HX-Trigger"] for each in pressed}
    assert said == {'{"told": "a: interrupted"}'}
    assert len(called) == 1


def test_a_run_that_takes_long_to_end_is_told_of_meanwhile(logs, browser, monkeypatch):
    make(logs, "news/a", status="running")
    go = threading.Event()
    monkeypatch.setattr(ending, "PATIENCE", 0.05)
    monkeypatch.setattr(actions.stopping, "stop", lambda _: str(go.wait(10)))
    said = browser.send("stop", HTMX, run="news/a").headers["HX-Trigger"]
    go.set()
    assert "a is asked to end: it finishes its step and saves a checkpoint first." in said


def test_of_several_runs_those_that_refuse_are_told_beside_those_that_ended(logs, browser, monkeypatch):
    for name in "ab":
        make(logs, f"news/{name}")

    def stop(folder):
        if folder.name == "b":
            raise UserError("b refuses.")
        return "a ended."

    monkeypatch.setattr(actions.stopping, "stop", stop)
    assert "a ended. b refuses." in browser.told("stop", run=["news/a", "news/b"])
    assert browser.refused("stop", run="news/b") == "b refuses."


def test_a_deletion_asks_first_and_what_is_deleted_comes_back_as_it_was(logs, browser):
    kept = content(make(logs, "news/a", last=points(val_loss=1.0)))
    make(logs, "news/a/inner")
    asked = browser.send("delete", run="news/a")
    assert asked.status_code == 200
    assert "Move 1 run to the trash?" in asked.text
    assert "news/a, and 1 inside it" in asked.text
    assert (logs / "news" / "a").is_dir()
    assert browser.send("delete", HTMX, run="news/a").headers["HX-Retarget"] == "body"
    assert "news/a" in browser.told("delete", run=["news/a", "news/a"], sure="yes")
    assert not (logs / "news" / "a").exists()
    assert browser.send("restore", run="news/a").headers["location"] == "/"
    assert content(logs / "news" / "a").items() >= kept.items()
    assert "not in the trash any more" in browser.refused("restore", run="news/a")


def test_nothing_is_deleted_where_one_of_the_runs_can_t_be(logs, browser):
    make(logs, "news/a")
    running = make(logs, "news/b", status="running")
    held = lock.hold(running)
    assert "is still running" in browser.refused("delete", run=["news/a", "news/b"], sure="yes")
    held.release()
    assert (logs / "news" / "a").is_dir()
    assert not (logs / ".trash").exists()


@pytest.mark.parametrize(
    "label",
    ["../logs/news/a", "news/../news/a", "/news/a", "{}/news/a", "a", "last", "", "x" * 60_000, "a\nb"],
)
@pytest.mark.parametrize("action", ["stop", "resume", "clone", "delete", "archive", "export", "serve"])
def test_a_label_that_is_not_in_the_table_means_no_run(logs, browser, action, label):
    make(logs, "news/a")
    before = content(logs / "news")
    said = browser.refused(action, run=label.format(logs), sure="yes")
    assert said.startswith("There is no run ")
    assert len(said) < 400
    assert content(logs / "news") == before


def test_what_is_done_with_one_run_is_refused_for_two_and_for_none(logs, browser):
    for name in "ab":
        make(logs, f"news/{name}")
    for action in ("resume", "clone", "export"):
        assert browser.refused(action, run=["news/a", "news/b"]).startswith("2 runs are chosen.")
        assert browser.refused(action).startswith("Which runs?")
    assert browser.refused("format-the-disk") == "There is no action 'format-the-disk'."


@pytest.mark.parametrize("action", actions.ACTIONS)
def test_no_action_is_done_without_the_token_of_a_page(logs, browser, action):
    folder = make(logs, "news/a")
    for data in ({}, {XSRF: "guessed"}, {XSRF: ""}):
        answer = browser.client.post(f"/do/{action}", data={"run": "news/a", "sure": "yes", **data})
        assert answer.status_code == 400
        assert "This form is not from a page of this board" in answer.text
    assert folder.is_dir()
    assert not (logs / audit.FOLDER).exists(), "a stranger fills no file"


def test_a_page_of_another_site_can_do_nothing_even_with_the_token(logs):
    folder = make(logs, "news/a")
    browser = Browser(logs, lambda app: Limits(app, server.Uncounted(), lambda _, said: said, hosts=[]))
    for name, value in (
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("origin", "null"),
    ):
        assert browser.send("delete", {name: value}, run="news/a", sure="yes").status_code == 403
    assert folder.is_dir()


def test_a_run_of_no_notebook_here_is_neither_resumed_nor_cloned(here, logs, browser):
    elsewhere = here.root / "elsewhere.py"
    elsewhere.write_text("raise SystemExit('executed')")
    make(logs, "news/a", script=str(elsewhere))
    make(logs, "news/b", script="../../../etc/passwd")
    make(logs, "news/c", module="os:system", script=str(elsewhere))
    for label in ("news/a", "news/b", "news/c"):
        said = browser.refused("resume", run=label)
        assert f"is of no notebook or script in {here.root / 'notebooks'}" in said
        assert "the command line does." in said
        assert "is of no notebook" in browser.get(f"/start?run={label}", 400)


def test_a_sentence_is_told_on_its_own_page_and_not_by_an_address_that_somebody_made(logs, browser):
    assert "This was told before." in browser.get("/told/%3Cscript%3E")


def job_of(logs, answer):
    name = answer.headers["HX-Redirect"].removeprefix("/job/")
    until(lambda: jobs.read(logs / ".board" / "jobs", name).state != "running", "its end")
    return name


def test_an_archive_is_packed_in_the_background_and_downloaded(logs, browser):
    make(logs, "news/a")
    name = job_of(logs, browser.send("archive", HTMX, run="news/a"))
    page = browser.get(f"/job/{name}")
    assert "Done." in page
    assert "1 run(s)" in page
    assert name in browser.get("/jobs")
    packed = browser.client.get(f"/archive/{name}.zip")
    assert "runs/news/a/run.json" in zipfile.ZipFile(io.BytesIO(packed.content)).namelist()
    assert browser.client.get(f"/job/{name}", headers=HTMX).headers["x-seen"]


def test_an_export_that_can_t_be_says_why_in_its_last_lines(logs, browser):
    make(logs, "mine/a")
    name = job_of(logs, browser.send("export", HTMX, run="mine/a"))
    page = browser.get(f"/job/{name}")
    assert "Not done: the last lines say why." in page
    assert "error: a is a run of mine, which says nothing of how it is exported." in page


def test_what_is_to_be_served_is_exported_first_and_the_page_says_what_starts_the_service(logs, browser):
    make(logs, "mine/a")
    name = job_of(logs, browser.send("serve", HTMX, run="mine/a"))
    assert "a has no bundle in" in browser.get(f"/job/{name}")


@pytest.mark.parametrize(
    "path", ["/job/..%2Faudit", "/job/audit", "/archive/..%2Faudit.jsonl", "/archive/x.zip"]
)
def test_no_other_file_is_shown_as_a_job_or_an_archive(logs, browser, path):
    browser.refused("stop", run="none")
    assert (logs / ".board" / "audit.jsonl").is_file()
    assert "audit" not in browser.get(path, 404 if "%2F" in path else 400).replace("GET /", "")
