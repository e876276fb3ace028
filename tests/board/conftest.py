"""What tests of several pages need."""

from __future__ import annotations

import pytest


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each request look at the disk, and compute anew."""
    monkeypatch.setattr("trainlab.board.live.PAUSE", 0)
    monkeypatch.setattr("trainlab.runs.kept.PAUSES", 0)
