"""How long a caller waits between two passwords."""

from __future__ import annotations

import importlib
import sys

import pytest

from project import CHECKOUT

sys.path.append(str(CHECKOUT / "jupyter"))
throttle = importlib.import_module("throttle")
FREE = 5  # wrong passwords of one caller without a wait


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def waits(clock):
    return throttle.Throttle(clock)


def guess(waits, caller: str, times: int, clock: Clock) -> list[float]:
    """Try a wrong password, each time as soon as it is looked at; return the waits before."""
    seconds = []
    for _ in range(times):
        seconds.append(waits.ask(caller))
        clock.now += seconds[-1]
        if seconds[-1]:
            assert waits.ask(caller) == 0
    return seconds


def test_a_few_are_free_then_each_wait_is_twice_the_one_before_up_to_five_minutes(waits, clock):
    assert guess(waits, "10.0.0.1", 18, clock) == [0] * FREE + [1, 2, 4, 8, 16, 32, 64, 128, 256, *[300] * 4]


def test_who_asks_too_early_waits_no_longer_for_it(waits, clock):
    guess(waits, "10.0.0.1", FREE + 3, clock)
    for _ in range(100):
        assert waits.ask("10.0.0.1") == 8
    clock.now += 8
    assert waits.ask("10.0.0.1") == 0


def test_many_at_once_are_counted_before_one_of_them_is_looked_at(waits):
    assert [waits.ask("10.0.0.1") for _ in range(FREE + 2)] == [0] * FREE + [1, 1]


def test_the_right_password_and_an_hour_end_every_wait(waits, clock):
    guess(waits, "10.0.0.1", FREE, clock)
    waits.right("10.0.0.1")
    assert waits.ask("10.0.0.1") == 0
    guess(waits, "10.0.0.2", 30, clock)
    clock.now += throttle.FORGET + 1
    assert guess(waits, "10.0.0.2", FREE + 1, clock) == [0] * FREE + [1]


def test_right_passwords_make_no_stranger_wait(waits):
    for number in range(60):
        assert waits.ask(f"10.1.0.{number}") == 0
        waits.right(f"10.1.0.{number}")
    for number in range(49):
        assert waits.ask(f"10.2.0.{number}") == 0
    waits.right("a-browser", known=True)
    assert [waits.ask("10.3.0.1"), waits.ask("10.3.0.2")] == [0, 1], "a known browser's takes no guess back"


def test_guesses_from_everywhere_slow_strangers_down_by_seconds_and_a_known_browser_not_at_all(waits, clock):
    for number in range(50):
        assert waits.ask(f"10.1.0.{number}") == 0
    waited = []
    for number in range(100):
        waited.append(waits.ask(f"10.2.0.{number}"))
        clock.now += waited[-1]
        assert waits.ask(f"10.3.0.{number}") == 0
    assert waited[:4] == [1, 2, 4, 5] and max(waited) == 5, "so the owner, too, waits for seconds"
    assert waits.ask("a-browser", known=True) == 0


def test_a_known_browser_that_guesses_waits_and_slows_down_nobody_else(waits, clock):
    assert [waits.ask("a-browser", known=True) for _ in range(FREE + 1)] == [0] * FREE + [1]
    for _ in range(60):
        clock.now += 300
        waits.ask("a-browser", known=True)
    assert waits.ask("10.0.0.1") == 0


def test_callers_are_remembered_up_to_a_number(waits, clock, monkeypatch):
    monkeypatch.setattr(throttle, "CALLERS", 10)
    for number in range(100):
        clock.now += 10
        waits.ask(f"10.0.0.{number}")
    assert len(waits._callers) == 10


@pytest.mark.parametrize(
    ("address", "counts_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", "unknown"),
        ("evil\n2026 a wrong password", "unknown"),
    ],
)
def test_of_an_address_of_ipv6_its_household_counts(address, counts_as):
    assert throttle.caller(address) == counts_as
