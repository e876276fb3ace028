"""What a person sees: JupyterLab and TensorBoard in a real Chromium, served by the local engine.

With TRAINLAB_SCREENSHOTS=FOLDER each test leaves a picture of what it saw there.
"""

from __future__ import annotations

import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

import nbformat
import numpy as np
import pytest

import trainlab
from experiments.attention import views

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator, Page, Route

    from project import Project

pytestmark = pytest.mark.browser

POINTS = 40
STEPS = 1500  # more than TensorBoard's own default keeps of a curve
# rendering in software, and no calls home
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def stack(local_project: Project) -> Project:
    """Both services, and one small run in logs/."""
    record_a_run(local_project.folder / "logs")
    local_project.make("up")
    return local_project


def record_a_run(logs: Path) -> None:
    random = np.random.default_rng(0)
    titles = [[f"title {index}", "sports"] for index in range(POINTS)]
    settings = {
        "batch_size": 8,
        "data": "sample",
        "dropout": 0.1,
        "epochs": 1,
        "freeze": 0,
        "learning_rate": 0.1,
    }
    with trainlab.Run("beside", settings | {"margin": 3.0}, logs=logs, monitor=False) as run:
        run.log({"val/loss": 0.7, "test/f1": 0.5, "test/recall": 0.5, "train/grad": 1, "train/lr": 1}, STEPS)
    with trainlab.Run("drawn", settings | {"margin": 5.0}, metrics=["val/loss"], logs=logs) as run:
        for step in range(STEPS):
            run.log({"train/loss": 1 / (step + 1)}, step)
        run.log({"val/loss": 0.5, "val_tfidf/loss": 0.9}, STEPS)
        run.log_histogram("views/distances", random.normal(size=POINTS), STEPS)
        run.log_embedding("titles", random.normal(size=(POINTS, 8)), titles, ["title", "category"], STEPS)


@pytest.fixture
def page() -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def as_bytes(frame: str | bytes) -> bytes:
    return frame.encode() if isinstance(frame, str) else frame


def take_picture(page: Page, name: str) -> None:
    if folder := os.environ.get("TRAINLAB_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_jupyterlab_opens_with_the_token_and_runs_a_cell_of_the_news_notebook(
    stack: Project, page: Page
) -> None:
    open_with_kernel(page, f"{stack.jupyter}/lab/tree/notebooks/news.ipynb?token={stack.token}")
    notebook = page.locator(".jp-Notebook")
    cell = notebook.locator(".jp-CodeCell").first
    cell.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    cell.locator(".jp-InputPrompt").get_by_text("[1]:").wait_for()
    take_picture(page, "jupyterlab")
    assert notebook.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0
    assert page.get_by_text("Jupyter news").count() == 0, "JupyterLab asks to call home"


def test_the_attention_notebook_draws_its_views_with_no_request_to_the_outside(
    stack: Project, page: Page
) -> None:
    outside = keep_inside(page)
    cells = run_all(stack, page, "attention")
    # JupyterLab follows what runs, and draws what is in sight: the end first, then the views
    cells.last.locator("img").first.wait_for(timeout=120_000)
    take_picture(page, "attention-heads")
    for view, cell in (("head", cells.nth(2)), ("model", cells.nth(3)), ("neuron", cells.nth(4))):
        cell.scroll_into_view_if_needed()
        drawing = cell.frame_locator("iframe").locator("svg").first
        drawing.locator("line").first.wait_for(state="attached")
        assert drawing.locator("text").count() > 0
        take_picture(page, f"attention-{view}")
        hint = cell.locator(".trainlab-untrusted")
        assert hint.count() == 1
        assert not hint.is_visible()
    assert page.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0
    assert outside == []


def test_a_view_in_a_notebook_that_is_not_trusted_says_how_to_see_it(stack: Project, page: Page) -> None:
    data = {"text/html": views.HINT + views.frame("<p>drawn</p>", 100), "text/plain": "a view"}
    cell = nbformat.v4.new_code_cell("look()", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("display_data", data)]
    folder = stack.folder / "logs" / "drawn"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "executed.ipynb")
    notebook = "lab/workspaces/untrusted/tree/logs/drawn/executed.ipynb?reset"
    page.goto(f"{stack.jupyter}/{notebook}&token={stack.token}")
    hint = page.locator(".jp-OutputArea p")
    hint.wait_for()
    assert "choose Trust Notebook" in hint.inner_text()
    assert hint.is_visible()
    assert page.locator(".jp-OutputArea iframe").count() == 0
    take_picture(page, "attention-untrusted")


def test_the_comparing_notebook_draws_curves_to_choose_from_with_no_request_to_the_outside(
    stack: Project, page: Page
) -> None:
    outside = keep_inside(page)
    for loss in (0.5, 0.25):
        with trainlab.Run(
            "compared", {"margin": 8 * loss}, metrics=["val/loss"], logs=stack.folder / "logs", monitor=False
        ) as run:
            for step in range(POINTS):
                run.log({"val/loss": loss, "train/loss": loss / (step + 1)}, step)
    cells = run_all(stack, page, "compare")
    cells.last.locator("table").first.wait_for(timeout=120_000)
    curves, lines = cells.nth(3), cells.nth(4)
    for picture, name in ((curves, "compare-curves"), (lines, "compare-parallel")):
        picture.scroll_into_view_if_needed()
        picture.locator(".vega-embed canvas, .vega-embed svg").first.wait_for()
        take_picture(page, name)
    choices = curves.locator(".vega-embed select")
    for number, choice in enumerate(["0.9", "minutes running"]):
        choices.nth(number).select_option(choice)
    take_picture(page, "compare-chosen")
    assert lines.locator(".vega-embed input[type=range]").get_attribute("max") == "2"
    assert page.locator(".jp-RenderedText[data-mime-type*='error'], .jp-RenderedVega pre").count() == 0
    assert outside == []


WIDGETS = (
    "%matplotlib widget\nimport ipywidgets\nimport matplotlib.pyplot as plt\nfrom tqdm.notebook import tqdm",
    "for _ in tqdm(range(20), desc='counted'):\n    pass",
    "figure, axes = plt.subplots(figsize=(4, 2))\naxes.plot([1, 3, 2]);",
    "ipywidgets.IntSlider(description='slid')",
)


def test_bars_figures_and_sliders_that_move_are_drawn_without_a_warning(stack: Project, page: Page) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in WIDGETS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, stack.folder / "notebooks/widgets.ipynb")
    outside = keep_inside(page)
    cells = run_all(stack, page, "widgets")
    cells.nth(3).locator(".widget-slider").wait_for(timeout=120_000)
    cells.nth(1).locator(".jupyter-widgets").get_by_text("counted: 100%").wait_for()
    cells.nth(2).locator(".jupyter-matplotlib-canvas-container canvas").first.wait_for()
    take_picture(page, "widgets")
    assert page.locator(".jp-RenderedText[data-mime-type*='stderr'], [data-mime-type*='error']").count() == 0
    assert outside == []
    stack.make("run", "ARGS=widgets")
    (log,) = stack.folder.glob("logs/widgets/*/output.log")
    assert "arning" not in log.read_text()


def open_with_kernel(page: Page, address: str) -> None:
    """Open a notebook and wait until its kernel answers: before, JupyterLab asks which one is meant."""
    with page.expect_websocket(lambda socket: "/channels" in socket.url) as kernel:
        page.goto(address)
    kernel.value.wait_for_event("framereceived", lambda frame: b"kernel_info_reply" in as_bytes(frame))


def run_all(stack: Project, page: Page, name: str) -> Locator:
    """Open a notebook, start all its cells, and return those with code."""
    # a workspace of its own: JupyterLab's default one would open the notebooks of other tests beside it
    notebook = f"lab/workspaces/{name}/tree/notebooks/{name}.ipynb?reset"
    open_with_kernel(page, f"{stack.jupyter}/{notebook}&token={stack.token}")
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    return page.locator(".jp-Notebook .jp-CodeCell")


def test_run_headless_saves_the_notebook_and_opens_its_form(stack: Project, page: Page) -> None:
    file = stack.folder / "notebooks" / "Mine & yours.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cell = nbformat.v4.new_code_cell("epochs = 1")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), file)
    asked = []

    def form(route: Route) -> None:
        asked.append(nbformat.read(file, 4).cells[0].source)  # as the board finds it
        route.fulfill(body="<title>the form</title>", content_type="text/html")

    page.context.route("**/board/start?*", form)
    notebook = "lab/workspaces/headless/tree/notebooks/Mine%20%26%20yours.ipynb?reset"
    page.goto(f"{stack.jupyter}/{notebook}&token={stack.token}")
    button = page.get_by_title("Run headless: choose settings, then it runs on without this browser")
    button.wait_for()
    typed = page.locator(".jp-Notebook .cm-content").first
    typed.wait_for()
    take_picture(page, "run-headless")
    for number, click in enumerate(
        (
            button.click,
            lambda: in_menu(page, "Run", "Run headless"),
            lambda: in_palette(page, "Run headless"),
        )
    ):
        typed.click()
        page.keyboard.press("Control+a")
        page.keyboard.type(f"epochs = {number}")
        with page.context.expect_page() as opened:
            click()
        opened.value.wait_for_url("**/board/start?*")
        address = urlsplit(opened.value.url)
        assert address.query == "notebook=Mine%20%26%20yours.ipynb"
        assert address.path == urlsplit(page.url).path.partition("lab/")[0] + "board/start"
        assert opened.value.evaluate("window.opener") is None
        opened.value.close()
    assert asked == ["epochs = 0", "epochs = 1", "epochs = 2"]


def in_menu(page: Page, menu: str, entry: str) -> None:
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.get_by_role("menuitem", name=entry, exact=True).click()


def in_palette(page: Page, entry: str) -> None:
    page.keyboard.press("Control+Shift+c")
    page.keyboard.type(entry)
    page.keyboard.press("Enter")


def keep_inside(page: Page) -> list[str]:
    """Refuse every request of a page but those to this machine; return the list in which they gather."""
    refused: list[str] = []

    def answer(route: Route) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            refused.append(route.request.url)
            route.abort()

    page.route("**/*", answer)
    return refused


class Listener(BaseHTTPRequestHandler):
    """What another user of the machine listens with: writes down the cookies that it is sent."""

    cookies: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.cookies.append(self.headers.get("Cookie"))
        self.send_response(302 if self.path == "/lure" else 200)
        if self.path == "/lure":
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/lab")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_no_other_port_of_the_address_is_sent_a_cookie_of_jupyterlab(stack: Project, page: Page) -> None:
    page.goto(f"{stack.jupyter}/lab?token={stack.token}")
    page.locator(".jp-LabShell").wait_for()
    own = page.context.cookies()
    assert {cookie["path"] for cookie in own} == {urlsplit(page.url).path.partition("lab")[0]} != {"/"}
    assert page.url.startswith(f"{stack.jupyter}/")
    server = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for host in ("127.0.0.1", "localhost"):
            for path in ("/", "/lab", "/api/contents", "/lure"):
                page.goto(f"http://{host}:{server.server_port}{path}")
                page.evaluate("path => fetch(path, {credentials: 'include'})", path)
    finally:
        server.shutdown()
        server.server_close()
    assert len(Listener.cookies) >= 16
    assert set(Listener.cookies) == {None}


def test_jupyterlab_without_a_token_shows_the_login_page_alone(stack: Project, page: Page) -> None:
    page.goto(f"{stack.jupyter}/lab")
    page.get_by_text("Token authentication is enabled").wait_for()
    assert page.locator("#jupyterlab-splash, .jp-LabShell").count() == 0


@pytest.mark.parametrize("address", ["", "?runFilter=drawn"])
def test_tensorboard_s_first_screen_shows_both_losses_of_runs_with_a_test(
    stack: Project, page: Page, address: str
) -> None:
    page.goto(f"{stack.tensorboard}/{address}#timeseries")
    page.get_by_text("2 cards", exact=True).first.wait_for()  # the pinned ones
    for tag in ("train/loss", "val/loss"):
        curve = page.locator("card-view").filter(has_text=tag).first
        curve.wait_for()
        box = curve.bounding_box()
        assert box["y"] + box["height"] < page.viewport_size["height"], tag


def test_tensorboard_draws_the_curve_of_a_run(stack: Project, page: Page) -> None:
    page.goto(f"{stack.tensorboard}/?runFilter=drawn#timeseries")
    last_step = page.locator("tb-data-table-content-cell").get_by_text(f"{STEPS - 1:,}", exact=True)
    last_step.first.wait_for()
    take_picture(page, "tensorboard-scalars")


def test_tensorboard_keeps_every_point_of_a_curve(stack: Project, page: Page) -> None:
    run = next(stack.folder.glob("logs/drawn/*/run.json")).parent.name
    query = f"run=drawn/{run}&tag=train/loss"
    answer = page.request.get(f"{stack.tensorboard}/data/plugin/scalars/scalars?{query}")
    assert len(answer.json()) == STEPS


def test_tensorboard_lists_first_what_differs_and_the_validation_loss(stack: Project, page: Page) -> None:
    page.goto(f"{stack.tensorboard}/#hparams")
    table = page.locator("tf-hparams-table-view, hparams-dashboard, tf-hparams-main").first
    table.wait_for()
    page.get_by_text("0.50000").first.wait_for()
    columns = page.locator(".table-header").all_inner_texts()
    assert columns[2:4] == ["margin", "learning_rate"], "what differs, then the learning rate"
    assert columns[7] == "val/loss", "the first metric"
    take_picture(page, "tensorboard-hparams")


def test_tensorboard_projects_the_embeddings_of_a_run(stack: Project, page: Page) -> None:
    page.goto(f"{stack.tensorboard}/#projector")
    projector = page.frame_locator("iframe").frame_locator("iframe")
    projector.get_by_text(f"Points: {POINTS}").first.wait_for()
    projector.get_by_text("Dimension: 8").first.wait_for()
    take_picture(page, "tensorboard-projector")
