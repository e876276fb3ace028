"""The board as a person sees it, in a real Chromium: what is looked at, and what is done by way of it.

With TRAINLAB_SCREENSHOTS=FOLDER each page is left there as a picture, light, dark and as wide as a phone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fastapi")

import trainlab
from acting import SCRIPT
from lab import Lab
from runs_folder import make
from trainlab.run import record
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

WAIT = 60_000  # milliseconds, on a busy machine
LOOKS = {"light": (1200, 900), "dark": (1200, 900), "phone": (360, 740)}
SERIOUS = ("serious", "critical")  # of axe-core's four words


@pytest.fixture
def logs(lab: Lab) -> Path:
    """Two settings with two seeds each, and a program that can be started."""
    logs = lab.root / "logs"
    for margin, seed in ((1, 0), (1, 1), (3, 0), (3, 1)):
        settings = {"margin": margin, "seed": seed}
        with trainlab.Run("mine", settings, logs=logs, name=f"m{margin}s{seed}", monitor=False) as run:
            for step in range(20):
                run.log({"train/loss": 1 / (step + 1), "val/loss": margin / (step + 1) + seed / 10}, step)
    (lab.root / "notebooks" / "tiny.py").write_text(SCRIPT)
    return logs


@pytest.fixture
def address(lab: Lab, logs: Path, free_port: Callable[[], int]) -> Iterator[str]:
    """The board of that project, as its command prints it."""
    command = [str(Path(sys.executable).with_name("trainlab")), "board", "--port", str(free_port())]
    with subprocess.Popen(
        command, env=lab.environment, cwd=logs.parent, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The first page; at the end nothing was loaded from elsewhere, and no page found a fault in itself."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda each: asked.append(each.url))
    page.on("console", lambda each: faults.append(each.text))
    page.on("pageerror", lambda each: faults.append(str(each)))
    page.goto(address)
    yield page
    assert [each for each in asked if not each.startswith((address, "data:", "about:"))] == []
    assert [each for each in faults if "status of 4" not in each] == []
    context.close()


def link(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).first.click()


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).first.click()


def test_a_run_is_started_seen_moving_stopped_and_resumed(page: Page, logs: Path) -> None:
    link(page, "Start")
    page.get_by_role("row", name=re.compile("tiny.py")).get_by_role("link", name="Start").click()
    page.get_by_label("slope", exact=True).fill("nothing")
    press(page, "Start")
    assert page.get_by_text("Nothing was started.").is_visible()
    assert page.get_by_label("slope", exact=True).input_value() == "nothing", "what was typed is lost"
    page.get_by_label("slope", exact=True).fill("5")
    page.get_by_label("steps", exact=True).fill("3")
    page.get_by_label("hold", exact=True).select_option("True")
    press(page, "Start")
    page.wait_for_url(re.compile("/run/tiny/"))
    (folder,) = logs.glob("tiny/*")
    page.get_by_text("running").first.wait_for()
    until(lambda: list((folder / "checkpoints").glob("*.ckpt")), "a checkpoint")
    press(page, "Stop")
    page.get_by_text("interrupted").first.wait_for()
    assert record.read(folder).status == "interrupted"
    (logs.parent / "notebooks" / "go").touch()
    link(page, "Runs")
    link(page, folder.name)
    press(page, "Resume")
    page.get_by_text("finished").first.wait_for()
    assert record.read(folder).last["val/loss"].step == 2


def test_a_run_that_trains_moves_in_the_table_and_ticks_stay(page: Page, logs: Path) -> None:
    page.locator("#runs input[type=checkbox]").first.check()
    ticked = page.locator("#runs input[type=checkbox]:checked").get_attribute("value")
    with trainlab.Run("mine", {"margin": 9, "seed": 0}, logs=logs, name="moving", monitor=False) as run:
        for step, value in enumerate((0.5125, 0.2625)):
            run.log({"val/loss": value}, step)
            row = page.get_by_role("row", name=re.compile(run.name))
            row.get_by_text(f"{value:.4f}"[:5]).first.wait_for()
    row.get_by_text("finished").wait_for()
    assert page.locator("#runs input[type=checkbox]:checked").get_attribute("value") == ticked


def test_runs_are_filtered_grouped_by_their_seeds_and_compared(page: Page) -> None:
    page.get_by_label("Filter").fill("margin>")
    page.get_by_label("Filter").press("Enter")
    page.get_by_role("alert").wait_for()
    assert page.get_by_label("Filter").input_value() == "margin>"
    page.get_by_label("Filter").fill("margin>=3")
    page.get_by_label("Filter").press("Enter")
    page.wait_for_url(re.compile("where="))
    assert page.locator("#runs input[type=checkbox]").count() == 2
    page.get_by_label("Filter").fill("")
    page.get_by_label("Group").select_option("settings")
    press(page, "Show")
    page.get_by_text("±").first.wait_for()
    for fold in page.locator("#runs summary").all():
        fold.click()
    for tick in page.locator("#runs input[type=checkbox]").all():
        tick.check()
    press(page, "Compare")
    page.wait_for_url(re.compile("/compare"))
    page.locator(".uplot canvas").first.wait_for()
    assert page.get_by_role("heading", name="Runs and settings that differ").is_visible()


def test_a_run_is_thrown_away_and_brought_back(page: Page, logs: Path) -> None:
    name = next(each.name for each in logs.glob("mine/*m3s1*"))
    link(page, name)
    press(page, "Move to the trash")
    press(page, "To the trash")
    until(lambda: not (logs / "mine" / name).exists(), "the run's end")
    link(page, "Trash")
    press(page, "Restore")
    until((logs / "mine" / name / "run.json").is_file, "the run's return")


def test_a_run_is_run_again_with_other_settings(page: Page, logs: Path) -> None:
    link(page, "Start")
    page.get_by_role("row", name=re.compile("tiny.py")).get_by_role("link", name="Start").click()
    press(page, "Start")
    page.get_by_text("finished").first.wait_for()
    link(page, "Run it again with other settings")
    page.get_by_label("slope", exact=True).fill("7")
    press(page, "Start")
    page.wait_for_url(re.compile("slope7"))
    page.get_by_text("finished").first.wait_for()
    assert len(list(logs.glob("tiny/*"))) == 2


def test_a_sweep_is_started_and_followed(page: Page) -> None:
    pytest.importorskip("optuna")
    link(page, "Start")
    page.get_by_role("row", name=re.compile("tiny.py")).get_by_role("link", name="Sweep").click()
    page.get_by_label("Goal", exact=True).fill("val/loss")
    page.get_by_label("slope", exact=True).fill("1,2")
    press(page, "Start the sweep")
    page.wait_for_url(re.compile("/sweep/"))
    page.get_by_text("2 of 2 done").first.wait_for()


COVERED = """each => {
  each.scrollIntoView({block: "center", inline: "nearest"});
  const box = each.getBoundingClientRect();
  const corners = [[box.left + 4, box.top + 4], [box.right - 4, box.bottom - 4]];
  return corners.some(([x, y]) => document.elementFromPoint(x, y) !== each);
}"""


@pytest.mark.parametrize("width", [1280, 360])
def test_long_names_are_told_apart_and_nothing_covers_what_is_edited(
    page: Page, logs: Path, width: int
) -> None:
    for seed in range(2):
        make(logs, f"mine/{'rate0.001-' * 8}seed{seed}", config={"rate": 0.001, "seed": seed, "n" * 30: 1})
    page.set_viewport_size({"width": width, "height": 740})
    page.get_by_role("link", name=re.compile("^Edit .*rate0.001-seed1")).click()  # found within seconds
    page.locator("tr.edit").wait_for()
    shown = page.locator("tr.edit :is(input:not([type=hidden]), textarea, button), tbody th a")
    assert shown.count() == 3 + 6
    assert page.evaluate("document.activeElement.name") == "tags"
    assert [each.inner_text() for each in shown.all() if each.evaluate(COVERED)] == []


@pytest.mark.parametrize("look", LOOKS)
def test_no_page_has_a_serious_fault_or_is_wider_than_its_screen(
    browser: Browser, address: str, logs: Path, look: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    width, height = LOOKS[look]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if look == "dark" else "light",
        bypass_csp=True,  # axe is a script of the test's
    )
    page = context.new_page()
    page.set_default_timeout(WAIT)
    name = next(each.name for each in sorted(logs.glob("mine/*")))
    found = {}
    for path in (
        "",
        "?by=settings",
        f"run/mine/{name}",
        "compare?seeds=1",
        "start",
        "start?notebook=tiny.py",
        "sweeps",
        "sweeps/new?notebook=tiny.py",
        "trash",
    ):
        answer = page.goto(f"{address}{path}")
        assert answer is not None and answer.ok, path
        page.wait_for_load_state("networkidle")
        if folder := os.environ.get("TRAINLAB_SCREENSHOTS"):
            picture = re.sub(r"\W+", "-", path) or "runs"
            page.screenshot(path=str(Path(folder) / f"board-{picture}-{look}.png"), full_page=True)
        if not page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            found[path] = ["wider than the screen"]
        faults = [each for each in Axe().run(page).response["violations"] if each["impact"] in SERIOUS]
        for each in faults:
            where = "; ".join(node["html"][:160] for node in each["nodes"][:3])
            found.setdefault(path, []).append(f"{each['id']}: {each['help']}: {where}")
    context.close()
    assert found == {}
