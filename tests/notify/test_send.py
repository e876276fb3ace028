"""Bringing messages to channels, of which some hang, refuse, or are not there."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from message_server import serving
from trainlab import secrets
from trainlab.notify import channel, send
from trainlab.notify.news import News
from trainlab.notify.send import Channel, Sending, addresses, kind
from trainlab.notify.watch import Waiting
from waiting import until

pytest.importorskip("apprise")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(secrets, "_told", set())


def waiting(*names: str, channels=(0,), age: float = 0.0) -> list[Waiting]:
    at = time.time() - age
    return [
        Waiting(news=News(kind="end", name=name, status="finished", at=at), channels=list(channels))
        for name in names
    ]


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_addresses_are_parted_by_blanks_or_commas_that_stand_before_one():
    assert addresses("slack://a/b, mailto://me:pw@example.org?to=x@y.z,a@b.c\n ntfy://t,") == [
        "slack://a/b",
        "mailto://me:pw@example.org?to=x@y.z,a@b.c",
        "ntfy://t",
    ]
    assert addresses(" \n") == []
    assert (kind("Slack://token/x"), kind("secret-word")) == (
        "slack://…",
        "no address (expected such as ntfy://…)",
    )


def test_the_addresses_leave_the_environment_and_are_hidden_in_all_texts(monkeypatch):
    monkeypatch.setenv("NOTIFY", "slack://T0K3Naaaa/T0K3Nbbbb,json://127.0.0.1:1/x")
    assert len(send.taken()) == 2
    assert "NOTIFY" not in os.environ
    shown = secrets.without_secrets("to slack://T0K3Naaaa/T0K3Nbbbb by T0K3Nbbbb at 127.0.0.1")
    assert shown == "to *** by *** at 127.0.0.1"


def test_a_message_arrives_as_text():
    with serving() as server:
        assert Sending(server.address(), "trainlab: <b> finished", "a & b\nc").wait() == channel.SENT
    (message,) = server.messages
    assert (message["title"], message["message"]) == ("trainlab: <b> finished", "a & b\nc")


@pytest.mark.parametrize(
    ("answer", "code"), [(500, channel.REFUSED + 5), (403, channel.REFUSED + 4), (302, channel.REFUSED + 3)]
)
def test_what_a_server_answers_is_told_by_its_first_digit(answer, code):
    with serving(answer) as server:
        assert Sending(server.address(), "title", "body").wait() == code


def test_what_is_no_address_and_a_server_that_is_down_are_codes():
    assert Sending("secret-word", "title", "body").wait() == channel.NOT_UNDERSTOOD
    assert Sending(f"json://127.0.0.1:{closed_port()}/x", "title", "body").wait() == channel.FAILED


def test_a_server_that_hangs_is_given_up_and_stops_no_other_channel():
    with serving(None) as hanging, serving() as good:
        items = waiting("news/run", channels=(0, 1))
        said: list[str] = []
        channels = [Channel(0, hanging.address(), said.append), Channel(1, good.address(), said.append)]

        def sent() -> bool:
            before = time.monotonic()
            for each in channels:
                each.go_on(items, time.time())
            assert time.monotonic() - before < 2, "it waited"
            return items[0].channels == [0]

        until(sent, "the good one has it")
        assert good.messages[0]["message"] == "news/run: finished"
        slow = Sending(hanging.address(), "title", "body", patience=0.2)
        assert until(slow.code, "given up", 10) == channel.FAILED
        for each in channels:
            each.end(items)
        assert items[0].channels == [0], "it waits for the next watcher"


def test_a_channel_that_fails_is_tried_again_with_growing_pauses_and_says_so_once(monkeypatch):
    monkeypatch.setattr(send, "_FIRST_PAUSE", 0.2)
    with serving(500) as server:
        said: list[str] = []
        one, items = Channel(0, server.address("T0pSecret99"), said.append), waiting("news/run")

        def asked(times: int) -> None:
            def enough() -> bool:
                one.go_on(items, time.time())
                return server.asked >= times

            until(enough, f"{times} attempts")

        asked(1)
        began = time.monotonic()
        asked(4)
        assert time.monotonic() - began >= 0.2 + 0.4 + 0.8
        server.answer = 200

        def sent() -> bool:
            one.go_on(items, time.time())
            return not items[0].channels

        until(sent, "sent in the end")
    assert len(server.messages) == 1
    assert len(said) == 2
    assert "5xx" in said[0]
    assert "T0pSecret99" not in "".join(said)


def test_what_happens_meanwhile_is_one_message(monkeypatch):
    monkeypatch.setattr(send, "PAUSE", 1.0)
    with serving() as server:
        one, items = Channel(0, server.address(), print), waiting("news/first")

        def told(count: int) -> bool:
            one.go_on(items, time.time())
            return len(server.messages) >= count and not items[-1].channels

        until(lambda: told(1), "the first")
        items += waiting(*(f"news/{number}" for number in range(25)))
        until(lambda: told(2), "the rest")
    assert [each["title"] for each in server.messages] == [
        "trainlab: news/first finished",
        "trainlab: 25 finished",
    ]
    assert "and 15 more" in server.messages[1]["message"]


def test_what_is_too_old_is_counted_and_dropped():
    with serving() as server:
        one = Channel(0, server.address(), print)
        items = waiting("news/old", age=send.OLDEST + 1) + waiting("news/new")

        def sent() -> bool:
            one.go_on(items, time.time())
            return not items[1].channels

        until(sent, "the new one")
    assert items[0].channels == []
    assert server.messages[0]["message"].splitlines() == [
        "news/new: finished",
        "1 earlier messages could not be sent: trainlab runs",
    ]


def test_the_process_that_sends_has_the_address_neither_in_its_command_nor_in_its_environment(monkeypatch):
    with serving(None) as server:
        address = server.address("T0pSecret99")
        monkeypatch.setenv("NOTIFY", address)
        sending = Sending(address, "title", "body", patience=20)
        until(lambda: server.asked, "the server is asked")
        place = Path(f"/proc/{sending._process.pid}")
        assert b"T0pSecret99" not in (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
        sending.wait(0)
