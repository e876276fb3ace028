"""A command that goes on by itself, and what is said where it does not."""

from __future__ import annotations

import os

import pytest

from trainlab import detaching
from trainlab.errors import UserError


def test_a_command_that_ends_at_once_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINLAB_LOGS", str(tmp_path / "logs"))
    output = tmp_path / "output.log"
    output.write_text("error: of an earlier start\n")
    with pytest.raises(UserError) as refused:
        detaching.start(["sweep", "show", "none"], output)
    assert str(refused.value).startswith("It has ended at once: No sweep 'none' in ")
    assert str(refused.value).endswith(f"All that it said: {output}")
    assert output.read_text().startswith("error: of an earlier start\nerror: No sweep")


def test_what_it_prints_is_put_into_no_link(tmp_path):
    (tmp_path / "output.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"output\.log"):
        detaching.start(["--help"], tmp_path / "output.log")
    assert not (tmp_path / "elsewhere").exists()


def test_the_first_sign_is_given_once_and_to_nobody_else(monkeypatch):
    waits, sign = os.pipe()
    monkeypatch.setenv(detaching.SIGN, str(sign))
    given = detaching.FirstSign()
    assert detaching.SIGN not in os.environ, "no trial is to have it"
    given.give()
    given.give()
    assert os.read(waits, 9) == b"1"
    os.close(waits)
    detaching.FirstSign().give()
