"""Tables of reviews as people have them: wrong ones are refused, odd ones cleaned, and each is told."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from fastparquet import write as write_parquet

from experiments.sentiment import data
from trainlab.errors import UserError


def write(folder: Path, content: str | bytes, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cleaned(path: Path) -> tuple[pd.DataFrame, list[str]]:
    return data.clean(path, data.read_table(path, f"data={path}")[0])


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        cleaned(path)
    return str(caught.value)


def test_a_table_is_read_as_it_stands(tmp_path: Path) -> None:
    table, warnings = cleaned(write(tmp_path, 'label,text,stars\n1,"good, very",5\n0,NA,1\n'))
    assert table.to_dict("list") == {"text": ["good, very", "NA"], "label": [1, 0]}
    assert table.index.tolist() == [1, 2]
    assert not warnings


@pytest.mark.parametrize("compression", ["SNAPPY", "ZSTD"])
def test_parquet_is_read_like_csv(tmp_path: Path, compression: str) -> None:
    frame = pd.DataFrame({"text": ["göod", "bad"], "label": [1, 0]})
    path = tmp_path / "mine.parquet"
    write_parquet(path, frame, compression=compression)
    assert cleaned(path)[0].to_dict("list") == frame.to_dict("list")


@pytest.mark.parametrize("content", [b"", b"no parquet at all", b"PAR1 broken PAR1"])
def test_a_broken_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "can't be read as a Parquet table" in refused(write(tmp_path, content, "mine.parquet"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,label\na,positive\nb,0\nc,2\n", ["row 1: label 'positive'", "2 of 3 rows", "rows 1, 3"]),
        ("text,label\na,1\nb,\n", ["row 2: no label", "Expected 0 (negative) or 1 (positive)"]),
        ("text,label\na,1\nb,1\n", ["all 2 reviews have the label 1", "both labels"]),
        ("text,label\n", ["no review in it"]),
        ("review,sentiment\na,1\n", ["no column 'text'", "There: review, sentiment", "rename"]),
        ("txt,label\na,1\n", ["no column 'text'. Did you mean 'txt'?"]),
        ("text,label\na,1,2\nb\n,1,2,3,4\n", ["can't be read as a CSV"]),
        ("", ["is empty"]),
        (b"text,label\ncaf\xe9,1\n", ["row 2: byte 0xe9 is not UTF-8", "iconv", "mine-utf8.csv"]),
    ],
)
def test_what_is_no_table_of_reviews_is_refused(
    tmp_path: Path, content: str | bytes, said: list[str]
) -> None:
    message = refused(write(tmp_path, content))
    assert all(words in message for words in [str(tmp_path), *said]), message


def test_a_missing_file_is_refused_with_what_may_be_given(tmp_path: Path) -> None:
    assert "does not exist. Expected data=sample" in refused(tmp_path / "nowhere.csv")


def test_empty_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    table, warnings = cleaned(write(tmp_path, 'text,label\na,1\n"  ",0\nb,0\n,1\n'))
    assert table["text"].tolist() == ["a", "b"]
    assert warnings == ["2 empty texts left out: rows 2, 4"]


def test_endless_texts_are_cut_and_counted(tmp_path: Path) -> None:
    long = "good " * 20_000  # 100,000 characters
    table, warnings = cleaned(write(tmp_path, f"text,label\n{long},1\nb,0\n"))
    assert table["text"].str.len().tolist() == [data.LONGEST, 1]
    assert warnings == ["1 text of more than 20,000 characters cut: row 1"]


def test_only_the_first_few_rows_are_named() -> None:
    assert data.some_rows(range(1, 9)) == "rows 1, 2, 3, 4, 5 and 3 more"
