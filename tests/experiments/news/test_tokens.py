from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from experiments.news.config import NewsConfig
from experiments.news.data import News, read
from experiments.news.tokens import TokenTable, tokenize, tokens_of
from trainlab.hub import load_tokenizer, locate

ITEMS = [
    ["game in the cup", "rain"],
    ["rain", "the stock market"],
    ["stock market bank fund price", "wind"],
]


@pytest.fixture
def tokenizer(tiny: NewsConfig) -> Tokenizer:
    return load_tokenizer(locate(tiny.backbone), 40)


@pytest.fixture
def news(tiny: NewsConfig) -> News:
    return read(tiny.data)


def test_rows_are_padded_as_the_backbones_own_tokenizer_pads(tokenizer: Tokenizer, tiny_bert: Path) -> None:
    table = tokenize(tokenizer, ITEMS)
    wanted = [2, 0]
    found = table.rows(wanted)
    texts = [text for item in wanted for text in ITEMS[item]]
    theirs = AutoTokenizer.from_pretrained(tiny_bert)(texts, padding=True)
    assert found.ids.flatten(0, 1).tolist() == theirs["input_ids"]
    assert found.mask.flatten(0, 1).tolist() == theirs["attention_mask"]
    assert found.ids.shape == (2, 2, 7)


def test_ids_take_two_bytes_and_no_padding(tokenizer: Tokenizer) -> None:
    table = tokenize(tokenizer, ITEMS)
    assert table.ids.dtype == np.uint16
    mask = table.rows(range(3)).mask
    assert len(table.ids) == mask.sum() < mask.numel()


def test_a_vocabulary_too_large_for_two_bytes_gets_four(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens([f"word{number}" for number in range(2**16)])
    table = tokenize(tokenizer, [["game word65535"]])
    assert table.ids.dtype == np.uint32
    assert tokenizer.decode(table.rows([0]).ids[0, 0].tolist()) == "game word65535"


def test_padding_is_the_tokenizers_own(tokenizer: Tokenizer) -> None:
    tokenizer.enable_padding(pad_id=3)
    found = tokenize(tokenizer, [["game"], ["game in the cup"]]).rows(range(2))
    assert set(found.ids[0, 0][found.mask[0, 0] == 0].tolist()) == {3}


def test_many_texts_take_several_calls(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tokenize(tokenizer, ITEMS)
    monkeypatch.setattr("experiments.news.tokens.AT_ONCE", 4)
    parts = tokenize(tokenizer, ITEMS)
    np.testing.assert_array_equal(whole.ids, parts.ids)
    np.testing.assert_array_equal(whole.ends, parts.ends)


def test_batches_hold_every_item_once(tokenizer: Tokenizer) -> None:
    table = tokenize(tokenizer, ITEMS)
    rows = [tokenizer.decode_batch(part.ids.flatten(0, 1).tolist()) for part in table.batches(2)]
    assert rows == [[*ITEMS[0], *ITEMS[1]], ITEMS[2]]


def test_tokens_are_made_once(
    news: News, tokenizer: Tokenizer, own_tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tokens_of(news, "title", tokenizer)
    monkeypatch.setattr("experiments.news.tokens.tokenize", None)
    again = tokens_of(news, "title", tokenizer)
    assert isinstance(again.ids, np.memmap)
    np.testing.assert_array_equal(first.ids, again.ids)
    assert len(list(own_tokens.iterdir())) == 1


def test_other_news_texts_and_tokenizers_have_tokens_of_their_own(
    news: News, tokenizer: Tokenizer, own_tokens: Path
) -> None:
    whole = tokens_of(news, "title", tokenizer)
    assert tokens_of(news, "title+abstract", tokenizer).texts == 2
    other = News(news.path, news.table.iloc[:7], "another digest")
    assert len(tokens_of(other, "title", tokenizer)) == 7
    tokenizer.enable_truncation(3)
    assert len(tokens_of(news, "title", tokenizer).ids) == 3 * len(whole)
    assert len(list(own_tokens.iterdir())) == 4


@pytest.mark.parametrize("damage", ["missing", "truncated", "of another table"])
def test_damaged_tokens_are_made_again(
    damage: str, news: News, tokenizer: Tokenizer, own_tokens: Path
) -> None:
    whole = np.array(tokens_of(news, "title", tokenizer).ids)
    (folder,) = own_tokens.iterdir()
    path = folder / "ids.npy"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        np.save(path, whole[:-1])
    np.testing.assert_array_equal(tokens_of(news, "title", tokenizer).ids, whole)
    np.testing.assert_array_equal(np.load(path), whole)


def test_without_a_place_to_keep_them_tokens_are_made_each_time(
    news: News, tokenizer: Tokenizer, own_tokens: Path
) -> None:
    shutil.rmtree(own_tokens, ignore_errors=True)
    own_tokens.write_text("a file where the folder should be")
    table = tokens_of(news, "title", tokenizer)
    assert isinstance(table, TokenTable)
    assert not isinstance(table.ids, np.memmap)
