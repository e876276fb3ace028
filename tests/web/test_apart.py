from __future__ import annotations

import math
import os
import sys
import time

import pytest

from trainlab import literals
from trainlab.errors import UserError
from trainlab.run import find
from trainlab.web import apart


def test_a_value_comes_from_a_process_of_its_own():
    assert apart.apart(math.hypot, 3, 4) == 5
    assert apart.apart(os.getpid) != os.getpid()


def test_what_it_prints_is_no_part_of_the_value():
    assert apart.apart(print, "printed") is None


def test_a_sentence_comes_back_as_one(tmp_path):
    with pytest.raises(UserError, match="is not there yet"):
        apart.apart(find.known, tmp_path / "none")


def test_what_takes_too_long_or_dies_is_a_sentence(monkeypatch, capfd):
    with pytest.raises(UserError, match="exit code 3"):
        apart.apart(sys.exit, 3)
    with pytest.raises(UserError, match="exit code 1"):
        apart.apart(literals.written)
    monkeypatch.setattr(apart, "PATIENCE", 1)
    began = time.monotonic()
    with pytest.raises(UserError, match="more than 1 seconds"):
        apart.apart(time.sleep, 60)
    assert time.monotonic() - began < 30
    assert "TypeError" in capfd.readouterr().err
