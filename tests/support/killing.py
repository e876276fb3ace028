"""Runs some of the kills of a benchmark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from project import CHECKOUT, clean_environment


def kill(benchmark: str, kills: int, folder: Path) -> tuple[str, str]:
    """Run a benchmark of kills, which must end well; return what it prints, and its table."""
    table = folder / "kills.md"
    done = subprocess.run(
        [sys.executable, CHECKOUT / "benchmarks" / benchmark, "--kills", str(kills), "--output", table],
        env=clean_environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, table.read_text()
