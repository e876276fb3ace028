"""What the tests of headless runs share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headless import Lab, processes


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A project; whatever its tests started is ended."""
    lab = Lab(tmp_path)
    yield lab
    for process in processes(str(tmp_path)):
        process.kill()


@pytest.fixture
def here(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The same project, for calls in this process that start nothing."""
    monkeypatch.setenv("TRAINLAB_ROOT", str(lab.root))
    for name in ("LOGS", "NOTEBOOKS", "DATA"):
        monkeypatch.delenv(f"TRAINLAB_{name}", raising=False)
    return lab
