"""Fifty of the kills of benchmarks/sweeps_kills.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from killing import kill

KILLS = 50


@pytest.mark.slow
def test_fifty_kills_leave_each_trial_complete_once(tmp_path: Path) -> None:
    _, table = kill("sweeps_kills.py", KILLS, tmp_path)
    assert "33 of 33 trials" in table
