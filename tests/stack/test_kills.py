"""Forty of the thousand kills of benchmarks/kills.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from project import CHECKOUT, clean_environment

KILLS = 40


@pytest.mark.slow
def test_forty_kills_lose_no_run_and_leave_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, CHECKOUT / "benchmarks/kills.py", "--kills", str(KILLS)]
    done = subprocess.run(
        [*command, "--output", tmp_path / "kills.md"],
        env=clean_environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{KILLS} SIGKILLs" in done.stdout
    assert "Lost: 0 runs" in (tmp_path / "kills.md").read_text()
