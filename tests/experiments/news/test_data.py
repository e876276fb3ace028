from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.news import data
from experiments.news.data import News, read, split_items
from trainlab.cleaning import text_key
from trainlab.errors import UserError


def row(category: str, title: str, abstract: str = "") -> str:
    return f"N1\t{category}\tsub\t{title}\t{abstract}\t\t[]\t[]"


def write(path: Path, *rows: str) -> str:
    file = path / "news.tsv"
    file.write_text("".join(f"{each}\n" for each in rows), encoding="utf-8", newline="")
    return str(file)


def news_of(titles: list[tuple[str, str]]) -> News:
    table = pd.DataFrame(titles, columns=["category", "title"]).assign(subcategory="s", abstract="")
    return News(Path("news.tsv"), table, "")


def test_the_sample_is_read_whole() -> None:
    news = read("sample")
    assert len(news.table) == 860
    assert news.table["category"].nunique() == 17
    assert not news.unreadable
    assert "860 news in 17 categories" in news.summary()


def test_quotation_marks_and_odd_separators_are_text(tmp_path: Path) -> None:
    titles = ['"Quoted', 'A "half quoted title', "Next\x85line and\u2028separator", "Carriage return\r"]
    path = write(tmp_path, *(row(f"c{i % 2}", title) for i, title in enumerate(titles)))
    assert read(path).table["title"].tolist() == [title.strip() for title in titles]


def test_a_windows_file_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "news.tsv"
    path.write_bytes(("\ufeff" + row("a", "One") + "\r\n" + row("b", "Two") + "\r\n").encode())
    assert read(str(path)).table["id"].tolist() == ["N1", "N1"]


def test_a_folder_means_its_news_tsv(tmp_path: Path) -> None:
    write(tmp_path, row("a", "One"), row("b", "Two"))
    assert read(str(tmp_path)).path == tmp_path / "news.tsv"


def test_unreadable_rows_are_counted_and_named(tmp_path: Path) -> None:
    path = write(
        tmp_path, row("a", "One"), "N2\tb\tTwo", row("b", " "), row("", "No category"), row("b", "Two")
    )
    news = read(path)
    assert news.table["title"].tolist() == ["One", "Two"]
    assert news.unreadable == {2: "3 columns instead of 8", 3: "no title", 4: "no category"}
    assert news.fingerprint()["unreadable"] == 3
    assert "3 unreadable rows left out: row 2 (3 columns instead of 8), row 3" in news.summary()


def test_many_unreadable_rows_are_named_in_part_and_counted_whole(tmp_path: Path) -> None:
    news = read(write(tmp_path, row("a", "One"), row("b", "Two"), *(["short"] * 1000)))
    assert "1,000 unreadable rows" in news.summary()
    assert "and 980 more" in news.summary()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "is empty"),
        (["   "], "is empty"),
        (["N1\ta\tb\ttitle"] * 3, "row 1: 4 columns instead of 8"),
        ([row("sports", "One"), row("sports", "Two")], "one category, 'sports', in column 2"),
    ],
)
def test_a_file_of_no_use_is_refused_by_name_and_row(tmp_path: Path, rows: list[str], said: str) -> None:
    path = write(tmp_path, *rows)
    with pytest.raises(UserError) as caught:
        read(path)
    assert path in str(caught.value)
    assert said in str(caught.value)
    assert "Expected" in str(caught.value)


def test_a_file_in_another_encoding_is_refused_by_row(tmp_path: Path) -> None:
    path = tmp_path / "news.tsv"
    path.write_bytes((row("a", "One") + "\n" + row("b", "Caf\u00e9") + "\n").encode("latin-1"))
    with pytest.raises(UserError, match=r"row 2: byte 0xe9 is not UTF-8\. Expected"):
        read(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.tsv does not exist\. Expected"):
        read(str(tmp_path / "nowhere.tsv"))


def test_mind_small_not_yet_here_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINLAB_DATA", str(tmp_path))
    with pytest.raises(UserError, match="trainlab data fetch mind-small"):
        read("mind-small")
    (tmp_path / "mind-small" / "train").mkdir(parents=True)
    write(tmp_path / "mind-small" / "train", row("a", "One"), row("b", "Two"))
    assert len(read("mind-small").table) == 2


def test_a_missing_abstract_is_the_title(tmp_path: Path) -> None:
    news = read(write(tmp_path, row("a", "One", "More of one"), row("b", "Two")))
    assert news.texts("title") == [["One"], ["Two"]]
    assert news.texts("title+abstract") == [["One", "More of one"], ["Two", "Two"]]


@pytest.mark.parametrize("seed", range(5))
def test_duplicate_titles_never_straddle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    titles = [(f"c{i % 3}", f"Title {rng.integers(40)}" + " " * (i % 2)) for i in range(200)]
    titles += [("c9", title.upper()) for _, title in titles[:20]]  # across categories, too
    news = news_of(titles)
    seen, unseen = split_items(news, 0.3, seed)
    keys = news.table["title"].map(text_key)
    assert set(keys[seen]).isdisjoint(keys[unseen])
    assert sorted([*seen, *unseen]) == list(range(len(titles)))
    assert len(unseen) > 20


def test_each_category_gives_its_share_and_a_tiny_one_nothing() -> None:
    sizes = {"large": 100, "small": 17, "pair": 2, "single": 1}
    news = news_of([(name, f"{name} {i}") for name, size in sizes.items() for i in range(size)])
    _, unseen = split_items(news, 0.2, seed=0)
    assert news.table["category"].iloc[unseen].value_counts().to_dict() == {"large": 20, "small": 3}
    _, unseen = split_items(news, 0.99, seed=0)
    assert news.table["category"].iloc[unseen].value_counts().to_dict() == {"large": 98, "small": 15}


def test_one_seed_gives_one_split() -> None:
    news = read("sample")
    (_, first), (_, again), (_, other) = (split_items(news, 0.2, seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_the_fingerprint_knows_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, row("a", "One"), row("b", "Two"))
    before = read(path).fingerprint()
    write(tmp_path, row("a", "One"), row("b", "Twx"))
    after = read(path).fingerprint()
    assert before["path"] == after["path"] == path
    assert before["rows"] == after["rows"] == 2
    assert before["sha256"] != after["sha256"]
    assert data.locate(path) == Path(path)
