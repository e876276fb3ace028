"""Data files as people have them: packed and in UTF-16 they are read, of others the kind is named."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from fastparquet import write as write_parquet

from experiments.news import data as news
from experiments.sentiment import data
from trainlab import files
from trainlab.errors import UserError

TEXTS = ["lovely, warm", "dull", "fünny and clever", "endless 電影"]
REVIEWS = "text,label\n" + "".join(f'"{text}",{row % 2}\n' for row, text in enumerate(TEXTS))
NEWS = "".join(
    f"N{row}\t{category}\t{category}\tA title of {category} {row}\t\t\t[]\t[]\n"
    for row, category in enumerate(["sports", "weather"] * 3)
)


def zipped(content: bytes, more: dict[str, bytes] | None = None) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("folder/data.csv", content)
        packed.writestr("__MACOSX/folder/._data.csv", b"\0\5\x16\7")
        for name, each in (more or {}).items():
            packed.writestr(name, each)
    return buffer.getvalue()


def tarred(content: bytes) -> bytes:
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as packed:
        entry = tarfile.TarInfo("data.csv")
        entry.size = len(content)
        packed.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


READ = {
    "as it is": lambda text: text.encode(),
    "with a mark": lambda text: text.encode("utf-8-sig"),
    "gzip": lambda text: gzip.compress(text.encode()),
    "gzip of two members": lambda text: gzip.compress(text[:20].encode()) + gzip.compress(text[20:].encode()),
    "zip": lambda text: zipped(text.encode()),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big end first": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-16, big end first, without a mark": lambda text: text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "UTF-16 in gzip": lambda text: gzip.compress(text.encode("utf-16")),
}


@pytest.mark.parametrize("form", READ)
def test_reviews_are_read_packed_and_in_utf_16_too(tmp_path: Path, form: str) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes(READ[form](REVIEWS))
    table, digest = data.read_table(path, "data")
    assert table["text"].tolist() == TEXTS
    assert len(digest) == 64


@pytest.mark.parametrize("form", READ)
def test_news_are_read_packed_and_in_utf_16_too(tmp_path: Path, form: str) -> None:
    path = tmp_path / "news.tsv"
    path.write_bytes(READ[form](NEWS))
    assert len(news.read(str(path)).table) == 6


KINDS = {
    "bzip2": (bz2.compress(REVIEWS.encode()), "is packed (bzip2). Unpack it: bunzip2"),
    "xz": (lzma.compress(REVIEWS.encode()), "is packed (xz). Unpack it: unxz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(20), "is packed (zstd). Unpack it: unzstd"),
    "tar": (tarred(REVIEWS.encode()), "is packed (tar). Unpack it: tar -xf"),
    "tar in gzip": (gzip.compress(tarred(REVIEWS.encode())), "is packed (tar)"),
    "7-Zip": (b"7z\xbc\xaf\x27\x1c" + bytes(20), "is packed (7-Zip)"),
    "workbook": (zipped(b"", {"[Content_Types].xml": b"<Types/>"}), "is a workbook"),
    "old workbook": (b"\xd0\xcf\x11\xe0" + bytes(600), "is an old Excel"),
    "several": (zipped(b"a", {"more.csv": b"b"}), "with 2 files in it: 'folder/data.csv', 'more.csv'"),
    "twice": (gzip.compress(gzip.compress(b"a")), "is packed twice"),
    "page": (b"\n<!DOCTYPE html><html><title>404 Not Found</title>", "is a web page or XML"),
    "error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page or XML"),
    "JSON": (b'[{"text": "a", "label": 1}]', "is JSON"),
    "JSON lines": (b'{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n', "is JSON"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
    "zeros": (bytes(5000), "zero bytes"),
    "program": (b"\x7fELF\2\1\1" + bytes(9) + b"text,label", "zero bytes"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3", "is a PDF"),
    "half a zip": (zipped(REVIEWS.encode())[:60], "is packed, and can't be unpacked"),
    "half a gzip": (gzip.compress(REVIEWS.encode())[:30], "is packed, and can't be unpacked"),
    "a wrong gzip": (b"\x1f\x8b" + bytes(30), "is packed, and can't be unpacked"),
    "half of UTF-16": (REVIEWS.encode("utf-16")[:-1], "starts as UTF-16, and is damaged"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_of_what_is_no_text_the_kind_is_named_and_nobody_is_sent_to_iconv(tmp_path: Path, kind: str) -> None:
    content, said = KINDS[kind]
    for name, read in (("reviews.csv", lambda path: data.read_table(path, "data")), ("news.tsv", news.read)):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            read(path if name == "reviews.csv" else str(path))
        assert said in str(error.value)
        assert "iconv" not in str(error.value)


@pytest.mark.parametrize("pack", [gzip.compress, zipped], ids=["gzip", "zip"])
def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack
) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes(pack(REVIEWS.encode() + bytes(10 << 20)))
    monkeypatch.setattr(files, "SMALL", 1 << 20)
    with pytest.raises(UserError, match=r"unpacks to more than 1,\d+,\d+ bytes.*Refused"):
        data.read_table(path, "data")


@pytest.mark.parametrize(("mark", "name"), [("\t", "tabs"), (";", "semicolons"), ("|", "vertical bars")])
@pytest.mark.parametrize("quoted", ["", '"'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_reviews_parted_by_something_else_than_commas_are_refused_by_its_name(
    tmp_path: Path, mark: str, name: str, quoted: str, encoding: str
) -> None:
    path = tmp_path / "reviews.csv"
    header = mark.join(f"{quoted}{each}{quoted}" for each in ("label", "stars", "text"))
    path.write_text(f"{header}\n1{mark}5{mark}good, and warm, and so on\n0{mark}1{mark}bad\n", encoding)
    with pytest.raises(UserError, match=f"columns are parted by {name}, expected commas"):
        data.read_table(path, "data")


def test_a_header_of_other_names_and_separators_is_told_both(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("review;sentiment\ngood;1\nbad;0\n")
    with pytest.raises(UserError, match=r"no column 'text'.* by commas and not by semicolons"):
        data.read_table(path, "data")


def test_a_semicolon_in_a_table_of_commas_is_text(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\ngood; very; very; good,1\nbad;,0\n")
    assert data.read_table(path, "data")[0]["text"].tolist() == ["good; very; very; good", "bad;"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a,1\nb, or not,1,2\n", "line 3 has 4 columns instead of 2; a text with a comma must stand in"),
        ('a,1\n"b,0\n', "a quotation mark in row 2 is never closed"),
    ],
)
def test_what_pandas_says_of_a_table_is_said_in_plain_words(tmp_path: Path, rows: str, said: str) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text(f"text,label\n{rows}")
    with pytest.raises(UserError) as error:
        data.read_table(path, "data")
    assert said in str(error.value)


@pytest.mark.parametrize(("mark", "name"), [(",", "commas"), (";", "semicolons")])
def test_news_parted_by_something_else_than_tabs_are_refused_by_its_name(
    tmp_path: Path, mark: str, name: str
) -> None:
    path = tmp_path / "news.tsv"
    path.write_text(NEWS.replace("\t", mark))
    with pytest.raises(UserError, match=f"columns are parted by {name}, expected tabs"):
        news.read(str(path))


def test_parquet_is_known_by_its_content_whatever_its_name_is(tmp_path: Path) -> None:
    path = tmp_path / "reviews.parquet"
    write_parquet(path, pd.DataFrame({"text": TEXTS, "label": [0, 1, 0, 1], "more": [1, 2, 3, 4]}))
    path = path.rename(tmp_path / "reviews.csv")
    assert data.read_table(path, "data")[0]["text"].tolist() == TEXTS
    with pytest.raises(UserError, match="is a Parquet table"):
        news.read(str(path))


def test_a_parquet_table_that_claims_to_be_huge_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reviews.parquet"
    write_parquet(path, pd.DataFrame({"text": ["same"] * 10_000, "label": [0, 1] * 5000}))
    monkeypatch.setattr(data, "MOST_ROWS", 9_999)
    with pytest.raises(UserError, match=r"claims 10,000 rows"):
        data.read_table(path, "data")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero")])
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path: Path, make) -> None:
    make(tmp_path / "reviews.csv")
    with pytest.raises(UserError, match="is a pipe or a device"):
        data.read_table(tmp_path / "reviews.csv", "data")
