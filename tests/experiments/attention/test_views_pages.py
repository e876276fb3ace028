"""BertViz's pages, made whole."""

from __future__ import annotations

import html
import json
import re

import pytest

from experiments.attention import views
from experiments.attention.capture import Reader
from trainlab.errors import UserError

VIEWS = (views.head_view, views.model_view, views.neuron_view)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_a_frame_that_may_load_nothing(reader: Reader, view) -> None:
    (attention,) = reader.read(["the king waved"])
    frame = view(attention)
    assert frame.startswith('<iframe sandbox="allow-scripts" srcdoc="')
    assert frame.count('"') == 6, "the page's own quotes are escaped"
    page = html.unescape(frame)
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
    assert (
        page.index("https://d3js.org v5")
        < page.index("window.requirejs =")
        < page.index("requirejs(['jquery'")
    )


def test_the_neuron_view_is_fed_what_the_network_computed(reader: Reader) -> None:
    (attention,) = reader.read(["the king waved"])
    page = html.unescape(views.neuron_view(attention))
    fed = json.loads(re.search(r"window.bertviz_params = (.*)\n", page)[1])["attention"]["all"]
    assert fed["left_text"] == ["[CLS]", "the", "king", "waved", "[SEP]"]
    for name, expected in (("attn", attention.weights), ("queries", attention.queries)):
        assert fed[name][1][1][2] == pytest.approx(expected[1, 1, 2].tolist(), abs=1e-4)


def test_a_changed_library_is_refused(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(views.LIBRARIES, "d3.min.js", "0" * 64)
    (attention,) = reader.read(["the king"])
    with pytest.raises(UserError, match=r"d3\.min\.js is not the file that was published"):
        views.head_view(attention)
