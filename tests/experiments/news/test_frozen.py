from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.news import frozen
from experiments.news.config import NewsConfig
from experiments.news.data import draw, prepare
from experiments.news.frozen import recipe, tokens_of
from experiments.news.model import NewsModel
from experiments.news.train import train
from trainlab.errors import UserError
from trainlab.freezing import freeze

NOT_REPEATABLE = ("vitals/",)


@pytest.fixture
def own(tiny: NewsConfig, tmp_path: Path) -> NewsConfig:
    """Settings whose data a test may change."""
    path = tmp_path / "own.tsv"
    path.write_text(Path(tiny.data).read_text() + "a row of one column\n")
    return tiny.model_copy(update={"data": str(path)})


def curves(config: NewsConfig) -> pd.DataFrame:
    history = train(config).history()
    kept = history[~history["tag"].str.startswith(NOT_REPEATABLE)]
    return kept[["tag", "step", "value"]].reset_index(drop=True)


def test_frozen_examples_are_those_that_would_be_prepared(own: NewsConfig) -> None:
    freeze(recipe(own))
    thawed, fresh = draw(own), prepare(own)
    assert thawed.frozen is not None
    for name in ("training", "unseen", "validation"):
        np.testing.assert_array_equal(getattr(thawed, name), getattr(fresh, name), strict=True)
    pd.testing.assert_frame_equal(thawed.news.table, fresh.news.table)
    assert thawed.news.fingerprint() == fresh.news.fingerprint()
    assert thawed.news.unreadable == fresh.news.unreadable == {46: "1 columns instead of 8"}
    assert f"frozen: {thawed.frozen}" in thawed.summary()


@pytest.mark.parametrize("text", ["title", "title+abstract"])
def test_frozen_tokens_are_those_that_would_be_made(tiny: NewsConfig, text: str) -> None:
    config = tiny.model_copy(update={"text": text})
    freeze(recipe(config))
    model = NewsModel.pretrained(config)
    thawed, fresh = tokens_of(draw(config), model, text), tokens_of(prepare(config), model, text)
    for name in ("ids", "ends"):
        np.testing.assert_array_equal(getattr(thawed, name), getattr(fresh, name), strict=True)
    assert (thawed.texts, thawed.padding) == (fresh.texts, fresh.padding)


def test_a_run_on_frozen_data_is_bit_identical(tiny: NewsConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = curves(tiny)
    freeze(recipe(tiny))
    monkeypatch.setattr("experiments.news.data.prepare", None)  # nothing is prepared again
    monkeypatch.setattr("experiments.news.tokens.tokens_of", None)
    original, sizes = NewsModel.tokenize, []
    monkeypatch.setattr(NewsModel, "tokenize", lambda *given: sizes.append(len(given[1])) or original(*given))
    pd.testing.assert_frame_equal(curves(tiny), fresh, check_exact=True)
    assert max(sizes) <= 3  # titles to recommend for; all 45 news came out of the archive


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path("pwned"),)


@pytest.mark.parametrize("file", ["training.npy", "news.json", "unseen.npy"])
def test_an_archive_that_unpacks_to_no_data_is_refused_and_nothing_in_it_is_run(
    own: NewsConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str
) -> None:
    made = recipe(own)

    def prepare_hostile(folder: Path, report: object) -> None:
        made.prepare(folder, report)
        if file == "news.json":
            (folder / file).write_text("[" * 100_000)
        elif file == "training.npy":
            np.save(folder / file, np.array([Hostile()], dtype=object), allow_pickle=True)
        else:
            (folder / file).write_bytes(b"\x93NUMPY\x01\x00\x46\x00{'descr': '<i8', 'shape': (10**12,)}")

    freeze(replace(made, prepare=prepare_hostile))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is damaged"):
        draw(own)
    assert not Path("pwned").exists()


def test_a_run_with_other_settings_is_refused_before_there_is_a_run(tiny: NewsConfig, own_logs: Path) -> None:
    freeze(recipe(tiny))
    with pytest.raises(UserError, match="class_size: frozen 8, wanted 9"):
        train(tiny.model_copy(update={"class_size": 9}))
    assert not own_logs.exists()


def test_settings_that_do_not_make_the_data_may_differ(tiny: NewsConfig) -> None:
    freeze(recipe(tiny))
    assert draw(tiny.model_copy(update={"margin": 9.0, "epochs": 7})).frozen is not None


def test_news_that_changed_are_refused(own: NewsConfig) -> None:
    freeze(recipe(own))
    with Path(own.data).open("a") as file:
        file.write("one more\n")
    with pytest.raises(UserError, match=r"own\.tsv: changed since"):
        draw(own)


def test_the_archive_serves_where_the_raw_file_is_not(own: NewsConfig) -> None:
    freeze(recipe(own))
    fresh = prepare(own)
    Path(own.data).unlink()
    np.testing.assert_array_equal(draw(own).training, fresh.training)


def test_another_tokenizer_is_refused(tiny: NewsConfig) -> None:
    freeze(recipe(tiny))
    other = NewsModel.pretrained(tiny.model_copy(update={"max_tokens": 9}))
    with pytest.raises(UserError, match="another tokenizer"):
        tokens_of(draw(tiny), other, tiny.text)


def test_every_setting_that_changes_the_data_is_among_the_keys(tiny: NewsConfig) -> None:
    others = {"class_size": 5, "triplets_per_item": 2, "validation": 0.4, "seed": 1, "split": "triplet"}
    fresh = prepare(tiny)
    for key, value in others.items():
        changed = prepare(tiny.model_copy(update={key: value}))
        assert not np.array_equal(changed.training, fresh.training), key
    assert set(others) | {"data", "text", "min_class_items", "backbone", "max_tokens"} == set(frozen.KEYS)
