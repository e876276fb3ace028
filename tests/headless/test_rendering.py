from __future__ import annotations

import json
from html.parser import HTMLParser

import nbformat.v4 as made
import pytest
from nbformat import writes

pytest.importorskip("nbconvert")

from trainlab.errors import UserError
from trainlab.headless import rendering

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
EVIL = (
    "<script>alert(1)</script><img src=https://evil.example/a.png onerror=alert(1)>"
    '<iframe src="https://evil.example"></iframe><a href="javascript:alert(1)">x</a>'
    '<form action="https://evil.example"><input></form><link rel="dns-prefetch" href="//evil.example">'
    '<meta http-equiv="refresh" content="0;url=https://evil.example"><base href="https://evil.example">'
    '<svg onload="alert(1)"><image href="https://evil.example/b.png"/></svg>'
    '<p style="background:url(//evil.example)">y</p>'
    '<object data="https://evil.example"></object><style>@import "https://evil.example";</style>'
)


class Tags(HTMLParser):
    """Gathers the tags and attributes of a page, as a browser would read them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def rendered(folder, *cells):
    path = folder / "notebook.ipynb"
    path.write_text(writes(made.new_notebook(cells=list(cells))))
    return rendering.html(path)


def test_text_code_and_what_it_gave_are_shown(tmp_path):
    outputs = [
        made.new_output("stream", text="printed\n"),
        made.new_output("display_data", data={"image/png": PIXEL}),
        made.new_output("display_data", data={"text/html": "<table><tr><td>cell</td></tr></table>"}),
        made.new_output(
            "error", ename="ValueError", evalue="no", traceback=["\x1b[31mValueError\x1b[0m: no"]
        ),
    ]
    page = rendered(
        tmp_path,
        made.new_markdown_cell("# Title\n\n- one\n- two\n\n| a |\n|---|\n| b |"),
        made.new_code_cell("x = 1", outputs=outputs),
    )
    for part in (
        "<h1>Title</h1>",
        "<li>one</li>",
        "printed",
        "data:image/png;base64",
        "<td>cell</td>",
        "ValueError",
    ):
        assert part in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    "kind", ["markdown", "raw", "text/html", "image/svg+xml", "text/markdown", "name", "stream"]
)
def test_nothing_that_acts_or_asks_is_left_wherever_it_stands(tmp_path, kind):
    if kind == "markdown":
        cell = made.new_markdown_cell(f"{EVIL}\n\n![p](https://evil.example/c.png) [l](https://evil.example)")
    elif kind == "raw":
        cell = made.new_raw_cell(EVIL, metadata={"raw_mimetype": "text/html"})
    elif kind == "name":
        cell = made.new_code_cell(EVIL, metadata={"tags": [EVIL], "name": EVIL})
    elif kind == "stream":
        cell = made.new_code_cell("", outputs=[made.new_output("stream", text=EVIL, name="stdout")])
    else:
        cell = made.new_code_cell("", outputs=[made.new_output("display_data", data={kind: EVIL})])
    page = rendered(tmp_path, cell)
    seen = Tags(page)
    assert (
        not {"script", "iframe", "form", "link", "meta", "base", "object", "style", "svg", "input"}
        & seen.tags
    )
    assert not {
        name for name, _ in seen.attributes if name.startswith("on") or name in ("href", "style", "id")
    }
    assert all(value.startswith("data:image/") for name, value in seen.attributes if name == "src")


def test_scripts_widgets_and_javascript_as_outputs_are_left_out(tmp_path):
    data = {
        "application/javascript": "alert(1)",
        "application/vnd.jupyter.widget-view+json": {"model_id": "x"},
        "text/plain": "instead",
    }
    page = rendered(tmp_path, made.new_code_cell("", outputs=[made.new_output("display_data", data=data)]))
    assert "<script" not in page


@pytest.mark.parametrize(
    ("data", "metadata"),
    [
        ('"><script>alert(1)</script>', {}),
        (PIXEL, {"image/png": {"width": "1 onload=alert(1)", "alt": '"><script>'}}),
        (PIXEL, {"filenames": {"image/png": "https://evil.example/a.png"}}),
    ],
)
def test_a_picture_s_bytes_and_what_is_said_of_it_cannot_act(tmp_path, data, metadata):
    output = made.new_output("display_data", data={"image/png": data}, metadata=metadata)
    seen = Tags(rendered(tmp_path, made.new_code_cell("", outputs=[output])))
    assert "script" not in seen.tags
    assert {name for name, _ in seen.attributes} <= {"src", "alt", "class"}
    assert "evil" not in str(seen.attributes)


def test_secrets_are_hidden(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "tok-0123456789abcdef")
    page = rendered(tmp_path, made.new_code_cell("print('tok-0123456789abcdef')"))
    assert "0123456789" not in page


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", "[" * 9999, '{"cells": 3, "nbformat": 4}', "\x00\xff"]
)
def test_what_is_no_notebook_is_a_sentence(tmp_path, content):
    path = tmp_path / "notebook.ipynb"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"notebook\.ipynb can't be shown"):
        rendering.html(path)


def test_a_link_and_a_very_large_file_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "notebook.ipynb"
    path.symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="a link, and only files are read"):
        rendering.html(path)
    path.unlink()
    monkeypatch.setattr(rendering, "LARGEST", 10)
    path.write_text(json.dumps({"cells": []}))
    with pytest.raises(UserError, match="larger than"):
        rendering.html(path)
