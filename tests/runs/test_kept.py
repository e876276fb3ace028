from __future__ import annotations

import itertools

from compared_runs import row
from trainlab.runs import kept
from trainlab.runs.kept import Kept


def test_what_was_computed_of_the_same_rows_is_not_computed_again(monkeypatch):
    monkeypatch.setattr(kept, "PAUSES", 0)
    counter, known = itertools.count(), Kept(2)
    first, second = row("a"), row("a")
    assert [
        known.get("x", rows, lambda: next(counter)) for rows in ([first], [first], [second], [first, second])
    ] == [*(0, 0, 1, 2)]
    assert known.get("y", [], lambda: "of no rows") == "of no rows"


def test_the_value_that_nobody_has_asked_for_goes_first():
    known = Kept(2)
    for key in ("a", "b", "a", "c"):
        known.get(key, [], lambda key=key: f"first {key}")
    assert known.get("a", [], lambda: "again") == "first a"
    assert known.get("b", [], lambda: "again") == "again"


def test_what_takes_long_is_computed_seldom(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(kept.time, "monotonic", lambda: now[0])
    known = Kept(2)

    def slowly():
        now[0] += 2
        return now[0]

    assert known.get("x", [row()], slowly) == 2
    now[0] = 9.0
    assert known.get("x", [row()], slowly) == 2  # other rows, but too soon: it would take a fifth of a core
    now[0] = 10.5
    assert known.get("x", [row()], slowly) == 12.5
