from __future__ import annotations

from trainlab.runs.compare.layout import layout


def test_of_several_runs_each_tag_has_its_panel():
    found = layout(["a", "b"], ["val/loss", "train/loss"])
    assert found == (["val/loss", "train/loss"], ["a", "b"], {"val/loss": (0, 0), "train/loss": (1, 0)})


def test_of_one_run_tags_of_one_name_share_a_panel():
    found = layout(["a"], ["val/loss", "train/loss", "val/mrr", "lr"])
    assert found.panels == ["loss", "mrr", "lr"]
    assert found.lines == ["val", "train", "a"]
    assert found.places["train/loss"] == (0, 1)
    assert found.places["lr"] == (2, 2)
    assert layout(["a"], []) == ([], [], {})
