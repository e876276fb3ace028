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
