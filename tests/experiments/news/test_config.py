from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from experiments.news.config import NewsConfig
from trainlab.config import assignments
from trainlab.errors import UserError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("margin=-1", ["margin=-1", "greater than 0"]),
        ("margin=wide", ["margin=wide", "number"]),
        ("margin=nan", ["margin=nan", "finite"]),
        ("class_size=0", ["class_size=0", "greater than or equal to 1"]),
        ("class_size=2.5", ["class_size=2.5", "integer"]),
        ("triplets_per_item=0", ["triplets_per_item=0", "greater than or equal to 1"]),
        ("epochs=0", ["epochs=0", "greater than or equal to 1"]),
        ("validation=1", ["validation=1", "less than 1"]),
        ("pooling=max", ["pooling=max", "'mean' or 'cls'"]),
        ("text=abstract", ["text=abstract", "'title' or 'title+abstract'"]),
        ("split=random", ["split=random", "'item' or 'triplet'"]),
        ("accelerator=gpu", ["accelerator=gpu", "'auto', 'cpu', 'cuda', 'mps' or 'tpu'"]),
        ("max_tokens=1000", ["max_tokens=1000", "less than or equal to 512"]),
        ("marign=5", ["marign: no such parameter", "Did you mean 'margin'?"]),
    ],
)
def test_what_can_not_be_is_refused_by_name(given: str, said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        NewsConfig.parse(assignments([given]))
    for each in said:
        assert each in str(caught.value)


def test_texts_of_the_command_line_become_typed_values() -> None:
    words = ["margin=5", "trained=false", "epochs=2", "learning_rate=1e-4"]
    config = NewsConfig.parse(assignments(words))
    assert (config.margin, config.trained, config.epochs, config.learning_rate) == (5.0, False, 2, 1e-4)


def test_a_path_is_made_whole_and_a_name_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.tsv").touch()
    Path("sample").mkdir()
    assert NewsConfig(data="mine.tsv").data == str(tmp_path / "mine.tsv")
    assert NewsConfig(data="./missing.tsv").data == str(tmp_path / "missing.tsv")
    assert NewsConfig().data == "sample"
    assert NewsConfig(backbone="distilbert-base-uncased").backbone == "distilbert-base-uncased"


def test_the_defaults_pass_their_preflight() -> None:
    NewsConfig().preflight()


def test_preflight_finds_missing_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        NewsConfig(data=str(tmp_path / "news.tsv")).preflight()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("settings", [{"accelerator": "cuda"}, {"precision": "16-mixed"}])
def test_preflight_finds_a_missing_gpu(settings: dict) -> None:
    with pytest.raises(UserError, match="GPU"):
        NewsConfig(**settings).preflight()


def test_preflight_is_quick_when_the_hub_can_not_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        NewsConfig(backbone="nobody/nothing").preflight()
    assert time.monotonic() - started < 60
    for each in ("can't be reached", "backbone=minilm", "HF_HUB_OFFLINE=1"):
        assert each in str(caught.value)
