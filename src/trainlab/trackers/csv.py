"""Every point of a run as a line of `metrics.csv` in its folder."""

from __future__ import annotations

import csv
import io
from typing import IO, TYPE_CHECKING

from trainlab import files, untrusted
from trainlab.cleaning import sheet
from trainlab.trackers import Point, Subject, Tracker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

FILE = "metrics.csv"
HEADER = ",".join(Point._fields) + "\n"


class Table(Tracker):
    """Appends to the file; a rewound run's file is written anew without the points taken back."""

    def start(self, subject: Subject) -> str:
        """Begin the file where there is none."""
        self._path = subject.folder / FILE
        self._file = self._opened()
        return ""

    def log(self, points: Sequence[Point]) -> None:
        """Append the points, on disk at once."""
        self._file.write(_lines(points))
        self._file.flush()

    def rewind(self, step: int) -> None:
        """Take the points at `step` and later out of the file."""
        self._file.close()
        kept = [point for point in read(self._path) if point.step < step]
        files.write(self._path, (HEADER + _lines(kept)).encode())
        self._file = self._opened()

    def finish(self, status: str, reason: str | None) -> None:  # noqa: ARG002 - run.json, beside it, has both
        """Close the file."""
        self._file.close()

    def _opened(self) -> IO[str]:
        file = io.TextIOWrapper(untrusted.appended(self._path), encoding="utf-8", newline="")
        if not file.tell():
            file.write(HEADER)
        return file


def read(path: Path) -> list[Point]:
    """Return a file's points; a line that a killed process left unfinished is none."""
    found = []
    with io.TextIOWrapper(untrusted.opened(path), encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if all(row.get(name) for name in Point._fields):
                found.append(Point(int(row["step"]), float(row["time"]), row["tag"], float(row["value"])))
    return found


def _lines(points: Iterable[Point]) -> str:
    text = io.StringIO()
    rows = (point._replace(tag=sheet(point.tag)) for point in points)
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


TRACKER = Table
