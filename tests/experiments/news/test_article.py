"""What two notebooks call, beside `tests/test_notebooks.py`, which runs both whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.news.article import SETTINGS, ArticleConfig, TourConfig, series, train_and_kill
from experiments.news.config import NewsConfig
from experiments.news.data import read
from trainlab.errors import UserError


def triplet_count(sizes: list[int], class_size: int, triplets_per_item: int) -> int:
    drawn = [min(size, class_size) for size in sizes]
    return sum(items * min(triplets_per_item, items - 1) for items in drawn)


def small(tiny: NewsConfig, **changes: object) -> ArticleConfig:
    settings = {"data": tiny.data, "backbone": tiny.backbone, "batch_size": 64, "precision": "32-true"}
    return ArticleConfig.parse(settings | changes)


def test_the_settings_are_those_of_the_table_and_draw_as_many_triplets() -> None:
    sizes = [15774, 14510, 3107, 2551, 2479, 2350, 2068, 2048, 1885, 1639, 889, 769, 606, 587, 17, 2, 1]
    counts = [triplet_count(sizes, each.class_size, each.triplets_per_item) for each in SETTINGS[1:]]
    assert counts == [4372, 4372, 17074, 17074, 17074, 42274, 140274]
    assert [each.margin for each in SETTINGS] == [3, 3, 5, 5, 5, 10, 10, 30]


def test_each_setting_is_a_run_of_its_own_and_the_table_holds_both_splits(
    tiny: NewsConfig, own_logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = series(small(tiny, epochs=1, only=2))
    table = found.table()
    assert list(table.index) == ["M=3 untrained, Euclidean", "M=3 CS=30 TI=10 title"]
    configs = [json.loads((each.run / "run.json").read_text())["config"] for each in found.results]
    assert [(each["trained"], each["split"]) for each in configs] == [
        (False, "triplet"),
        (False, "item"),
        (True, "triplet"),
        (True, "item"),
    ]
    best = json.loads((found.results[-1].run / "run.json").read_text())["best"]["val/loss"]["value"]
    assert table.loc["M=3 CS=30 TI=10 title", "loss, by item"] == pytest.approx(best, rel=1e-5)
    items = read(tiny.data).codes("category")
    assert table["triplets"].tolist() == [triplet_count([15] * 3, 30, 10)] * 2
    assert len(items) == 45
    assert len(found.curves().axes) == 2
    assert capsys.readouterr().out.count(", split by ") == 4
    (folder,) = (own_logs / "article").iterdir()
    assert json.loads((folder / "run.json").read_text())["runs"] == [each.run.name for each in found.results]


def test_bad_data_is_refused_before_there_is_a_run(tiny: NewsConfig, own_logs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        series(ArticleConfig(data=str(tmp_path / "missing.tsv"), backbone=tiny.backbone))
    assert not own_logs.exists()


def test_the_size_and_what_is_changed_become_the_news_settings() -> None:
    config = TourConfig(class_size=6).news(learning_rate=0.01)
    assert (config.class_size, config.batch_size, config.learning_rate) == (6, 32, 0.01)


@pytest.mark.slow
def test_a_training_that_ends_before_it_is_killed_is_an_error() -> None:
    with pytest.raises(UserError, match="saved step 10, and ended before that"):
        train_and_kill(TourConfig().news(data="nowhere"), 10)
