"""SECURITY.md names a test for each promise."""

from __future__ import annotations

import re

from project import CHECKOUT


def test_every_test_that_the_page_names_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (CHECKOUT / "SECURITY.md").read_text())
    assert len(named) > 10
    for file, name in named:
        assert f"\ndef {name}(" in (CHECKOUT / file).read_text(), f"{file}::{name}"
