"""How much is read, how many wait, and for how long anybody is waited for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("prometheus_client")

from trainlab.serving.counts import Counts
from trainlab.serving.engine import Engine
from trainlab.web import limits
from trainlab.web.limits import WAITING, Limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Client:
    """One request, its body in parts that come when they are put, and what was answered."""

    def __init__(self, path: str = "/api", *parts: bytes, whole: bool = True) -> None:
        self.path, self.answered = path, []
        self.parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for part in parts:
            self.parts.put_nowait({"type": "http.request", "body": part, "more_body": True})
        if whole:
            self.end()

    def end(self) -> None:
        self.parts.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    async def asks(self, app: Any) -> Client:
        scope = {"type": "http", "path": self.path, "method": "POST", "headers": [(b"host", b"localhost")]}
        await app(scope, self.parts.get, self.take)
        return self

    async def take(self, message: dict[str, Any]) -> None:
        self.answered.append(message)

    @property
    def status(self) -> int:
        return self.answered[0]["status"]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.answered[0]["headers"])


def limited(go: asyncio.Event | None = None) -> tuple[Limits, Counts]:
    """Return an application that answers once it may, behind its limits."""

    async def app(
        scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[..., Awaitable[None]]
    ) -> None:
        body = (await receive())["body"]
        if go is not None and scope["path"] not in limits.OPEN:
            await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    counts = Counts(Engine())
    return Limits(app, counts, lambda status, sentence: sentence), counts


def test_one_more_than_may_wait_is_asked_to_come_again() -> None:
    async def story() -> None:
        go = asyncio.Event()
        app, counts = limited(go)
        waiting = [asyncio.create_task(Client().asks(app)) for _ in range(WAITING)]
        await asyncio.sleep(0)
        while b"serve_waiting 64.0" not in counts.text():
            await asyncio.sleep(0)
        late = await Client().asks(app)
        assert (late.status, late.headers[b"retry-after"]) == (503, b"1")
        assert [(await Client(path).asks(app)).status for path in limits.OPEN] == [200, 200]
        go.set()
        assert {(await each).status for each in waiting} == {200}
        assert (await Client().asks(app)).status == 200
        assert b"serve_waiting 0.0" in counts.text()

    asyncio.run(story())


def test_who_sends_slowly_does_not_count_as_waiting_and_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PATIENCE", 0.2)

    async def story() -> None:
        app, _ = limited()
        slow = [asyncio.create_task(Client("/api", b"{", whole=False).asks(app)) for _ in range(2 * WAITING)]
        await asyncio.sleep(0)
        assert (await Client().asks(app)).status == 200
        assert {(await each).status for each in slow} == {408}

    asyncio.run(story())


def test_of_too_many_that_send_at_once_the_one_that_sends_for_the_longest_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "READING", 2)

    async def story() -> None:
        app, _ = limited()
        clients = [Client("/api", whole=False) for _ in range(3)]
        tasks = []
        for each in clients:
            tasks.append(asyncio.create_task(each.asks(app)))
            await asyncio.sleep(0)
        assert (await tasks[0]).status == 408
        for each in clients[1:]:
            each.end()
        assert [(await each).status for each in tasks[1:]] == [200, 200]

    asyncio.run(story())


def test_each_of_many_that_come_at_once_ends_one_even_where_that_one_is_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "READING", 3)

    async def story() -> None:
        app, _ = limited()
        slow = [asyncio.create_task(Client("/api", whole=False).asks(app)) for _ in range(3)]
        await asyncio.sleep(0)
        clients = [Client(whole=False) for _ in range(2)]
        next(iter(app._reading)).reschedule(0)  # its patience is over
        new = [asyncio.create_task(each.asks(app)) for each in clients]
        assert [(await asyncio.wait_for(each, 10)).status for each in slow[:2]] == [408, 408]
        for each in clients:
            each.end()
        assert {(await each).status for each in new} == {200}
        slow[2].cancel()

    asyncio.run(story())


def test_all_requests_together_take_a_bounded_memory_and_the_slowest_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "BODIES", 100)

    async def story() -> None:
        app, _ = limited()
        clients = [Client("/api", bytes(40), whole=False) for _ in range(2)]
        slow = [asyncio.create_task(each.asks(app)) for each in clients]
        await asyncio.sleep(0)
        assert (await Client("/api", bytes(30)).asks(app)).status == 200
        assert (await slow[0]).status == 408
        clients[1].end()
        assert (await slow[1]).answered[1]["body"] == bytes(40)
        assert (await Client("/api", bytes(90)).asks(app)).status == 200

    asyncio.run(story())


def test_one_that_is_ended_frees_what_was_held_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "BODIES", 100)

    async def story() -> None:
        app, _ = limited()
        assert (await Client("/api", bytes(60), bytes(60)).asks(app)).status == 408
        assert (await Client("/api", bytes(60), bytes(40)).asks(app)).status == 200

    asyncio.run(story())


def test_a_client_that_goes_in_the_middle_frees_its_place() -> None:
    async def story() -> None:
        app, _ = limited()
        gone = Client("/api", b"{", whole=False)
        gone.parts.put_nowait({"type": "http.disconnect"})
        assert (await gone.asks(app)).status == 400
        assert (await Client().asks(app)).status == 200

    asyncio.run(story())


def test_a_client_that_takes_no_answer_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PATIENCE", 0.1)

    async def story() -> None:
        app, counts = limited()
        deaf = Client()
        deaf.take = lambda _: asyncio.Event().wait()  # type: ignore[method-assign,assignment,return-value]
        await deaf.asks(app)
        assert b"serve_waiting 0.0" in counts.text()
        assert b'status="499"' in counts.text()

    asyncio.run(story())


def test_when_it_ends_each_answer_ends_its_connection() -> None:
    async def story() -> None:
        app, _ = limited()
        assert b"connection" not in (await Client().asks(app)).headers
        app.closing = True
        assert (await Client().asks(app)).headers[b"connection"] == b"close"

    asyncio.run(story())
