from __future__ import annotations

import json
import re
from html import unescape
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from runs_folder import make, points
from trainlab.board import audit, live, table
from trainlab.board.app import application
from trainlab.run import record, remarks

GIT = {"commit": "c" * 40, "dirty": False}


@pytest.fixture
def logs(tmp_path):
    """Three seeds of a setting; a run that failed, one on other data, one of a sweep, one that looked."""
    for number, loss in enumerate((0.3, 0.1, 0.2)):
        add(
            tmp_path,
            f"news/s{number}",
            number,
            loss,
            margin=3.0,
            seed=number,
            note="the first" * (number == 0),
        )
    add(tmp_path, "news/bad", 5, 0.9, margin=5.0, seed=1, status="failed", reason="ValueError: loss is nan")
    add(tmp_path, "news/other", 6, 0.01, margin=3.0, seed=1, data={"sha256": "b" * 64})
    add(tmp_path, "words/t", 7, 0.4, margin=4.0, seed=1, sweep={"name": "first", "trial": 0}, tags=["good"])
    make(tmp_path, "compare/look", minutes_ago=8, looks=True)
    return tmp_path


@pytest.fixture
def board(logs, monkeypatch):
    """Return a client of the board, which looks at the disk each time it is asked."""
    monkeypatch.setattr(live, "PAUSE", -1.0)
    return TestClient(application(logs), base_url="http://localhost")


def add(logs, label, minutes_ago, loss, *, margin, seed, **fields):
    figures = {"best": points(val_loss=loss), "last": points(val_loss=loss + 1)}
    known = {"data": {"sha256": "a" * 64}, "git": GIT, "metrics": ["val/loss"]} | figures | fields
    return make(logs, label, minutes_ago=minutes_ago, config={"margin": margin, "seed": seed}, **known)


def text(board, address="/", status=200):
    answer = board.get(address)
    assert answer.status_code == status
    return answer.text


def runs(page):
    """Return the runs of a page in their order."""
    return re.findall(r'name="run" value="([^"]+)"', page)


def heads(page):
    """Return the titles of groups."""
    return [unescape(each) for each in re.findall(r'scope="rowgroup"><span>([^<]+)<', page)]


def titles(page):
    return [unescape(each) for each in re.findall(r'<th scope="col"[^>]*><a [^>]*>([^<]+)</a>', page)]


def post(board, path, **fields):
    board.get("/")
    return board.post(path, data={**fields, "_xsrf": board.cookies["_xsrf"]}, follow_redirects=False)


def say(board, page, **fields):
    """Send the form for tags and note that a page has."""
    form = re.search(r'<form class="remarks".*?</form>', page, re.DOTALL)[0]
    hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form)
    return post(board, "/do/note", **{name: unescape(value) for name, value in hidden}, **fields)


def test_all_runs_stand_there_the_newest_first_without_those_that_only_looked(board):
    page = text(board)
    assert runs(page) == ["news/s0", "news/s1", "news/s2", "news/bad", "news/other", "words/t"]
    assert "6 runs, the newest first" in page
    assert "Left out: 1 that only looked" in page
    assert "compare/look" in runs(text(board, "/?all=on"))


def test_the_columns_are_those_that_differ_as_on_the_command_line(board):
    assert titles(text(board)) == [
        *("run", "status", "experiment", "sweep", "trial", "margin", "seed", "val/loss", "age", "duration"),
    ]


def test_a_run_says_why_it_died_what_it_is_for_and_where_its_page_is(board):
    page = text(board)
    assert 'class="failed">failed</span><span class="why faint" title="ValueError: loss is nan">' in page
    assert 'href="/run/news/bad"' in page
    assert "0.3 (1.3)" in page
    assert '<span class="tag">good</span>' in page


def test_a_running_run_says_how_far_it_is(board, logs):
    from datetime import UTC, datetime

    from trainlab.run import lock

    planned = {"steps": 10, "epochs": None, "step": 0, "at": datetime.now(UTC).isoformat()}
    folder = add(logs, "news/new", -1, 0.5, margin=3.0, seed=9, status="running", planned=planned)
    held = lock.hold(folder)
    assert "step 1 of 10" in text(board)
    held.release()


def test_a_filter_is_that_of_the_command_line(board):
    assert runs(text(board, "/?where=margin>=4 and val/loss<0.5")) == ["words/t"]
    assert "None fulfils the filter" in text(board, "/?where=margin>100")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("margin>>5", "margin>>5\n         ^"),
        ("margn=3", "Did you mean 'margin'?"),
        ("status=finishd", "no such status"),
        ('margin>"', "quotes that close"),
    ],
)
def test_a_filter_that_cannot_be_read_is_explained_beside_it_and_kept(board, where, said):
    page = board.get("/", params={"where": where, "sort": "val/loss"})
    assert page.status_code == 400
    error = re.search(r'id="error" role="alert">([^<]+)</p>', page.text)
    assert said in unescape(error[1])
    field = re.search(r'name="where" value="([^"]*)"[^>]*aria-describedby="error"', page.text)
    assert unescape(field[1]) == where
    assert runs(page.text) == []
    assert "hx-get" not in page.text  # nothing is asked for again and again


def test_an_address_that_makes_no_sense_is_refused_in_a_sentence(board):
    assert "No column" in text(board, "/?sort=nothing", 400)
    assert "by: Input should be" in text(board, "/?by=colour", 422)
    assert "page: " in text(board, "/?page=0", 422)


def test_the_best_come_first_and_runs_on_other_data_stand_apart(board):
    page = text(board, "/?sort=val/loss")
    assert runs(page) == ["news/s1", "news/s2", "news/s0", "words/t", "news/bad", "news/other"]
    assert heads(page) == ["sha256 aaaaaaaa, 5", "sha256 bbbbbbbb, 1"]
    assert "ranked apart: 5 with sha256 aaaaaaaa; 1 with sha256 bbbbbbbb" in page
    assert re.search(r'aria-sort="ascending"><a id="by-best.val/loss" href="/\?"', page)
    assert 'aria-sort="descending"' in text(board, "/?sort=margin")
    assert runs(text(board, "/?sort=run"))[0] == "news/bad"


def test_runs_are_grouped_by_experiment_by_sweep_and_by_data(board):
    assert heads(text(board, "/?by=experiment")) == ["news, 5", "words, 1"]
    assert heads(text(board, "/?by=sweep")) == ["no sweep, 5", "first, 1"]
    assert heads(text(board, "/?by=data")) == ["sha256 aaaaaaaa, 5", "sha256 bbbbbbbb, 1"]
    assert heads(text(board, "/?by=experiment&sort=val/loss")) == [
        "news · sha256 aaaaaaaa, 4",
        "news · sha256 bbbbbbbb, 1",
        "words · sha256 aaaaaaaa, 1",
    ]


def test_seeds_are_folded_into_mean_spread_and_n(board):
    page = text(board, "/?by=settings&sort=val/loss")
    assert "0.2 ± 0.1" in page
    assert "s0 +2" in page
    assert runs(page)[:3] == ["news/s0", "news/s1", "news/s2"]  # each can be ticked
    assert titles(page)[:4] == ["run", "status", "experiment", "n"]
    assert "leaves out 1 runs" in text(board, "/?by=settings&where=val/loss<0.25")


def test_runs_without_the_metric_stand_behind_and_say_so(board, logs):
    make(logs, "news/empty", config={"margin": 3.0})
    assert heads(text(board, "/?sort=val/loss"))[-1] == "without val/loss, 1"


def test_chosen_columns_stand_in_the_address_and_are_kept_for_next_time(board):
    shown = board.get("/columns", params={"column": ["config.margin", "n/a"], "back": "sort=val/loss"})
    assert "No column 'n/a'" in unescape(shown.text)
    shown = board.get("/columns", params={"column": ["config.margin", "best.val/loss"], "back": "by=sweep"})
    assert dict(shown.url.params) == {"by": "sweep", "columns": "config.margin,best.val/loss"}
    assert titles(shown.text) == ["run", "status", "margin", "val/loss"]
    assert titles(text(board)) == ["run", "status", "margin", "val/loss"]
    assert titles(text(board, "/?columns=seed")) == ["run", "status", "seed"]
    board.get("/columns")
    assert "duration" in titles(text(board))


@pytest.mark.parametrize("address", ["/", "/?by=settings", "/?columns=val/loss,margin,started"])
def test_a_column_that_is_taken_out_moves_no_other(board, address):
    page = text(board, address)
    before = titles(page)
    shown = re.findall(r'name="column" value="([^"]+)" checked', page)
    left = [each for each in shown if each != "config.margin"]
    assert len(left) == len(shown) - 1
    after = board.get("/columns", params={"column": left, "back": "by=settings" * ("by" in address)})
    assert titles(after.text) == [each for each in before if each != "margin"]


def test_columns_that_were_kept_and_no_run_has_any_more_are_left_out(board):
    board.get("/columns", params={"column": ["config.margin", "config.gone"]})
    assert titles(text(board)) == ["run", "status", "margin"]


def test_nothing_is_sent_again_until_something_has_changed(board, logs):
    first = board.get("/table?sort=val/loss")
    seen = {"x-seen": first.headers["x-seen"]}
    while (again := board.get("/table?sort=val/loss", headers=seen)).status_code != 204:
        seen = {"x-seen": again.headers["x-seen"]}  # what was young is read once more, or a minute has passed
    folder = logs / "news/s0"
    record.write(folder, record.changed(record.read(folder), best=points(val_loss=0.05)))
    moved = board.get("/table?sort=val/loss", headers=seen)
    assert runs(moved.text)[0] == "news/s0"
    assert board.get("/table?by=sweep", headers=seen).status_code == 200  # another choice is another table
    assert "<html" not in moved.text


def test_the_table_is_drawn_once_for_all_who_look_at_the_same(board, monkeypatch):
    monkeypatch.setattr(live, "PAUSE", 1000.0)
    monkeypatch.setattr(table, "time", SimpleNamespace(time=lambda: 0.0))  # no minute ends in between
    first = board.get("/table?sort=val/loss")
    monkeypatch.setattr(table, "_values", None)
    assert board.get("/table?sort=val/loss").text == first.text


def test_the_page_names_what_it_shows_so_that_the_first_refresh_brings_nothing(board):
    page = text(board, "/?by=experiment")
    seen = re.search(r'data-seen="(\w+)"[^>]* hx-get="/table\?by=experiment"', page)[1]
    assert board.get("/table?by=experiment", headers={"x-seen": seen}).status_code in (200, 204)
    assert len(seen) == 16


def test_pages_are_never_longer_than_a_browser_bears(board, logs, monkeypatch):
    monkeypatch.setattr(table, "PAGE", 4)
    assert runs(text(board))[-1] == "news/bad"
    assert "Page 1 of 2" in text(board)
    assert runs(text(board, "/?page=2")) == ["news/other", "words/t"]
    assert runs(text(board, "/?page=99")) == ["news/other", "words/t"]
    assert heads(text(board, "/?by=experiment&page=2")) == ["news, 5", "words, 1"]


def test_tags_and_a_note_are_edited_in_their_place(board, logs):
    page = text(board, "/?where=margin=3&edit=news/s0")
    assert page.count('class="edit"') == 1
    assert '</tr>\n<tr class="edit"' in page  # a row of its own: no column is too narrow, none covers it
    assert "hx-trigger" not in page  # nothing is swapped while somebody types
    done = say(board, page, tags="baseline good", note="two\nlines")
    assert (done.status_code, done.headers["location"]) == (303, "/?where=margin%3D3")
    known = record.read(logs / "news/s0")
    assert (known.tags, known.note) == (["baseline", "good"], "two\nlines")
    assert "two lines" in text(board)
    done = say(board, text(board, "/run/news/s0"), tags="good", note="of its page")
    assert done.headers["location"] == "/run/news/s0"
    assert remarks.read(logs / "news/s0") == remarks.Remarks(tags=["good"], note="of its page")
    lines = [json.loads(each) for each in (logs / ".board" / audit.FILE).read_text().splitlines()]
    assert [(each["action"], each["runs"], each["outcome"]) for each in lines] == [
        ("note", ["news/s0"], "kept"),
        ("note", ["news/s0"], "kept"),
    ]


def test_a_tag_that_can_be_none_changes_nothing_and_says_why(board, logs):
    done = say(board, text(board, "/run/news/s0"), tags="a,b", note="not\nlost")
    assert done.status_code == 422
    assert "can't be a tag" in unescape(done.text)
    assert "\nnot\nlost</textarea>" in done.text
    assert 'name="tags" value="a,b"' in done.text
    assert record.read(logs / "news/s0").note == "the first"
    assert say(board, done.text, tags="a", note="now").status_code == 303


@pytest.mark.parametrize("address", ["/?where=margin=3&edit=news/s0", "/run/news/s0"])
def test_of_two_who_edit_the_same_note_the_later_is_told_and_decides(board, logs, address):
    mine, theirs = text(board, address), text(board, "/run/news/s0")
    assert say(board, theirs, tags="paper", note="theirs\n<b>").status_code == 303
    refused = say(board, mine, tags="mine", note="my\nlong note")
    assert refused.status_code == 422
    assert "Somebody else has changed this meanwhile." in refused.text
    assert "tags: paper; note: theirs\n&lt;b&gt;" in refused.text
    assert 'name="tags" value="mine"' in refused.text
    assert "\nmy\nlong note</textarea>" in refused.text
    assert remarks.read(logs / "news/s0") == remarks.Remarks(tags=["paper"], note="theirs\n<b>")
    kept = say(board, refused.text, tags="mine", note="both")  # knowing what it takes the place of
    back = "/?where=margin%3D3" if "edit" in address else address
    assert kept.headers["location"] == back
    assert say(board, mine, tags="mine", note="both").headers["location"] == back  # pressed twice
    assert remarks.read(logs / "news/s0") == remarks.Remarks(tags=["mine"], note="both")


def test_a_form_that_does_not_say_what_it_showed_changes_nothing(board, logs):
    assert post(board, "/do/note", run="news/s0", tags="", note="x").status_code == 422
    assert record.read(logs / "news/s0").note == "the first"


@pytest.mark.parametrize("run", ["news/nothing", "../secret", "news", "/etc", ""])
def test_only_runs_of_the_table_can_be_spoken_about(board, run):
    assert post(board, "/do/note", run=run, note="x").status_code in (400, 422)


@pytest.mark.parametrize(
    "back", ["//evil.example/", "https://evil.example", "\r\nSet-Cookie: a=b", "a=1&//b"]
)
def test_the_way_back_leads_nowhere_else(board, back):
    for answer in (
        post(board, "/do/note", run="news/s0", note="the first", back=back),
        board.get("/columns", params={"back": back}, follow_redirects=False),
    ):
        assert re.fullmatch(r"/\?[\w%=&.+-]*", answer.headers["location"])


def test_without_the_cookie_s_token_nothing_is_changed(board, logs):
    assert board.post("/do/note", data={"run": "news/s0", "note": "x"}).status_code == 400
    assert record.read(logs / "news/s0").note == "the first"


def test_a_name_is_never_markup(board, logs):
    evil = "<script>alert(1)</script>"
    add(logs, 'news/"><b>x', 1, 0.1, margin=evil, seed=1, note=evil, status="failed", reason=evil)
    for address in ("/", "/?by=settings", "/?by=experiment&sort=margin", f"/?where={evil}", f"/?edit={evil}"):
        page = board.get(address).text
        assert "<script>alert" not in page
        assert "<b>x" not in page


def test_without_runs_the_page_says_how_to_make_one(tmp_path):
    page = text(TestClient(application(tmp_path)))
    assert "Start one: trainlab run news" in page


def test_a_folder_that_is_not_there_yet_is_named(tmp_path):
    assert "the first run makes it" in text(TestClient(application(tmp_path / "none")), status=400)


def test_below_another_path_every_address_is_below_it_too(logs):
    page = TestClient(application(logs), root_path="/board").get("/").text
    addresses = re.findall(r'(?:href|src|action|formaction|hx-get|hx-post)="([^"]*)"', page)
    assert addresses
    assert all(each.startswith("/board/") or each in ("#main", "data:,") for each in addresses)
