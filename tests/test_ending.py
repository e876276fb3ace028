"""Waiting for what was asked to end."""

from __future__ import annotations

import pytest

from trainlab import ending


def test_what_has_ended_can_be_asked_again(tmp_path):
    said = iter("ab")
    assert [ending.ended({tmp_path: lambda: next(said)}) for _ in range(2)] == ["a", "b"]


def test_a_fault_of_ours_is_no_refusal(tmp_path):
    with pytest.raises(ZeroDivisionError):
        ending.ended({tmp_path: lambda: str(1 / 0)})
