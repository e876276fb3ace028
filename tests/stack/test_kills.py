"""Forty of the thousand kills of benchmarks/kills.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from killing import kill

KILLS = 40


@pytest.mark.slow
def test_forty_kills_lose_no_run_and_leave_nothing_behind(tmp_path: Path) -> None:
    said, table = kill("kills.py", KILLS, tmp_path)
    assert f"{KILLS} SIGKILLs" in said
    assert "Lost: 0 runs" in table
