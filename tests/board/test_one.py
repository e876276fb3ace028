from __future__ import annotations

import re
from html import unescape

import nbformat
import numpy as np
import pytest
from fastapi.testclient import TestClient

import trainlab
from compared_runs import record_foreign
from runs_folder import make, points
from trainlab.board import one
from trainlab.board.app import application
from trainlab.run import record
from waiting import until

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


pytestmark = pytest.mark.usefixtures("at_once")


@pytest.fixture
def client(tmp_path):
    return TestClient(application(tmp_path))


def trained(logs, **settings):
    """Record a run with a checkpoint and a picture, and return its label."""
    with trainlab.Run("news", settings, metrics=["val/loss"], logs=logs, monitor=False) as run:
        run.log({"val/loss": 1.0, "train/loss": 0.5, "vitals/cpu_percent": 50}, 0)
        run.log_image("views/it", np.zeros((4, 4)), 0)
        run.save({"weights": np.ones(3)})
    return run.folder.relative_to(logs).as_posix()


def test_a_run_s_page_says_all_that_is_recorded(client, tmp_path):
    label = trained(tmp_path, margin=5, api_key="sk-0123456789abcdef")
    page = unescape(client.get(f"/run/{label}").text)
    for word in (
        "finished",
        "val/loss",
        "margin",
        "checkpoints/last.ckpt",
        "cpu_percent",
        "step-00000001.ckpt",
    ):
        assert word in page
    assert "sk-0123456789abcdef" not in page
    assert re.search(r'runFilter=%5Enews/[^"]+%24', page)
    for path in ("resume", "delete", "note"):
        assert f'action="/do/{path}"' in page
    assert 'action="/do/stop"' not in page
    assert f'href="/start?run={label.replace("/", "%2F")}"' in page


def test_a_run_that_died_says_why_and_a_running_one_can_be_stopped(client, tmp_path):
    make(tmp_path, "news/dead", status="failed", reason="ValueError: a <b>negative</b> margin")
    page = client.get("/run/news/dead").text
    assert '<p class="wrong">ValueError: a &lt;b&gt;negative&lt;/b&gt; margin</p>' in page
    with trainlab.Run("news", logs=tmp_path, name="now", monitor=False) as run:
        page = client.get(f"/run/news/{run.folder.name}").text
        assert 'action="/do/stop"' in page
        assert 'action="/do/delete"' not in page


def offered(client, label):
    """Return what a run's page offers of export and serving."""
    for page in (client.get(f"/run/{label}").text, client.get(f"/part/actions?run={label}").text):
        found = [path for path in ("export", "serve") if f'action="/do/{path}"' in page]
    return found, re.findall(r"(Can't be [^<]+)<", page)


def test_an_export_is_offered_where_it_can_work_alone(client, tmp_path, monkeypatch):
    make(tmp_path, "mine/a")
    assert offered(client, "mine/a") == ([], ["Can't be exported or served: mine has no export.py."])
    record_foreign(tmp_path / "theirs" / "a", [3.0, 2.0])
    assert offered(client, "theirs/a") == ([], ["Can't be exported or served: theirs has no export.py."])
    folder = make(tmp_path, "news/a")
    none = "it has no checkpoints/best.ckpt."
    assert offered(client, "news/a") == ([], [f"Can't be exported or served: {none}"])
    monkeypatch.setenv("TRAINLAB_MODELS", str(tmp_path / "models"))
    record.update(folder, exports=[{"kind": "nearest", "folder": "a-0123456789ab"}])
    assert offered(client, "news/a")[0] == [], "the bundle is gone"
    (tmp_path / "models" / "a-0123456789ab").mkdir(parents=True)
    assert offered(client, "news/a") == (["serve"], [f"Can't be exported: {none}"])
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").touch()
    assert offered(client, "news/a") == (["export", "serve"], [])


def test_a_page_is_told_when_its_run_has_got_more_to_show(client, tmp_path):
    with trainlab.Run("news", logs=tmp_path, name="now", monitor=False) as run:
        label = f"news/{run.folder.name}"
        shown = re.search(r'part/state[^"]*shown=(\w+)', client.get(f"/run/{label}").text)[1]
        address = f"/part/state?run={label}&shown={shown}"
        assert "x-grown" not in client.get(address).headers
        run.log({"val/loss": 1.0}, 0)
        until(lambda: "x-grown" in client.get(address).headers, "the new curve")
    assert 'id="do-stop"' not in client.get(f"/part/actions?run={label}").text


def test_a_note_of_several_lines_comes_back_as_it_was(client, tmp_path):
    make(tmp_path, "news/a", note="two\nlines", tags=["good"])
    page = client.get("/run/news/a").text
    assert "two\nlines</textarea>" in page
    assert page.count('name="note"') == page.count('name="tags"') == 1


def test_the_state_moves_and_is_not_sent_twice(client, tmp_path):
    make(tmp_path, "news/a", status="failed", reason="first")
    first = client.get("/part/state?run=news/a")
    assert (
        client.get("/part/state?run=news/a", headers={"x-seen": first.headers["x-seen"]}).status_code == 204
    )
    record.update(tmp_path / "news/a", reason="second")
    assert "second" in client.get("/part/state?run=news/a", headers={"x-seen": first.headers["x-seen"]}).text


@pytest.mark.parametrize(
    "label", ["news/gone", "news", "../../etc", "news/a/../../..", "%2e%2e/x", "?", "a%00b"]
)
def test_a_label_that_no_run_has_is_a_sentence(client, tmp_path, label):
    make(tmp_path, "news/a")
    found = client.get(f"/run/{label}")
    assert found.status_code == 400 or "Runs" in found.text
    assert client.get("/part/output", params={"run": label}).status_code == 400
    assert client.get("/picture", params={"run": label, "name": "run.json"}).status_code == 400


def test_a_foreign_run_and_a_damaged_one_say_what_they_are(client, tmp_path):
    record_foreign(tmp_path / "theirs" / "a", [3.0, 2.0])
    assert "Another program wrote this" in client.get("/run/theirs/a").text
    make(tmp_path, "news/broken")
    (tmp_path / "news/broken/run.json").write_text("{")
    page = client.get("/run/news/broken").text
    assert "unreadable" in page
    assert "not JSON" in page
    make(tmp_path, "news/torn", last=points(val_loss=1.0))
    (tmp_path / "news/torn/events.out.tfevents.1.x").write_bytes(b"no events at all here")
    assert "It is damaged" in client.get("/run/news/torn").text


def test_only_what_a_run_s_list_of_pictures_has_is_sent(client, tmp_path):
    label = trained(tmp_path)
    (tmp_path / label / "figure.png").symlink_to("/etc/passwd")
    (tmp_path / label / "text.png").write_bytes(b"<script>alert(1)</script>")
    for name in ("run.json", "../run.json", "figure.png", "/etc/passwd", "text.png", "output.log"):
        found = client.get("/picture", params={"run": label, "name": name})
        assert found.status_code == 400, name
        assert b"alert" not in found.content
        assert b"root:" not in found.content
    found = client.get("/picture", params={"run": label, "name": "views/it"})
    assert (found.status_code, found.headers["content-type"]) == (200, "image/png")
    assert "sandbox" in found.headers["content-security-policy"]


def test_an_svg_is_an_image_in_a_page_and_never_a_page(client, tmp_path):
    label = trained(tmp_path)
    (tmp_path / label / "figure.svg").write_text(SVG)
    asked = {"run": label, "name": "figure.svg"}
    shown = client.get("/picture", params=asked, headers={"sec-fetch-dest": "image"})
    assert shown.headers["content-type"] == "image/svg+xml"
    assert shown.headers["content-security-policy"].startswith("default-src 'none'")
    assert "sandbox" in shown.headers["content-security-policy"]
    assert "attachment" in shown.headers["content-disposition"]
    for place in ("document", "iframe", "object", "embed"):
        assert client.get("/picture", params=asked, headers={"sec-fetch-dest": place}).status_code == 400


def test_the_output_s_end_is_shown_without_secrets_and_without_what_steers(client, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "tok-0123456789")
    folder = make(tmp_path, "news/a")
    (folder / "output.log").write_text("\x1b[31mred\x1b[0m tok-0123456789 <script>\n1%\r50%\r100%\n")
    page = client.get("/part/output?run=news/a").text
    assert "red *** &lt;script&gt;\n100%" in page


def test_an_executed_notebook_is_shown_where_nothing_of_it_can_act(client, tmp_path):
    folder = make(tmp_path, "news/a")
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Hi <script>alert(1)</script>")])
    (folder / "notebook.ipynb").write_text(nbformat.writes(page))
    outer = client.get("/run/news/a").text
    assert "<iframe sandbox " in outer  # allows nothing
    found = client.get("/part/notebook?run=news/a")
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox; " in policy
    assert "script-src" not in policy
    assert found.headers["x-dns-prefetch-control"] == "off"
    assert "<h1>Hi alert(1)</h1>" in found.text
    assert "<script" not in found.text


def test_a_notebook_that_is_none_is_a_sentence(client, tmp_path):
    folder = make(tmp_path, "news/a")
    assert client.get("/part/notebook?run=news/a").status_code == 400
    (folder / "notebook.ipynb").write_text("[" * 100_000)
    found = client.get("/part/notebook?run=news/a")
    assert found.status_code == 400
    assert "be shown" in found.text


def post(client, **fields):
    """Check a checkpoint as the page's form does."""
    token = re.search(r'name="_xsrf" value="([^"]+)"', client.get(f"/run/{fields['run']}").text)[1]
    return client.post("/check", data={"_xsrf": token, **fields})


def test_a_checkpoint_is_checked_on_request_alone(client, tmp_path):
    label = trained(tmp_path)
    state = next((tmp_path / label / "checkpoints").glob("step-*.ckpt"))
    name = f"checkpoints/{state.name}"
    assert "it fits its SHA-256" in post(client, run=label, name=name).text
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.unlink()
    state.write_bytes(content)
    assert client.get(f"/run/{label}").status_code == 200  # nothing is hashed for it
    found = post(client, run=label, name=name)
    assert found.status_code == 400
    assert "is damaged or was replaced" in found.text
    assert "has no checkpoint" in post(client, run=label, name="../../../etc/passwd").text
    assert client.post("/check", data={"run": label, "name": name}).status_code == 400  # no page's form


def test_tensorboard_stands_behind_the_door_that_the_board_stands_behind(monkeypatch):
    monkeypatch.setenv("TENSORBOARD_PORT", "6007")
    assert one.tensorboard("/token", "news/a+b") == (
        "http://127.0.0.1:6007/?runFilter=%5Enews/a.b%24#timeseries"
    )
    assert one.tensorboard("/user/x/board", "news/a") == (
        "/user/x/tensorboard/?runFilter=%5Enews/a%24#timeseries"
    )
    monkeypatch.setenv("TENSORBOARD_PORT", "off")
    assert not one.tensorboard("/token", "news/a")
    assert one.tensorboard("/board", "news/a").startswith("/tensorboard/?")


def test_letters_that_are_none_hide_no_run(client, tmp_path):
    folder = make(tmp_path, "news/a", tags=["x"], last=points(val_loss=1.0))
    text = (folder / "run.json").read_text()
    text = text.replace('"note": ""', '"note": "\\ud800"').replace('"x"', '"\\ud800"')
    (folder / "run.json").write_text(text.replace("val/loss", "val/\\ud800"))
    assert client.get("/run/news/a").status_code == 200
    assert client.get("/compare").status_code == 200
