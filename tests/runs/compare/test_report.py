from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from compared_runs import random_rows, record, record_foreign, row
from runs_folder import make
from trainlab.errors import UserError
from trainlab.runs import listing
from trainlab.runs.compare import report

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Collects a page's elements and what they load."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loaded, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loaded += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data):
        self.text += data


def test_the_page_loads_nothing_and_runs_nothing_whatever_runs_are_called():
    config = {EVIL: EVIL, "quote": '"><img src=x onerror=alert(1)>'}
    rows = [
        row(
            f"{EVIL}{index}",
            EVIL,
            loss=float(index),
            config=config | {"lr": index},
            status="failed",
            reason=EVIL,
        )
        for index in range(4)
    ]
    page = Page(report.html(rows, where=EVIL))
    assert "script" not in page.tags
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.loaded)
    assert EVIL in page.text
    assert "progress or reason" in page.text
    assert "img" in page.tags
    assert page.tags.count("img") == len(page.loaded)


def test_an_experiment_has_tables_and_pictures():
    page = Page(report.html(random_rows(20)))
    for title in (
        "The best by val/loss",
        "What sets the best apart",
        "Curves",
        "Settings against the metric",
    ):
        assert title in page.text
    assert "20 runs, 20 with val/loss, lower is better." in page.text
    assert page.tags.count("img") == 3
    assert page.tags.count("table") == 4


def test_experiments_are_not_mixed():
    rows = [row("a", "news", loss=1.0), row("b", "words", best={"f1": 0.5}, last={"f1": 0.5})]
    text = Page(report.html(rows)).text
    assert re.findall(r"1 run, 1 with \S+", text) == ["1 run, 1 with val/loss,", "1 run, 1 with f1,"]


def test_a_metric_that_is_asked_for_ranks_where_it_is_known(tmp_path):
    f1 = {"best": {"f1": 0.5, "val/loss": 1.0}, "last": {"f1": 0.5, "val/loss": 1.0}}
    rows = [row("a", "news", loss=1.0), row("b", "words", **f1)]
    text = Page(report.html(rows, metric="f1")).text
    assert re.findall(r"1 run, 1 with \S+", text) == ["1 run, 1 with val/loss,", "1 run, 1 with f1,"]
    with pytest.raises(UserError, match=r"No run has 'f2'\. Did you mean 'f1'\?"):
        report.write(tmp_path / "report.html", rows, metric="f2")
    assert not list(tmp_path.iterdir())


def test_runs_without_metrics_foreign_unreadable_and_running_ones_take_part(tmp_path):
    record(tmp_path, "ours", {"lr": 0.1}, [2.0, 1.0])
    record_foreign(tmp_path / "news" / "theirs", [3.0, 2.0])
    make(tmp_path, "news/started", status="running")
    (tmp_path / "news" / "broken").mkdir()
    (tmp_path / "news" / "broken" / "run.json").write_text("{")
    text = Page(report.html(listing.rows(tmp_path))).text
    assert "4 runs, 2 with val/loss" in text
    for name in ("ours", "theirs", "started", "broken", "unreadable"):
        assert name in text


def test_no_runs_give_a_page_that_says_so():
    assert "0 runs" in Page(report.html([])).text


def test_a_page_that_cannot_be_written_is_an_error_and_leaves_the_old_one(tmp_path):
    page = tmp_path / "report.html"
    page.write_text("old")
    with pytest.raises(UserError, match="No such file"):
        report.write(tmp_path / "no" / "report.html", [])
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    report.write(page, [])
    assert page.read_text().startswith("<!doctype html>")
