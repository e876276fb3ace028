from __future__ import annotations

from compared_runs import row
from trainlab.runs.grouping import titled


def test_runs_stand_in_groups_in_the_order_of_their_first_and_apart_by_split_where_they_are_ranked():
    rows = [
        row("a", loss=1.0, config={"split": "item"}),
        row("b", "words", loss=2.0, config={"split": "item"}),
        row("c", loss=3.0, config={"split": "triplet"}),
        row("d", config={"split": "item"}),
        row("e", loss=4.0, config={"split": "item"}),
    ]
    assert [(title, each.run) for title, each in titled(rows, "experiment")] == [
        *[("news", name) for name in "acde"],
        ("words", "b"),
    ]
    assert [(title, each.run) for title, each in titled(rows, "experiment", "best.val/loss")] == [
        ("news · split item", "a"),
        ("news · split item", "e"),
        ("news · split triplet", "c"),
        ("news · without val/loss", "d"),
        ("words · split item", "b"),
    ]
    assert {title for title, _ in titled(rows, "", "config.split")} == {""}
    assert [title for title, _ in titled(rows, "data")] == [*["split item"] * 4, "split triplet"]
