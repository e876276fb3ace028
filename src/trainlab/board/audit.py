"""What was done by way of the board: a line of JSON for each action, in `logs/.board/audit.jsonl`.

It can't be a reason not to stop a run on a full disk: where it can't be written, the board's log says so.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trainlab import secrets, untrusted
from trainlab.errors import UserError, some
from trainlab.run import lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

FOLDER = ".board"  # in logs/, of the board's own files
FILE = "audit.jsonl"
LARGEST = 1 << 20  # bytes, from which on the file makes room for a new one; the one before is kept
LONGEST = 200  # characters of a text in a line
MOST = 50  # runs, and settings, in a line

log = logging.getLogger("trainlab.board")


@dataclass
class Line:
    """An action: whoever does it fills in what came of it, and the settings that were told."""

    action: str
    runs: Sequence[str]
    settings: Mapping[str, str] = field(default_factory=dict)
    outcome: str = ""


@contextmanager
def noted(logs: Path, action: str, runs: Sequence[str]) -> Iterator[Line]:
    """Write down what is done inside the block, and how it ended: also a refusal."""
    line = Line(action, runs)
    try:
        yield line
    except UserError as error:
        line.outcome = f"refused: {error}"
        raise
    except BaseException as error:
        line.outcome = f"failed: {type(error).__name__}"
        raise
    finally:
        try:
            _append(logs / FOLDER, line)
        except OSError as error:
            log.warning("%s of %s can't be written down: %s", action, some(runs), error)


def _append(place: Path, line: Line) -> None:
    settings = secrets.hidden(dict(list(line.settings.items())[:MOST]))
    told = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "action": line.action,
        "runs": [each[:LONGEST] for each in line.runs[:MOST]],
        "count": len(line.runs),
        "settings": {str(name)[:LONGEST]: str(value)[:LONGEST] for name, value in settings.items()},
        "outcome": secrets.without_secrets(line.outcome)[: 5 * LONGEST],
    }
    place.mkdir(parents=True, exist_ok=True)
    with lock.exclusive(place):
        path = place / FILE
        if path.exists() and path.stat().st_size > LARGEST:
            path.replace(path.with_stem("audit-before"))
        with untrusted.appended(path) as file:
            file.write(json.dumps(told).encode() + b"\n")
