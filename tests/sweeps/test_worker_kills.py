"""Fifty of the kills of benchmarks/sweeps_kills.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from project import CHECKOUT, clean_environment

KILLS = 50


@pytest.mark.slow
def test_fifty_kills_leave_each_trial_complete_once(tmp_path: Path) -> None:
    command = [sys.executable, CHECKOUT / "benchmarks/sweeps_kills.py", "--kills", str(KILLS)]
    done = subprocess.run(
        [*command, "--output", tmp_path / "kills.md"],
        env=clean_environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "kills.md").read_text()
    assert "33 of 33 trials" in table
