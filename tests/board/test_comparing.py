from __future__ import annotations

import json
import os
import re
from html import unescape

import pytest
from fastapi.testclient import TestClient

import trainlab
from compared_runs import record, record_foreign
from runs_folder import make, points
from trainlab.board.app import application

pytestmark = pytest.mark.usefixtures("at_once")


@pytest.fixture
def logs(tmp_path):
    """Two margins with two seeds each."""
    for margin in (1, 2):
        for seed in (0, 1):
            losses = [margin + seed / 10 + 1 / (1 + step) for step in range(5)]
            record(tmp_path, f"m{margin}s{seed}", {"margin": margin, "seed": seed}, losses)
    return tmp_path


@pytest.fixture
def client(logs):
    return TestClient(application(logs), raise_server_exceptions=True)


def labels(logs):
    return {path.name[16:]: path.relative_to(logs).as_posix() for path in logs.glob("*/*")}


def source(page):
    """Return the address that a page's curves come from."""
    return unescape(re.search(r'data-src="([^"]+)"', page)[1])


def curves(client, page):
    return json.loads(client.get(source(page)).content)


def test_without_a_choice_the_newest_experiments_runs_are_compared(client, logs):
    record(logs, "other", {}, [1.0], experiment="older")
    make(logs, "started/c", status="running")  # no metrics yet
    page = client.get("/compare?experiment=news").text
    assert "4 runs, 4 with val/loss, lower is better." in unescape(page)
    assert "1 run, 1 with val/loss" in client.get("/compare").text  # of the experiment that ran last
    found = curves(client, page)
    assert len(found) == 4 * 2  # val/loss and train/loss
    assert {each["panel"] for each in found} == {0, 1}


def test_the_runs_that_an_address_names_are_compared_in_any_browser(client, logs):
    named = labels(logs)
    page = client.get("/compare", params={"run": [named["m2s0"], named["m1s1"]], "x": "time", "log": 1}).text
    assert "Ticked: 2" in page
    assert "data-log" in page
    assert "minutes running" in page
    assert {each["line"] for each in curves(client, page)} == {0, 1}


def test_a_curve_has_a_thousand_points_at_most_and_is_smoothed_as_everywhere(tmp_path):
    record(tmp_path, "long", {}, [float(step % 7) for step in range(3000)])
    client = TestClient(application(tmp_path))
    (curve, _) = curves(client, client.get("/compare?smooth=0.9").text)
    assert len(curve["x"]) == 1000
    assert curve["x"][-1] == 2999
    assert abs(curve["y"][-1] - 3) < 0.5  # near the mean, where the exact values jump
    assert curve["exact"][-1] == 2999 % 7


def test_seeds_become_one_line_with_a_band(client):
    page = client.get("/compare?seeds=1&smooth=0").text
    assert page.count("(2 seeds)") == 2
    found = [each for each in curves(client, page) if each["panel"] == 0]
    assert len(found) == 2
    for each in found:
        middle = [(low + high) / 2 for low, high in zip(each["low"], each["high"], strict=True)]
        assert middle == pytest.approx(each["y"], abs=1e-4)
        assert each["high"][0] - each["low"][0] == pytest.approx(2 * 0.1 / 2**0.5, abs=1e-4)


def tables(page):
    """Return the rows of a page's tables, cell by cell."""
    return [
        [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", line) for line in re.findall(r"<tr>.*?</tr>", table)]
        for table in re.findall(r"<table>.*?</table>", unescape(page), re.DOTALL)
    ]


def test_seeds_become_one_row_of_the_tables_with_mean_spread_and_n(client):
    of_runs, _ = tables(client.get("/compare").text)
    assert len(of_runs) == 1 + 4
    head, *rows = tables(client.get("/compare?seeds=1").text)[0]
    assert head[:4] == ["run", "n", "status", "margin"]
    assert "seed" not in head
    found = [dict(zip(head, row, strict=True)) for row in rows]
    assert [(row["n"], row["margin"]) for row in found] == [("2", "1"), ("2", "2")]
    assert [row["val/loss"] for row in found] == ["1.25 ± 0.071", "2.25 ± 0.071"]


def test_what_sets_the_best_apart_is_told_of_settings_where_seeds_are_one(logs):
    for margin in (3, 4):
        for seed in (0, 1):
            record(logs, f"m{margin}s{seed}", {"margin": margin, "seed": seed}, [float(margin)] * 3)
    client = TestClient(application(logs))
    apart = tables(client.get("/compare?seeds=1").text)[1]
    assert apart[1] == ["margin", "2 (1 to 3)", "4 (1)", "1"]  # three of four settings, not three runs


def test_one_run_s_curves_of_one_name_share_a_panel(tmp_path):
    record(tmp_path, "a", {}, [3.0, 2.0])
    client = TestClient(application(tmp_path))
    page = client.get("/compare").text
    assert page.count("<figure") == 1
    assert [(each["panel"], each["line"]) for each in curves(client, page)] == [(0, 0), (0, 1)]


def test_curves_move_while_a_run_trains_and_are_not_sent_twice(tmp_path):
    client = TestClient(application(tmp_path))
    with trainlab.Run("news", metrics=["val/loss"], logs=tmp_path, monitor=False) as run:
        run.log({"val/loss": 1.0}, 0)
        address = source(client.get("/compare").text)
        first = client.get(address)
        assert client.get(address, headers={"x-seen": first.headers["x-seen"]}).status_code == 204
        run.log({"val/loss": 0.5}, 1)
        second = client.get(address, headers={"x-seen": first.headers["x-seen"]})
        assert second.status_code == 200
        assert second.json()[0]["exact"] == [1.0, 0.5]


def test_of_too_many_runs_the_best_are_drawn_and_that_is_said(tmp_path):
    for number in range(12):
        record(tmp_path, f"r{number}", {"margin": number}, [float(number)])
    page = TestClient(application(tmp_path)).get("/compare").text
    assert "Of 12 runs with curves the best 10 are drawn." in page
    assert page.count('<li><label><input type="checkbox" checked>') == 10


@pytest.mark.parametrize("kind", ["curves", "parallel", "importance"])
def test_each_picture_is_there_as_svg_png_and_csv(client, kind):
    found = {form: client.get(f"/compare/{kind}.{form}?seeds=1") for form in ("svg", "png", "csv")}
    assert found["svg"].content.startswith(b"<svg")
    assert found["png"].content.startswith(b"\x89PNG")
    kinds = [each.headers["content-type"].partition(";")[0] for each in found.values()]
    assert kinds == ["image/svg+xml", "image/png", "text/csv"]
    assert all("sandbox" in each.headers["content-security-policy"] for each in found.values())
    head = {"curves": "run,tag,step", "parallel": "experiment,run,config.margin", "importance": "setting,"}
    assert found["csv"].text.startswith(head[kind])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("experiment=nws", "Did you mean 'news'"),
        ("where=margn>3", "Did you mean 'margin'"),
        ("metric=val/los", "Did you mean 'val/loss'"),
        ("tags=val/loss,'x", "is not closed"),
        ("smooth=1", "less than 1"),
        ("smooth=much", "smooth"),
        ("x=hour", "'step', 'time', 'epoch' or 'examples'"),
        ("sweep=s", "no such sweep"),
        ("run=news/gone", "There is no run 'news/gone'"),
        ("run=../../etc/passwd", "There is no run"),
    ],
)
def test_a_mistake_is_a_sentence(client, query, said):
    found = client.get(f"/compare?{query}")
    assert found.status_code == 400
    assert said in unescape(found.text)


def test_a_mistake_stands_above_the_form_as_it_was_filled(client, logs):
    ticked = [labels(logs)["m1s0"], "news/gone"]
    filled = {"metric": "val/los", "tags": "val/loss,train/loss", "smooth": "0.3", "x": "time", "seeds": "1"}
    for chosen in ({"run": ticked}, {"where": "margin>=<2", "sweep": "s"}):
        found = client.get("/compare", params=chosen | filled)
        assert found.status_code == 400
        page = unescape(found.text)
        for name, value in (chosen | filled).items():
            for each in value if isinstance(value, list) else [value]:
                assert re.search(rf'name="{name}"[^>]* value="{re.escape(each)}"', page) or name == "x"
        assert re.search('name="seeds"[^>]* checked', page)
        assert '<option value="time" selected>' in page
        assert page.index('role="alert"') < page.index("<form")
        assert "data-src" not in page


def test_an_address_of_curves_whose_run_is_gone_has_the_others(client, logs):
    named = labels(logs)
    asked = {"run": ["news/gone", named["m1s0"]], "tag": ["val/loss"]}
    assert [each["line"] for each in client.get("/curves.json", params=asked).json()] == [1]


def test_without_runs_the_page_says_what_to_do(tmp_path):
    assert "No run with metrics is chosen" in TestClient(application(tmp_path)).get("/compare").text


def test_foreign_runs_are_compared_and_no_name_is_markup(tmp_path):
    name = "<img src=x onerror=alert(1)>\u202e"
    record_foreign(tmp_path / name, [3.0, 2.0])
    record(tmp_path, "a", {"<b>": "</option><script>"}, [1.0], experiment=name)
    page = TestClient(application(tmp_path)).get("/compare?experiment=all").text
    assert "2 runs" in page
    assert "<img src=x" not in page
    assert "<script>" not in page.replace('<script src="', "")
    assert "\u202e" not in page


def test_pictures_that_runs_have_logged_stand_side_by_side(tmp_path):
    import numpy as np

    for _ in range(2):
        with trainlab.Run("news", metrics=["val/loss"], logs=tmp_path, monitor=False) as run:
            run.log({"val/loss": 1.0}, 0)
            run.log_image("views/it", np.zeros((4, 4)), 3)
    client = TestClient(application(tmp_path))
    page = client.get("/compare").text
    addresses = re.findall(r'src="(/picture\?[^"]+)"', page)
    assert len(addresses) == 2
    assert "step 3" in page
    assert client.get(unescape(addresses[0])).headers["content-type"] == "image/png"


def test_a_run_whose_name_is_no_text_hides_no_other(tmp_path):
    made = make(tmp_path, "news/a", last=points(val_loss=1.0), metrics=["val\ud800", "val/loss"])
    make(tmp_path, "news/b", last=points(val_loss=2.0))
    os.rename(made, os.fsencode(made.parent) + b"/caf\xe9")  # noqa: PTH104 - no Path has such a name
    client = TestClient(application(tmp_path))
    page = client.get("/compare").text
    assert "caf?" in page
    assert client.get("/compare/curves.csv").status_code == 200
    assert client.get("/run/news/caf?".replace("?", "%3F")).status_code == 200
    page = client.get("/").text
    assert 'href="/run/news/caf%3F"' in page
    assert 'value="news/b"' in page
