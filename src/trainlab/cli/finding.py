"""A finding of `trainlab doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Line:
    """One finding: `fix` says what to do where `level` is not ok."""

    subject: str
    level: Level
    found: str
    fix: str = ""
