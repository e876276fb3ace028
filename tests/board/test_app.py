"""Every form is one of a page of the board; whatever goes wrong is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from fastapi import APIRouter
from fastapi.testclient import TestClient

from trainlab.board import app as module
from trainlab.board.pages import XSRF, Board
from trainlab.errors import UserError

REFUSED = "This form is not from a page of this board"


class Page:
    """A page with an action that is noted, one that is refused, and one that fails."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def router(self, board: Board) -> APIRouter:
        routes = APIRouter()

        @routes.post("/do")
        def do() -> str:
            self.done.append("done")
            return "done"

        @routes.get("/refused")
        def refused() -> None:
            raise UserError("Not <b>now</b>.")

        @routes.get("/failing")
        def failing() -> None:
            raise RuntimeError("a secret of the inside")

        return routes


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    page = Page()
    monkeypatch.setattr(module, "PAGES", (*module.PAGES, page))
    return page


@pytest.fixture
def client(tmp_path: Path, page: Page) -> TestClient:
    return TestClient(module.application(tmp_path), raise_server_exceptions=False)


def token(client: TestClient) -> str:
    """Open a page, which sets the cookie; return what its forms bring."""
    client.get("/")
    return client.cookies[XSRF]


def test_an_action_needs_what_a_page_of_the_board_has_told(client: TestClient, page: Page) -> None:
    told = token(client)
    assert client.post("/do", data={XSRF: told}).status_code == 200
    assert client.post("/do", headers={"X-XSRFToken": told}).status_code == 200
    assert page.done == ["done", "done"]


@pytest.mark.parametrize("given", [{}, {XSRF: ""}, {XSRF: "another"}, {"other": "field"}])
def test_an_action_without_it_does_nothing(client: TestClient, page: Page, given: dict[str, str]) -> None:
    token(client)
    answer = client.post("/do", data=given)
    assert (answer.status_code, REFUSED in answer.text, page.done) == (400, True, [])


def test_a_word_without_its_cookie_does_nothing(client: TestClient, page: Page) -> None:
    told = token(client)
    client.cookies.clear()
    assert REFUSED in client.post("/do", data={XSRF: told}).text
    assert REFUSED in client.post("/do", data={XSRF: ""}).text
    assert not page.done


def test_a_file_in_an_action_is_refused(client: TestClient, page: Page) -> None:
    told = token(client)
    answer = client.post("/do", data={XSRF: told}, files={"file": b"much"})
    assert answer.status_code >= 400
    assert not page.done


def test_a_refusal_is_a_page_with_its_sentence_and_no_markup_of_it(client: TestClient) -> None:
    answer = client.get("/refused")
    assert answer.status_code == 400
    assert "Not &lt;b&gt;now&lt;/b&gt;." in answer.text


def test_a_refusal_for_htmx_is_the_sentence_alone(client: TestClient) -> None:
    answer = client.get("/refused", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.text) == (400, "Not <b>now</b>.")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/nowhere", "/static/..%2Fapp.py", "/static/nothing.js"])
def test_what_is_not_there_is_said(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert "no such page" in answer.text or "no file" in answer.text


def test_where_there_is_no_such_file_all_links_are_the_board_s(tmp_path: Path) -> None:
    client = TestClient(module.application(tmp_path), root_path="/secret")
    answer = client.get("/secret/static/nothing.js")
    assert answer.status_code == 404
    assert 'href="/secret/compare"' in answer.text
    assert "Path=/secret/;" in answer.headers["set-cookie"]


def test_a_fault_of_ours_tells_no_inside(client: TestClient) -> None:
    answer = client.get("/failing")
    assert answer.status_code == 500
    assert "secret of the inside" not in answer.text
    assert "The board failed here" in answer.text


def test_the_cookie_of_forms_holds_for_the_board_s_path_alone(tmp_path: Path) -> None:
    client = TestClient(module.application(tmp_path), root_path="/secret")
    cookie = client.get("/secret/").headers["set-cookie"]
    assert "Path=/secret/" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


@pytest.mark.parametrize("name", ["htmx.min.js", "uPlot.iife.min.js", "board.js", "board.css"])
def test_what_pages_load_is_served_here(client: TestClient, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 200
