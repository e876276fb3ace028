"""A sweep of small scripts, of which nothing is left after its test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sweeping import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Callable[..., Sweep]]:
    """Return a function that makes a sweep in the test's folder."""
    made: list[Sweep] = []

    def make(*words: Any, **fields: Any) -> Sweep:
        made.append(Sweep(tmp_path, *words, **fields))
        return made[-1]

    yield make
    for each in made:
        each.kill()
