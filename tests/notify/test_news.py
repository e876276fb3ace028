"""What is told, and what is kept back from it."""

from __future__ import annotations

import pytest

from trainlab.notify import news
from trainlab.notify.news import News


def of(name: str = "news/run", status: str = "failed", **fields) -> News:
    return News(**{"kind": "end", "name": name, "status": status, "at": 1.0} | fields)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("FileNotFoundError: '/home/ann/My data/x.csv' is missing", "FileNotFoundError: … is missing"),
        ("no such file: data/mind.zip", "no such file: …"),
        ("/workspace/logs/a b: full", "… b: full"),
        ("~/keys/x and ../y and C:\\Users\\ann", "… and … and …"),
        ("https://user:pw@hub.example.org/x?token=abc can't be reached", "… can't be reached"),
        ("val/loss is 3 images/s and/or worse", "val/loss is 3 images/s and/or worse"),
        ("two\nlines\tand \x1b[31mred\u202e", "two lines and ?(31mred?"),
    ],
)
def test_a_reason_is_told_without_paths_addresses_and_what_steers(reason, told):
    assert of(reason=reason).reason == told


def test_a_name_is_no_markup_no_mention_and_no_link_in_a_chat():
    name = of("news/<!channel> @everyone [x](http://evil.example) `rm` |").name
    assert not set(name) & set("<>[]@`|")
    assert "://" not in name
    assert "\n" not in of("a\nb").name


def test_a_secret_of_the_environment_is_not_told(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    assert "0123456789abcdef" not in news.message([of(reason="refused: 0123456789abcdef")])[1]


def test_ten_kilobytes_of_a_name_are_cut_and_a_message_stays_short():
    title, body = news.message([of("x" * 10_000, reason="a/" * 5_000) for _ in range(50)])
    assert len(title) < 200
    assert len(body) < 10_000
    assert body.splitlines()[-1] == "and 40 more: trainlab runs"


def test_failed_trials_of_one_sweep_share_a_line():
    trials = [of(f"news/t{number}", sweep="lr", reason="CUDA out of memory") for number in range(7)]
    title, body = news.message([*trials, of("news/mine", "finished", goal="val/loss 0.31 (best, step 7)")])
    assert title == "trainlab: 7 failed, 1 finished"
    assert body.splitlines() == [
        "news/mine: finished. val/loss 0.31 (best, step 7)",
        "sweep lr: 7 trials failed: CUDA out of memory (7 times)",
    ]


def test_what_could_not_be_sent_is_counted():
    assert "3 earlier messages could not be sent" in news.message([of()], lost=3)[1]
