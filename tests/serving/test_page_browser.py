"""The page as a person sees it, in a real Chromium: with the keyboard alone, light, dark, and on a phone.

With TRAINLAB_SCREENSHOTS=FOLDER each test leaves a picture of what it saw there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

import served_bundles
from running_server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
pytest.importorskip("onnx")
pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[RunningServer]:
    models = tmp_path_factory.mktemp("lab") / "models"
    names = [served_bundles.write(kind, kind, models=models) for kind in served_bundles.MADE]
    served_bundles.choose(models, *names)
    with RunningServer(models, free_port()) as running:
        yield running


@pytest.fixture(params=["light", "dark", "phone"])
def page(browser: Browser, server: RunningServer, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, and at the end that it has loaded nothing from elsewhere and found no fault in itself."""
    width, height = (390, 844) if request.param == "phone" else (1100, 900)
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if request.param == "dark" else "light",
    )
    page = context.new_page()
    page.set_default_timeout(20_000)
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda each: asked.append(each.url))
    page.on("console", lambda each: faults.append(each.text))
    assert page.goto(f"http://127.0.0.1:{server.port}/").ok, server.log
    yield page
    if folder := os.environ.get("TRAINLAB_SCREENSHOTS"):
        name = request.node.name.replace("[", "-").rstrip("]")
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than the screen"
    own = (f"http://127.0.0.1:{server.port}/", "data:")
    assert [each for each in asked if not each.startswith(own)] == []
    assert [each for each in faults if "status of 4" not in each] == []
    context.close()


def test_the_keyboard_alone_asks_for_news_and_reads_the_card(page: Page) -> None:
    reached = tab_to(page, "title")
    page.keyboard.type("rain")
    page.keyboard.press("Enter")
    items = page.locator("ol.items li")
    items.first.wait_for()
    assert reached < 6
    assert items.count() == 4
    assert "Storm" in items.first.inner_text()
    assert "0.100" in items.first.inner_text()
    link = page.get_by_role("link", name="Rain storm")
    assert link.get_attribute("rel") == "noopener noreferrer"
    assert page.get_by_label("Title", exact=True).input_value() == "rain"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    page.keyboard.press("Enter")
    card = page.get_by_role("region", name="Card").first
    assert '"run": "nearest-run"' in card.inner_text()
    assert page.get_by_text("<i>mine</i>", exact=True).first.is_visible(), "a card's text is text"


def test_a_text_gets_its_sentiment_in_words_and_a_number(page: Page) -> None:
    tab_to(page, "text")
    page.keyboard.type("bad <b>rain</b>")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Negative, with a probability of 95.3\u00a0%").wait_for()
    assert page.locator("blockquote").inner_text() == "bad <b>rain</b>"
    assert page.get_by_role("meter", name="Probability of positive").get_attribute("value") == "0.0474"
    assert "Positive or negative?" in page.title()


def test_a_picture_gets_its_caption(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "wide.png"
    Image.new("RGB", (3000, 400), "teal").save(file)
    page.locator("#picture").set_input_files(file)
    page.get_by_role("button", name="Describe").click()
    page.get_by_text("a grey field").wait_for()
    shown = page.get_by_role("img", name="The picture that was sent")
    assert shown.evaluate("each => each.naturalWidth") == 640


def test_what_is_wrong_is_said_at_the_field(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "note.png"
    file.write_text("no picture")
    page.locator("#picture").set_input_files(file)
    page.get_by_role("button", name="Describe").click()
    fault = page.get_by_role("alert")
    assert "no PNG, JPEG or WebP" in fault.inner_text()
    field = page.locator("#picture")
    assert field.get_attribute("aria-describedby") == fault.get_attribute("id")
    assert page.title().startswith("Not answered")
    file.write_bytes(bytes(5 << 20))
    field.set_input_files(file)
    page.get_by_role("button", name="Describe").click()
    page.get_by_role("alert").filter(has_text="More than 4 MiB").wait_for()
    page.get_by_role("link", name="Back to the page").click()
    page.get_by_role("button", name="Describe").wait_for()


def test_every_field_has_a_label_and_every_part_a_name(page: Page) -> None:
    fields = page.locator("input:not([type=hidden]), textarea")
    assert fields.count() == 4
    for place in range(fields.count()):
        assert fields.nth(place).evaluate("each => each.labels.length") == 1
    regions = [
        page.get_by_role("region", name=each) for each in ("News like this one", "Positive or", "What is in")
    ]
    assert [each.count() for each in regions] == [1, 1, 1]
    for role in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1, role
    assert page.locator("h1").count() == 1
    assert page.locator("html").get_attribute("lang") == "en"


def tab_to(page: Page, field: str) -> int:
    """Press the tabulator until a field has the focus; return how often."""
    for count in range(1, 30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == field:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", "the focus is seen"
            return count
    pytest.fail(f"no tabulator leads to {field}")
