"""Files in `logs/` that an enemy has made: the run beside them is listed, soon, and without much memory."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import tracemalloc

import pytest
from typer.testing import CliRunner

import trainlab
from runs_folder import foreign, make, points
from trainlab import untrusted
from trainlab.cli import main
from trainlab.cli.runs import app
from trainlab.run import events, lock, remarks
from trainlab.runs import listing, trash
from trainlab.runs import listing as remembered
from trainlab.runs.listing import UNREADABLE

EVENTS = "events.out.tfevents.1.host"


@pytest.fixture(autouse=True)
def not_for_ever():
    """End a test that waits for a pipe."""

    def end(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def logs(tmp_path):
    make(tmp_path / "logs", "news/good", last=points(val_loss=1.0))
    return tmp_path / "logs"


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def link(path):
    path.symlink_to("/proc/self/environ")


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(path.parent)  # a socket's path has 107 bytes
        made.bind(path.name)


def folder(path):
    path.mkdir()


def sparse(path):
    path.touch()
    os.truncate(path, 8 << 30)


KINDS = [pipe, device, link, a_socket, sparse]


def found(logs):
    return {row.label: (row.status, row.reason) for row in listing.rows(logs)}


@pytest.mark.parametrize("make_it", KINDS)
def test_a_record_that_is_no_file_or_too_large_is_named_and_the_good_run_listed(logs, make_it, monkeypatch):
    monkeypatch.chdir(logs)
    (logs / "news" / "bad").mkdir()
    make_it(logs / "news" / "bad" / "run.json")
    rows = found(logs)
    assert rows["news/good"] == ("finished", None)
    assert rows["news/bad"][0] == UNREADABLE
    assert "only files are read" in rows["news/bad"][1] or "larger than 16 MiB" in rows["news/bad"][1]
    assert str(logs / "news" / "bad" / "run.json") in rows["news/bad"][1]


@pytest.mark.parametrize("make_it", KINDS)
def test_an_event_file_that_is_no_file_is_named_and_the_others_are_read(logs, make_it, monkeypatch):
    monkeypatch.chdir(logs)
    foreign(logs / "foreign")
    ours = make(logs, "news/ours", last=points(val_loss=2.0))
    for place in (logs / "foreign", ours):
        make_it(place / EVENTS)
    for row in listing.rows(logs):
        assert row.last["val/loss"] > 0
        assert (EVENTS in (row.reason or "")) == (row.run != "good")
    assert events.read(logs / "foreign").curves["val/loss"].steps == [0, 1, 2]


@pytest.mark.parametrize("make_it", KINDS)
def test_remarks_memory_trash_and_locks_are_read_from_files_alone(logs, make_it, monkeypatch):
    monkeypatch.chdir(logs)
    foreign(logs / "foreign")
    foreign(logs / "silent")
    (logs / ".trash" / "x").mkdir(parents=True)
    for place in (
        logs / "foreign" / remarks.FILE,
        logs / remembered.FILE,
        logs / ".trash" / "x" / "trashed.json",
        logs / "silent" / lock.RUN,
    ):
        make_it(place)
    rows = found(logs)
    assert rows["news/good"] == ("finished", None)
    assert rows["foreign"][0] == UNREADABLE
    assert rows["silent"] == ("unknown", None)
    assert not lock.alive(logs / "silent")
    assert trash.entries(logs) == {}


def test_a_run_is_not_restored_to_where_its_trash_says_outside_of_logs(logs):
    for number, label in enumerate(["../evil", "/evil", "news/../../evil", ".hidden/evil", ""]):
        place = logs / ".trash" / str(number)
        (place / "run").mkdir(parents=True)
        about = {"label": label, "deleted": "2026-01-01T00:00:00Z"}
        (place / "trashed.json").write_text(json.dumps(about))
    assert trash.entries(logs) == {}


def test_a_lock_and_the_reserve_are_not_taken_by_way_of_a_link(logs):

    precious = logs.parent / "precious"
    precious.write_text("precious")
    (logs / "news" / "good" / lock.RUN).symlink_to(precious)
    (logs / "news" / "good" / lock.RESERVE).symlink_to(precious)
    with pytest.raises(OSError, match="symbolic"):
        lock.hold(logs / "news" / "good")
    lock.keep_reserve(logs / "news" / "good")
    assert precious.read_text() == "precious"


def test_folders_of_any_depth_and_links_to_themselves_hide_nothing(logs):
    before = os.open(".", os.O_RDONLY)
    os.chdir(logs)
    try:
        for _ in range(1500):
            os.mkdir("d")  # noqa: PTH102  # too long for one path
            os.chdir("d")
    finally:
        os.fchdir(before)
        os.close(before)
    (logs / "news" / "self").symlink_to("self")
    foreign(logs / "zz")
    try:
        assert sorted(found(logs)) == ["news/good", "zz"]
    finally:
        subprocess.run(["rm", "-rf", logs / "d"], check=True)  # pytest's own sweep can't


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 1000 + b"]" * 1000,
        b'{"a":' * 60 + b"1" + b"}" * 60,
        b"[" * 500_000,
        b'{"a":' * 500_000,
    ],
)
def test_json_that_lies_too_deep_inside_itself_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match=r"more than 50 lists and objects inside each other"):
        untrusted.parsed(text)


def test_numbers_that_no_float_can_be_become_text(logs):
    config = {"seed": 2**128 - 1, "huge": 0, "nan": 0, "wide": 0}
    folder = make(logs, "news/huge", config=config)
    text = (folder / "run.json").read_text()
    text = text.replace('"huge": 0', '"huge": ' + "9" * 400).replace('"nan": 0', '"nan": NaN')
    (folder / "run.json").write_text(text.replace('"wide": 0', '"wide": ' + "9" * 5000))
    (row,) = [row for row in listing.rows(logs) if row.run == "huge"]
    assert row.config["seed"] == 2**128 - 1
    assert (row.config["huge"], row.config["nan"]) == ("9999999999… (400 digits)", "NaN")
    for words in ([], ["--format", "csv"], ["--format", "json"], ["--sort", "huge"], ["--where", "huge>3"]):
        done = CliRunner().invoke(app, ["--logs", str(logs), *words])
        assert (done.exit_code, type(done.exception)) in ((0, type(None)), (1, type(None)))
    assert CliRunner().invoke(app, ["show", "huge", "--logs", str(logs)], catch_exceptions=False).stdout


@pytest.mark.parametrize("outcome", [{"last": {"val/loss": "x"}}, {"started": "soon"}, {"config": [1]}])
def test_a_memory_with_values_that_can_not_be_is_thrown_away_and_made_anew(logs, outcome):
    foreign(logs / "foreign")
    for path in events.files(logs / "foreign"):
        os.utime(path, (1e9, 1e9))
    listing.rows(logs)
    path = logs / remembered.FILE
    known = json.loads(path.read_text())
    known["outcomes"]["foreign"]["outcome"] |= outcome
    path.write_text(json.dumps(known))
    (row,) = [row for row in listing.rows(logs) if row.run == "foreign"]
    assert row.last == {"val/loss": pytest.approx(1 / 3)}
    assert json.loads(path.read_text())["outcomes"]["foreign"]["outcome"]["last"] == row.last


def test_what_is_too_large_costs_no_memory(logs):
    (logs / "bad").mkdir()
    sparse(logs / "bad" / "run.json")
    sparse(logs / remembered.FILE)
    tracemalloc.start()
    try:
        assert len(listing.rows(logs)) == 2
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


EVIL = (
    "=1+\x1b]0;PWNED\x07\x1b[2J\x1b[31mred\x9b0m\x1b]8;;http://evil.example\x07click|\u202e"
    "[bold]b[/bold] :warning: <script>alert(1)</script>$\\frac$\r\n`*"
)


@pytest.fixture
def evil(logs):
    """A run in which every text is an enemy's, and its command's words."""
    point = {EVIL: {"value": 1.0, "step": 1}, "val/loss": {"value": 2.0, "step": 1}}
    make(
        logs,
        f"h/{EVIL.replace('/', '-')}x",
        status="failed",
        reason=EVIL,
        command=EVIL,
        host=EVIL,
        note=EVIL,
        tags=[EVIL],
        config={EVIL: EVIL, "margin": EVIL, "deep": {EVIL: [EVIL]}},
        packages={EVIL: EVIL},
        hardware={EVIL: EVIL},
        last=point,
        best=point,
        metrics=[EVIL],
        git={"commit": EVIL, "dirty": True},
        data={EVIL: EVIL},
    )
    foreign(logs / "h" / "foreign")
    return logs


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--columns", "run,margin,reason,note,tags"],
        ["--format", "csv"],
        ["--format", "json"],
        ["--format", "markdown"],
        ["--experiment", f"{EVIL}y"],
        ["--sort", f"{EVIL}y"],
        ["show", "PWNED"],
        ["show", "no such run"],
        ["diff", "PWNED", "good"],
        ["note", "PWNED"],
        ["tag", "PWNED", "fine"],
        ["report", "-o", "out.html"],
        ["plot", "-o", "out.svg", "--tag", "val/loss"],
        ["delete", "PWNED"],
        ["delete", "--purge", "--yes", "PWNED"],
        ["trash"],
    ],
)
def test_no_command_lets_an_escape_sequence_through(evil, words, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["trainlab", "runs", "--logs", str(evil), *words])
    if words and not words[0].startswith("-"):
        monkeypatch.setattr("sys.argv", ["trainlab", "runs", *words, "--logs", str(evil)])
    try:
        main()
    except SystemExit as ended:
        assert ended.code in (0, 2, None)
    out, err = capfd.readouterr()
    for letter in "\x1b\x07\x9b\u202e\r":
        assert letter not in out + err
    assert "Traceback" not in err


def test_what_a_sheet_would_compute_is_text_in_csv_and_numbers_are_numbers(evil):
    text = CliRunner().invoke(app, ["--logs", str(evil), "--format", "csv"]).stdout
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == 4
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]
    assert "2.0" in [cell for row in rows for cell in row]


def test_a_cell_of_markdown_ends_where_it_should(evil):
    text = CliRunner().invoke(app, ["--logs", str(evil), "--format", "markdown"]).stdout
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()}
    assert len(bars) == 1
    assert not re.search(r"(?<!\\)[<\[`*]", text)


def test_the_report_holds_no_markup_of_a_run_and_no_link(evil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", "--logs", str(evil), "-o", "out.html"], catch_exceptions=False)
    assert done.exit_code == 0
    page = (tmp_path / "out.html").read_text()
    assert "PWNED" in page
    assert not re.search(r"<script|<a |href=|javascript:(?!alert\(1\)</)", page)


@pytest.mark.parametrize(
    "fields",
    [
        {"started": "0001-01-01T00:00:00+14:00"},
        {"started": "9999-12-31T23:59:59-14:00"},
        {"started": "0001-01-01T00:00:00+14:00", "status": "running"},
        {"seconds": 1e308},
        {"seconds": -1.0},
        {"resumes": [{"at": "0001-01-01T00:00:00+14:00", "seconds": 1e308}]},
    ],
)
def test_times_that_can_not_be_are_left_out_and_everything_else_is_shown(logs, fields):
    folder = make(logs, "news/odd", minutes_ago=5, last=points(val_loss=2.0))
    text = json.loads((folder / "run.json").read_text()) | fields
    (folder / "run.json").write_text(json.dumps(text))
    found = {row.run: row for row in listing.rows(logs)}
    assert found["odd"].last == {"val/loss": 2.0}
    assert ("started" in fields) == (found["odd"].started is None)
    assert (found["odd"].seconds is None) == ("seconds" in fields or "status" in fields)
    for words in ([], ["--columns", "run,started,seconds"], ["--format", "csv"], ["--sort", "started"]):
        shown = CliRunner().invoke(app, ["--logs", str(logs), *words], catch_exceptions=False).stdout
        assert "good" in shown
        assert len(max(shown.splitlines(), key=len)) < 250
    CliRunner().invoke(app, ["show", "odd", "--logs", str(logs)], catch_exceptions=False)
    assert len(trainlab.table(logs)) == 2


@pytest.mark.parametrize("make_it", [pipe, link, device])
def test_nothing_is_appended_by_way_of_a_link_or_to_a_pipe(tmp_path, make_it):
    make_it(tmp_path / "output.log")
    with pytest.raises(OSError, match=r"symbolic|only files are read|No such device"):
        untrusted.appended(tmp_path / "output.log")
    with untrusted.appended(tmp_path / "new.log") as file:
        file.write(b"one")
    with untrusted.appended(tmp_path / "new.log") as file:
        file.write(b", two")
    assert (tmp_path / "new.log").read_bytes() == b"one, two"


def test_a_table_of_metrics_holds_no_formula_and_is_not_written_by_way_of_a_link(tmp_path):
    from trainlab.trackers import Point, Subject
    from trainlab.trackers import csv as table

    made = table.Table()
    subject = Subject(tmp_path, tmp_path, "news", "a")
    made.start(subject)
    made.log([Point(1, 2.0, "=1+1", -3.0), Point(2, 2.0, "loss", 1.0)])
    made.rewind(2)
    made.log([Point(2, 3.0, "@x", 1.0)])
    made.finish("finished", None)
    lines = (tmp_path / table.FILE).read_text().splitlines()
    assert lines == ["step,time,tag,value", "1,2.0,'=1+1,-3.0", "2,3.0,'@x,1.0"]
    (tmp_path / table.FILE).replace(tmp_path / "precious")
    (tmp_path / table.FILE).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic"):
        table.Table().start(subject)
