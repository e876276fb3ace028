"""The page is readable: its colours against each other, and nothing in it that runs."""

from __future__ import annotations

import re

import pytest

from trainlab.serving import page
from trainlab.serving.engine import Loaded

STYLE = page.text(page.STYLE)
LIGHT, DARK = (dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in STYLE.split("@media")[:2])


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * each for each in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Return how well two colours are told apart, 1 to 21."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_stands_out_from_its_ground(colours: dict[str, str]) -> None:
    pairs = [(text, ground) for text in ("text", "quiet", "accent") for ground in ("ground", "panel")]
    pairs += [("on-accent", "accent"), ("fault", "fault-ground"), ("good", "panel"), ("bad", "panel")]
    weak = {pair: found for pair in pairs if (found := contrast(*(colours[each] for each in pair))) < 4.5}
    assert weak == {}


def test_nothing_in_the_pages_runs_or_comes_from_elsewhere() -> None:
    for name in ("frame.html", "page.html", "refused.html"):
        text = page.text(name)
        assert not re.search(r"<script|<style|\son\w+=|style=|https?://|\|\s*safe", text), name
    assert not re.search(r"url\(|@import|expression", STYLE)


def test_a_page_of_nothing_is_a_page() -> None:
    assert "<main>" in page.shown(Loaded())


def test_a_card_that_says_nothing_breaks_no_page() -> None:
    kind = {"sentiment": "mood"}
    html = page.shown(
        Loaded(runners={"sentiment": object()}, names=kind, digests=kind, cards={"sentiment": {}})
    )
    assert html.count("not told") == 2


def test_a_refusal_is_escaped() -> None:
    assert "<b>" not in page.refused(403, "<b>no</b>")
