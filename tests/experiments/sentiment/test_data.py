"""Reviews are split in three, and no part shares a text with another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastparquet import write as write_parquet

from experiments.sentiment import data
from experiments.sentiment.config import SentimentConfig
from experiments.sentiment.data import Reviews, draw
from trainlab.cleaning import text_key
from trainlab.errors import UserError


def drawn(folder: Path, table: pd.DataFrame, **settings: Any) -> Reviews:
    path = folder / "mine.csv"
    table.to_csv(path, index=False)
    return draw(SentimentConfig(data=str(path), **settings))


def different(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"text": [f"review {n}" for n in range(count)], "label": [n % 2 for n in range(count)]}
    )


def test_the_sample_is_split_in_balance() -> None:
    reviews = draw(SentimentConfig())
    sizes = {side: (len(table), table["label"].mean()) for side, table in reviews.parts().items()}
    assert sizes == {"training": (240, 0.5), "validation": (60, 0.5), "test": (100, 0.5)}
    assert not reviews.warnings
    assert len(set(pd.concat(reviews.parts().values())["text"])) == 400


def test_what_is_chosen_by_is_drawn_by_the_seed_and_the_test_is_the_same_for_all(tmp_path: Path) -> None:
    first, again, other = (drawn(tmp_path, different(60), seed=seed) for seed in (1, 1, 2))
    assert first.validation.equals(again.validation) and first.training.equals(again.training)
    assert set(first.validation.index) != set(other.validation.index)
    assert first.test.equals(other.test)
    digests = {each.fingerprint()["test_sha256"] for each in (first, other)}
    assert digests == {drawn(tmp_path, different(60)).fingerprint()["test_sha256"]}
    assert digests != {drawn(tmp_path, different(60), test=0.2).fingerprint()["test_sha256"]}


def test_each_part_of_a_table_sorted_by_label_has_both_labels_in_its_first_batches(tmp_path: Path) -> None:
    reviews = drawn(tmp_path, different(400).sort_values("label"))
    for part in reviews.parts().values():
        assert set(part["label"].head(16)) == {0, 1}


def test_reading_and_splitting_loads_no_scikit_learn() -> None:
    """It is a second of every start, and training loads it anyhow when it has begun."""
    code = (
        "import sys; from experiments.sentiment.config import SentimentConfig;"
        "from experiments.sentiment.data import draw; draw(SentimentConfig());"
        "assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_text_that_two_parts_share_is_left_to_the_later_one_and_named(tmp_path: Path) -> None:
    table = different(60)
    twice = pd.concat([table, table.assign(text="  " + table["text"].str.upper())], ignore_index=True)
    reviews = drawn(tmp_path, twice)
    keys = [set(part["text"].map(text_key)) for part in reviews.parts().values()]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    assert len(reviews.test) == 30, "nothing is left out of the last part"
    told = " ".join(reviews.warnings)
    assert f"{72 - len(reviews.training)} training texts held out too, left out: rows" in told
    assert reviews.fingerprint()["warnings"] == list(reviews.warnings)
    assert f"warning: {reviews.warnings[0]}" in reviews.summary()


def test_too_few_reviews_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are too few"):
        drawn(tmp_path, different(4))


def test_shares_that_leave_nothing_to_train_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing is left to train on"):
        drawn(tmp_path, different(60), validation=0.5, test=0.5)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with IMDb's files as the Hub has them: 25,000 rows each, sorted by label."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "datasets--stanfordnlp--imdb"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    for split, name in data.FILES.items():
        path = repository / "snapshots" / "abc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{split} review {n}" for n in range(25_000)]
        write_parquet(path, pd.DataFrame({"text": rows, "label": [int(n >= 12_500) for n in range(25_000)]}))
    return path.parent


def test_imdb_comes_in_the_chapters_slices(hub: Path) -> None:
    reviews = draw(SentimentConfig(data="imdb"))
    numbers = {
        side: table["text"].str.split().str[-1].astype(int).tolist()
        for side, table in reviews.parts().items()
    }
    assert numbers["training"] == [*range(2000), *range(23_000, 25_000)]
    assert numbers["test"] == [*range(500), *range(24_500, 25_000)]
    assert numbers["validation"] == [*range(500, 1000), *range(24_000, 24_500)]
    assert reviews.test.index[0] == "test 1"
    assert reviews.source == "stanfordnlp/imdb"


def test_imdb_in_another_order_is_refused(hub: Path) -> None:
    name = hub / Path(data.FILES["train"]).name
    write_parquet(name, pd.DataFrame({"text": ["a", "b"] * 6000, "label": [0] * 11_000 + [1] * 1000}))
    with pytest.raises(UserError, match=r"1,000 of the training slice's 4,000 reviews.*no longer sorted"):
        draw(SentimentConfig(data="imdb"))


def test_imdb_without_a_hub_says_what_else_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE=1 forbids.*data=sample \(the default\)"):
        draw(SentimentConfig(data="imdb"))


def test_a_hub_that_is_not_there_says_what_else_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.file_download.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"data=stanfordnlp/imdb.*can't be reached.*data=sample"):
        draw(SentimentConfig(data="imdb"))
