"""What stands behind JupyterLab's login in a real Chromium, with the local engine; TensorBoard has no port.

With TRAINLAB_SCREENSHOTS=FOLDER each test leaves a picture of what it saw there.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import served_bundles
import trainlab
from behind_the_door import TOKEN, jupyter
from project import status_of
from running_server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

    from project import Project

pytestmark = pytest.mark.browser

POINTS, STEPS = 40, 300
OPTIONS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run"]
OFF = {"TENSORBOARD_PORT": "off"}


@pytest.fixture(scope="module")
def stack(local_project: Project) -> Project:
    """Both services, TensorBoard without a port, and a run with curves, a picture and points in logs/."""
    random = np.random.default_rng(0)
    logs = local_project.folder / "logs"
    with trainlab.Run("drawn", {"margin": 5.0}, metrics=["val/loss"], logs=logs) as run:
        for step in range(STEPS):
            run.log({"train/loss": 1 / (step + 1)}, step)
        run.log({"val/loss": 0.5}, STEPS)
        titles = [[f"title {index}", "sports"] for index in range(POINTS)]
        run.log_embedding("titles", random.normal(size=(POINTS, 8)), titles, ["title", "category"], STEPS)
    said = local_project.make("up", **OFF).stdout
    assert f"TensorBoard  {local_project.jupyter}/tensorboard/?token=" in said
    assert f"Board        {local_project.jupyter}/board/?token=" in said
    return local_project


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser's page, and at the end that nothing of it was refused by a policy of ours."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        refused: list[str] = []
        page.on("console", lambda each: refused.append(each.text) if "violates" in each.text else None)
        yield page
        browser.close()
        assert refused == []


def take_picture(page: Page, name: str) -> None:
    if folder := os.environ.get("TRAINLAB_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def open_tensorboard(stack: Project, page: Page, tab: str) -> str:
    """Open a tab of TensorBoard's page; return the folder that it lies in."""
    page.goto(f"{stack.jupyter}/tensorboard/?token={stack.token}#{tab}")
    place = rf"({stack.jupyter}/[0-9a-f]{{32}}/tensorboard/)\?pinnedCards=.*"
    found = re.fullmatch(place, page.url.partition("#")[0])
    assert found, page.url
    return found[1]


def test_without_a_port_tensorboard_is_a_socket_of_its_owner_s(stack: Project) -> None:
    place = stack.folder / ".stack/tensorboard.sock"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(os.path.relpath(place))
    assert "tensorboard  healthy" in stack.make("status", **OFF).stdout
    assert status_of(f"{stack.jupyter}/tensorboard/") == 403


def test_tensorboard_draws_curves_settings_and_points_below_a_path(stack: Project, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda each: asked.append(each.url))
    folder = open_tensorboard(stack, page, "timeseries")
    page.locator("tb-data-table-content-cell").get_by_text(f"{STEPS - 1:,}", exact=True).first.wait_for()
    take_picture(page, "door-tensorboard")
    open_tensorboard(stack, page, "hparams")
    page.get_by_text("0.50000").first.wait_for()
    open_tensorboard(stack, page, "projector")
    page.reload()
    projector = page.frame_locator("iframe").frame_locator("iframe")
    projector.get_by_text(f"Points: {POINTS}").first.wait_for()
    take_picture(page, "door-projector")
    first = f"{stack.jupyter}/tensorboard/?token="
    assert [each for each in asked if not each.startswith((folder, first, "data:", "blob:"))] == []


def test_a_script_in_tensorboard_s_page_reaches_nothing_of_jupyterlab(stack: Project) -> None:
    """Which has the same origin: what an event file from elsewhere could bring in there would be the user."""
    from playwright.sync_api import sync_playwright

    ask = "path => fetch(path).then(answer => answer.status, error => 'refused')"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        page = browser.new_page()
        folder = open_tensorboard(stack, page, "timeseries")
        above = folder.removesuffix("tensorboard/")
        assert page.evaluate(ask, f"{folder}data/runs") == 200
        for path in ("api/contents", "board/", "lab", "files/README.md"):
            assert page.evaluate(ask, above + path) == "refused"
        load = """path => new Promise(done => {
            const script = document.createElement("script")
            script.onload = () => done("ran")
            script.onerror = () => done("refused")
            script.src = path
            document.head.append(script)
        })"""
        assert page.evaluate(load, f"{above}files/evil.js") == "refused"
        page.evaluate("path => { window.other = window.open(path) }", f"{above}lab")
        page.wait_for_function("() => window.other.closed")  # what this page holds is no window
        browser.close()


def test_the_page_of_exported_runs_answers_below_a_path(
    tmp_path: Path, free_port: Callable[[], int], page: Page
) -> None:
    models, port = tmp_path / "models", free_port()
    served_bundles.choose(models, served_bundles.write("nearest", "nearest", models=models))
    at = {"SERVE_AT": f"127.0.0.1:{port}", "SERVE_TOKEN": "of-the-service"}
    with (
        RunningServer(models, port, SERVE_TOKEN=at["SERVE_TOKEN"]),
        jupyter(tmp_path, free_port(), **at) as lab,
    ):
        page.goto(f"http://127.0.0.1:{lab.port}/serve/?token={TOKEN}")
        page.get_by_label("Title", exact=True).fill("rain")
        page.keyboard.press("Enter")
        page.locator("ol.items li").first.wait_for()
        assert page.url.partition("#")[0] == f"http://127.0.0.1:{lab.port}{lab.base}serve/"
        assert page.evaluate("getComputedStyle(document.body).maxWidth") != "none", "its style is found"


def test_the_launcher_opens_the_board_in_a_tab_of_its_own(stack: Project, page: Page) -> None:
    page.goto(f"{stack.jupyter}/lab/workspaces/door?reset&token={stack.token}")
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_role("menuitem", name="New Launcher").click()
    card = page.locator(".jp-LauncherCard:visible[title^='Board']").first
    card.wait_for()
    assert page.locator(".jp-LauncherCard:visible[title^='TensorBoard']").count() == 1
    card.scroll_into_view_if_needed()
    page.wait_for_function("card => card.querySelector('img').naturalWidth > 0", arg=card.element_handle())
    take_picture(page, "door-launcher")
    with page.context.expect_page() as opened:
        card.click()
    board = opened.value
    board.locator("a[href*='/board/run/drawn/']").first.wait_for()
    assert re.fullmatch(rf"{stack.jupyter}/[0-9a-f]{{32}}/board/", board.url)
    take_picture(board, "door-board")


def test_the_address_of_the_board_that_make_prints_opens_it(stack: Project, page: Page) -> None:
    (address,) = re.findall(r"^Board +(\S+)", stack.make("status", **OFF).stdout, re.MULTILINE)
    page.goto(address)
    page.locator("a[href*='/board/run/drawn/']").first.wait_for()
    assert "token" not in page.url
    assert {cookie["name"] for cookie in page.context.cookies()} >= {"_xsrf"}
