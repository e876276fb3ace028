from __future__ import annotations

import gzip
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.news import behaviors
from experiments.news.behaviors import Behaviors
from project import CHECKOUT, clean_environment
from trainlab import paths
from trainlab.errors import UserError

NEWS = [f"N{number}\t{'ab'[number % 2]}\tsub\tTitle {number}\t\t\t[]\t[]" for number in range(1, 7)]


def row(number: object, history: str, shown: str, reader: str = "U1") -> str:
    return f"{number}\t{reader}\t11/15/2019 8:55:22 AM\t{history}\t{shown}"


def write(folder: Path, *rows: str, news: list[str] = NEWS) -> Path:
    (folder / "news.tsv").write_text("".join(f"{each}\n" for each in news))
    path = folder / "behaviors.tsv"
    path.write_text("".join(f"{each}\n" for each in rows))
    return path


def read(folder: Path, *rows: str, news: list[str] = NEWS) -> Behaviors:
    return behaviors.read(str(write(folder, *rows, news=news)))


def histories(found: Behaviors) -> list[list[str]]:
    ids = found.news.table["id"].to_numpy()[found.items]
    return [[ids[place] for place in each if place >= 0] for each in found.histories]


def shown(found: Behaviors) -> list[list[tuple[str, bool]]]:
    ids = found.news.table["id"].to_numpy()[found.items]
    pairs = [
        (ids[place], bool(clicked)) for place, clicked in zip(found.candidates, found.clicked, strict=True)
    ]
    starts = [0, *found.ends[:-1]]
    return [pairs[start:end] for start, end in zip(starts, found.ends, strict=True)]


def test_rows_are_taken_apart_as_mind_has_them(tmp_path: Path) -> None:
    found = read(tmp_path, row(1, "N2 N1", "N4-0 N3-1 N5-0"), row(2, "", "N1-1 N2-0", "U2"))
    assert histories(found) == [["N2", "N1"], []]
    assert shown(found) == [[("N4", False), ("N3", True), ("N5", False)], [("N1", True), ("N2", False)]]
    assert found.readers.tolist() == [0, 1]
    assert "2 impressions of 2 readers can be measured, with 5 candidates" in found.summary()
    assert len(found.summary().splitlines()) == 1


def test_the_last_fifty_of_a_history_count(tmp_path: Path) -> None:
    news = [f"N{number}\t{'ab'[number % 2]}\tsub\tTitle\t\t\t[]\t[]" for number in range(100)]
    read_before = [f"N{number}" for number in range(80)]
    (found,) = histories(read(tmp_path, row(1, " ".join(read_before), "N90-1 N91-0"), news=news))
    assert found == read_before[30:]


def test_a_windows_file_reads_the_same(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(("\ufeff" + row(1, "N1", "N2-1 N3-0") + "\r\n").encode())
    assert shown(behaviors.read(str(path))) == [[("N2", True), ("N3", False)]]


def test_an_id_may_hold_hyphens_and_digits(tmp_path: Path) -> None:
    news = [each.replace("N1\t", "a-1\t") for each in NEWS]
    assert shown(read(tmp_path, row(1, "N2", "a-1-0 N3-1"), news=news)) == [[("a-1", False), ("N3", True)]]


def test_ids_that_are_no_news_are_passed_over_and_counted(tmp_path: Path) -> None:
    found = read(tmp_path, row(1, "N1 X1 X2", "N2-1 X3-0 N3-0"), row(2, "X1", "N2-1 N3-0"))
    assert histories(found) == [["N1"], []]
    assert shown(found)[0] == [("N2", True), ("N3", False)]
    assert found.unknown == {"read": 3, "candidates": 1}
    assert "not among the news, passed over: 3 read, 1 candidates" in found.summary()


def test_what_can_not_be_measured_is_left_out_and_counted(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        row(1, "N1", "N2-1 N3-0"),
        row(2, "N1", "N2-0 N3-0"),
        row(3, "N1", "N2-1"),
        row(4, "N1", "X1-1 N3-0"),
        row(5, "N1", "X1-1 X2-0"),
        row(1, "N1", "N4-1 N5-0"),
    )
    assert len(found.ends) == 1
    assert found.left_out == {
        "no candidate clicked": 2,
        "all candidates clicked": 1,
        "no candidate is among the news": 1,
        "the impression id of an earlier row": 1,
    }
    assert "2 left out: no candidate clicked" in found.summary()


def test_unreadable_rows_are_counted_and_some_are_named(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    wrong = ["", "N1\tN2", row(7, "N1", ""), row(8, "N1", "N2-1 N3"), row(9, "N1", long)]
    found = read(tmp_path, row(1, "N1", "N2-1 N3-0"), *wrong, *["short"] * 1_000)
    assert len(found.ends) == 1
    assert list(found.unreadable.items())[:4] == [
        (2, "1 columns instead of 5"),
        (3, "2 columns instead of 5"),
        (4, "no candidates"),
        (5, "'N3' in the last column ends in neither -0 nor -1"),
    ]
    assert "1,005 unreadable rows left out: row 2 (1 columns" in found.summary()
    assert len(found.summary()) < 1_000


def test_a_candidate_that_stands_twice_is_two_candidates_as_in_mind_s_evaluation(tmp_path: Path) -> None:
    assert shown(read(tmp_path, row(1, "N1", "N2-1 N2-0"))) == [[("N2", True), ("N2", False)]]


def test_of_several_news_with_one_id_the_first_counts(tmp_path: Path) -> None:
    found = read(tmp_path, row(1, "N1", "N2-1 N3-0"), news=[*NEWS, NEWS[0].replace("Title", "Other")])
    assert "1 news with the id of an earlier row left out" in found.summary()
    assert found.items.tolist() == [0, 1, 2]


def test_popularity_counts_readers_before_their_first_impression_and_no_click_that_is_measured(
    tmp_path: Path,
) -> None:
    found = read(
        tmp_path,
        row(1, "N1 N1", "N2-1 N3-0"),
        row(2, "N1 N1 N2", "N3-1 N4-0"),  # the click of row 1 is in the history by now
        row(3, "N1 N4", "N3-1 N2-0", "U2"),
    )
    ids = found.news.table["id"].to_numpy()[found.items]
    assert dict(zip(ids, found.popularity.tolist(), strict=True)) == {"N1": 2, "N2": 0, "N3": 0, "N4": 1}


def packed_twice(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.compress(path.read_bytes())))


def bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0" * (20 << 20)))


def two_in_a_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("one", "")
        packed.writestr("two", "")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b"1\tU1\tnow\tN1\tCaf\xe9-1 N2-0\n"), "row 1: byte 0xe9 is not UTF-8"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b" \n\n"), "is empty"),
        (lambda path: path.write_bytes(b"abc\0\0def"), "is no text: it holds zero bytes"),
        (lambda path: path.unlink(), "does not exist. Expected sample, mind-small or"),
        (lambda path: (path.unlink(), path.mkdir()), "behaviors.tsv/behaviors.tsv does not exist"),
        (lambda path: path.write_text("\n".join(NEWS)), "8 columns are a news.tsv's: name the behaviors.tsv"),
        (lambda path: path.write_text("1,U1,now,N1,N2-1 N3-0\n"), "parted by commas, expected tabs"),
        (lambda path: path.write_text(row(1, "N1", "N2 N3")), "MIND's test part has none, its dev part does"),
        (lambda path: path.write_text(row(1, "N1", "X1-1 X2-0")), "'X1' is not in .*news.tsv. Name .*--news"),
        (lambda path: path.write_text(row(1, "N1", "N2-1 N3-1")), "1: all candidates clicked.*Expected one"),
        (lambda path: path.write_text("<html>"), "is a web page"),
        (packed_twice, "is packed twice"),
        (bomb, "unpacks to more than"),
        (two_in_a_zip, "with 2 files in it"),
        (lambda path: path.with_name("news.tsv").unlink(), "news.tsv does not exist. Name .*--news FILE"),
        (lambda path: path.with_name("news.tsv").write_text(path.read_text()), "5 columns instead of 8"),
    ],
)
def test_what_is_no_behaviors_tsv_is_a_sentence(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    path = write(tmp_path, row(1, "N1", "N2-1 N3-0"))
    spoil(path)
    with pytest.raises(UserError, match=said) as error:
        behaviors.read(str(path))
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_packed_files_and_folders_read_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, row(1, "N1", "N2-1 N3-0"))
    assert behaviors.read(str(tmp_path)).path == path
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert shown(behaviors.read(str(path))) == [[("N2", True), ("N3", False)]]


def test_news_of_another_place_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, row(1, "N1", "N2-1 N3-0"))
    news = path.with_name("news.tsv").rename(tmp_path / "elsewhere.tsv")
    assert behaviors.read(str(path), str(news)).news.path == news


def test_mind_s_dev_part_is_told_how_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINLAB_DATA", str(tmp_path))
    assert behaviors.locate("mind-small") == tmp_path / "mind-small" / "dev" / "behaviors.tsv"
    with pytest.raises(UserError, match="trainlab data fetch mind-small"):
        behaviors.read("mind-small")


def test_a_huge_row_is_read_in_seconds(tmp_path: Path) -> None:
    many = " ".join(["N1", "X1"] * 500_000)
    began = time.monotonic()
    found = read(tmp_path, row(1, many, "N2-1 " + "N3-0 " * 500_000))
    assert time.monotonic() - began < 30
    assert (found.histories >= 0).sum() == 50
    assert len(found.candidates) == 500_001


def test_the_sample_is_whole_and_is_what_the_generator_writes(tmp_path: Path) -> None:
    found = behaviors.read("sample")
    count = (found.histories >= 0).sum(axis=1)
    assert (len(found.ends), found.readers.max() + 1, found.unreadable, found.left_out) == (1028, 500, {}, {})
    assert len(set(found.readers[count == 0])) == 29
    assert len(set(found.readers[(count > 0) & (count <= 5)])) == 161
    made = tmp_path / "made.tsv"
    command = [sys.executable, CHECKOUT / "benchmarks" / "clicks.py", "--sample", made]
    subprocess.run(command, env=clean_environment(), check=True)
    sample = paths.data() / "sample" / "behaviors.tsv"
    assert made.read_bytes() == sample.read_bytes()
    assert sample.stat().st_size < 400_000
