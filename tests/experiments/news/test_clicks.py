from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.metrics import ndcg_score, roc_auc_score

from experiments.news import behaviors, clicks
from experiments.news.behaviors import Behaviors
from experiments.news.data import News
from experiments.news.train import Result
from trainlab import cli
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.run.restoring import BEST

METRICS = list(clicks.METRICS)
NO_NEWS = News(Path("news.tsv"), None, "")  # type: ignore[arg-type]


def of_impressions(
    clicked: list[list[int]], histories: list[list[int]] | None = None, shown: list[list[int]] | None = None
) -> Behaviors:
    """Return behaviours of as many readers, with the candidates 0, 1, ... where nothing else is said."""
    shown = shown or [list(range(len(each))) for each in clicked]
    histories = histories or [[0]] * len(clicked)
    return Behaviors(
        path=Path("behaviors.tsv"),
        news=NO_NEWS,
        items=np.arange(1 + max(map(max, [*shown, *filter(None, histories)]))),
        readers=np.arange(len(clicked)),
        histories=np.array([each + [-1] * (behaviors.LAST - len(each)) for each in histories]),
        candidates=np.concatenate(shown),
        clicked=np.concatenate(clicked).astype(bool),
        ends=np.cumsum([len(each) for each in clicked]),
        popularity=np.zeros(1, np.int64),
        unreadable={},
        left_out={},
        unknown={},
    )


def measured(clicked: list[int], scores: list[float]) -> dict[str, float]:
    (values,) = clicks.measure(of_impressions([clicked]), np.array(scores, float))
    return dict(zip(METRICS, values, strict=True))


def test_the_click_on_top_is_perfect() -> None:
    assert measured([0, 1, 0], [1, 3, 2]) == pytest.approx(dict.fromkeys(METRICS, 1))


def test_two_clicks_at_ranks_two_and_four_are_what_a_pencil_says() -> None:
    found = measured([0, 1, 0, 1], [9, 8, 7, 6])
    assert found["auc"] == 1 / 4  # of four pairs, the click at rank 2 before the other at rank 3
    assert found["mrr"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    ndcg = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert (found["ndcg_at_5"], found["ndcg_at_10"]) == pytest.approx((ndcg, ndcg))


def test_a_click_beyond_the_fifth_rank_counts_for_the_ten_alone() -> None:
    found = measured([0, 0, 0, 0, 0, 1], [6, 5, 4, 3, 2, 1])
    assert (found["auc"], found["mrr"], found["ndcg_at_5"]) == pytest.approx((0, 1 / 6, 0))
    assert found["ndcg_at_10"] == pytest.approx(1 / math.log2(7))


def test_a_tie_is_the_mean_of_its_two_orders() -> None:
    found = measured([1, 0, 0], [5, 5, 1])
    assert (found["auc"], found["mrr"]) == (3 / 4, 3 / 4)
    assert found["ndcg_at_5"] == pytest.approx((1 + 1 / math.log2(3)) / 2)


def test_equal_scores_for_all_are_chance_whatever_the_order_of_the_file() -> None:
    first, last = measured([1, 0, 0, 0, 0, 0], [0] * 6), measured([0, 0, 0, 0, 0, 1], [0] * 6)
    assert first == last
    assert first["auc"] == 1 / 2
    assert first["mrr"] == pytest.approx(sum(1 / rank for rank in range(1, 7)) / 6)
    top = sum(1 / math.log2(rank + 1) for rank in range(1, 6))
    assert first["ndcg_at_5"] == pytest.approx(top / 6)
    assert first["ndcg_at_10"] == pytest.approx((top + 1 / math.log2(7)) / 6)


def by_definition(clicked: list[int], scores: list[float]) -> list[float]:
    """MIND's definitions in loops, each order of equal scores in turn."""
    orders = [
        [clicked[place] for place in order]
        for order in permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]
    total = np.zeros(4)
    for ranked in orders:
        pairs = [a > b for place, a in enumerate(ranked) for b in ranked[place + 1 :] if a != b]
        reciprocals = [1 / rank for rank, click in enumerate(ranked, 1) if click]
        ndcg = []
        for most in (5, 10):
            best = sorted(ranked, reverse=True)
            gains = [
                sum((2**click - 1) / math.log2(rank + 1) for rank, click in enumerate(each[:most], 1))
                for each in (ranked, best)
            ]
            ndcg.append(gains[0] / gains[1])
        total += [np.mean(pairs), np.mean(reciprocals), *ndcg]
    return list(total / len(orders))


def drawn(seed: int, candidates: int) -> tuple[list[list[int]], list[list[float]]]:
    """Twenty impressions with clicks and others, and scores with many ties."""
    rng = np.random.default_rng(seed)
    clicked, scores = [], []
    for _ in range(20):
        size = int(rng.integers(2, candidates + 1))
        labels = (rng.random(size) < 0.3).astype(int)
        labels[:2] = 0, 1
        clicked.append(rng.permutation(labels).tolist())
        scores.append(rng.integers(0, 4, size).astype(float).tolist())
    return clicked, scores


def test_all_four_are_the_mean_over_every_order_of_the_ties() -> None:
    clicked, scores = drawn(0, 7)
    found = clicks.measure(of_impressions(clicked), np.concatenate(scores))
    assert found == pytest.approx(np.array([*map(by_definition, clicked, scores)]))


@pytest.mark.parametrize("seed", range(3))
def test_auc_and_ndcg_are_scikit_learn_s(seed: int) -> None:
    clicked, scores = drawn(seed, 60)
    found = clicks.measure(of_impressions(clicked), np.concatenate(scores))
    for values, labels, ranked in zip(found, clicked, scores, strict=True):
        assert values[0] == pytest.approx(roc_auc_score(labels, ranked))
        for value, most in ((values[2], 5), (values[3], 10)):
            assert value == pytest.approx(ndcg_score([labels], [ranked], k=most))


def slow_scores(known: Behaviors, near: np.ndarray) -> list[float]:
    """The definition in a loop; `near` are the distances of all items to each other."""
    starts, found = [0, *known.ends[:-1]], []
    for history, start, end in zip(known.histories, starts, known.ends, strict=True):
        read = [item for item in history if item >= 0]
        for candidate in known.candidates[start:end]:
            least = sorted(near[candidate, item] for item in read)[: clicks.NEAREST]
            found.append(-sum(least) / len(least) if least else math.nan)
    return found


@pytest.fixture
def many() -> tuple[Behaviors, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 12, 40)
    histories = [rng.integers(0, 30, rng.integers(0, 8)).tolist() for _ in sizes]
    clicked = [[1, *[0] * (size - 1)] for size in sizes]
    shown = [rng.integers(0, 30, size).tolist() for size in sizes]
    return of_impressions(clicked, histories, shown), np.maximum(rng.standard_normal((31, 6)), 0)


@pytest.mark.parametrize("cells", [1, 100, clicks.CELLS])
def test_a_score_is_minus_the_mean_distance_to_the_three_nearest_read(
    many: tuple[Behaviors, np.ndarray], cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clicks, "CELLS", cells)
    monkeypatch.setattr(clicks, "ENTRIES", 7)
    known, vectors = many
    near = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    expected = pytest.approx(np.array(slow_scores(known, near)), abs=1e-4, nan_ok=True)
    assert clicks.scores(known, vectors) == expected
    assert clicks.scores(known, csr_matrix(vectors)) == expected
    assert clicks.scores(known, vectors + 100) == expected


def test_by_cosine_the_length_of_vectors_makes_no_difference(many: tuple[Behaviors, np.ndarray]) -> None:
    known, vectors = many
    vectors = vectors + 0.1
    long = vectors * np.arange(1, len(vectors) + 1)[:, None]
    lengths = np.linalg.norm(vectors, axis=1)
    near = 1 - vectors @ vectors.T / np.outer(lengths, lengths)
    expected = pytest.approx(np.array(slow_scores(known, near)), abs=1e-4, nan_ok=True)
    assert clicks.scores(known, long, cosine=True) == expected


def test_the_same_news_twice_are_a_tie_although_their_vectors_differ_in_the_last_digit() -> None:
    known = of_impressions([[1, 0]], [[2]], [[0, 1]])
    vectors = np.array([[1.0, 2.0], [1.0 + 1e-7, 2.0], [0.0, 0.0]])
    assert len(set(clicks.scores(known, vectors))) == 1


def test_readers_are_drawn_with_all_their_impressions() -> None:
    """Ten impressions of one reader say no more than one: as wide an interval as two readers alone have."""
    values = {clicks.RUN: np.zeros((20, 4))}
    values[clicks.RUN][:10] = 1
    few = clicks.summarized({clicks.RUN: values[clicks.RUN][[0, 10]]}, np.array([0, 1]))
    known = clicks.summarized(values, np.repeat([0, 1], 10))
    assert (known.impressions, known.readers) == (20, 2)
    assert known.figures == few.figures
    many = clicks.summarized(values, np.arange(20)).figures[clicks.RUN]["auc"]
    assert (known.figures[clicks.RUN]["auc"].low, known.figures[clicks.RUN]["auc"].high) == (0, 1)
    assert 0.2 < many.low < 0.4
    assert 0.6 < many.high < 0.8


def test_an_interval_covers_the_mean_nineteen_times_in_twenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clicks, "REPEATS", 300)
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        taste = rng.normal(0.6, 0.1, 60)  # of 60 readers, with three impressions each
        values = np.repeat(taste, 3)[:, None] + rng.normal(0, 0.05, (180, 4))
        auc = clicks.summarized({clicks.RUN: values}, np.repeat(np.arange(60), 3)).figures[clicks.RUN]["auc"]
        covered += auc.low <= 0.6 <= auc.high
    assert 0.90 <= covered / 200 <= 0.99


def test_one_reader_alone_has_no_interval() -> None:
    known = clicks.summarized({clicks.RUN: np.full((3, 4), 0.5)}, np.zeros(3, int))
    assert str(known.figures[clicks.RUN]["auc"]) == "50.0"


def test_the_run_is_held_against_others_on_the_same_readers() -> None:
    """Readers differ widely, and the run is ahead by the same with each of them: that is certain."""
    others = np.random.default_rng(0).random((50, 4))
    known = clicks.summarized({clicks.CHANCE: others, clicks.RUN: others + 0.1}, np.arange(50))
    assert known.ahead[clicks.CHANCE] == pytest.approx((0.1, 0.1, 0.1))
    assert known.figures[clicks.RUN]["auc"].low < known.figures[clicks.CHANCE]["auc"].high


@pytest.fixture
def readers(news_tsv: Path, tmp_path: Path) -> Path:
    """Eight readers of one category each, who click what is of it; two had read one item, one nothing."""
    (tmp_path / "news.tsv").write_text(news_tsv.read_text())
    rows = []
    for reader in range(9):
        own, other = 15 * (reader % 3), 15 * ((reader + 1) % 3)
        count = {0: 0, 1: 1, 2: 1}.get(reader, 8)
        history = " ".join(f"N{own + number}" for number in range(count))
        words = f"N{own + 9}-1 N{other + 9}-0 N{other + 10}-0 N{own + 10}-1"
        rows.append(f"{reader}\tU{reader}\tnow\t{history}\t{words}\n")
    path = tmp_path / "behaviors.tsv"
    path.write_text("".join(rows))
    return path


def test_a_run_is_measured_beside_the_simpler_ways(result: Result, readers: Path) -> None:
    found = clicks.evaluate(result.run, str(readers))
    known = found.groups["history"]
    assert (known.impressions, found.groups["cold"].impressions, found.groups["none"].impressions) == (
        8,
        2,
        1,
    )
    assert set(known.figures) == {"random", "popularity", "tfidf", "untrained", "run"}
    assert set(found.groups["none"].figures) == {"random", "popularity"}
    assert known.figures["random"]["auc"].value == 0.5
    assert known.figures["run"]["auc"].value > 0.9  # three categories of words of their own
    assert known.table().columns.tolist() == ["AUC", "MRR", "nDCG@5", "nDCG@10"]


def test_it_is_the_same_right_after_the_training(result: Result, readers: Path) -> None:
    now, later = clicks.of(result, str(readers)), clicks.evaluate(result.run, str(readers))
    assert json.loads(now.as_json()) == json.loads(later.as_json())


def test_nothing_of_the_run_is_changed(result: Result, readers: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in result.run.rglob("*")}
    clicks.evaluate(result.run, str(readers))
    assert {path: path.stat().st_mtime_ns for path in result.run.rglob("*")} == before


def test_without_the_backbone_the_rest_is_measured(
    result: Result, readers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = UserError("the Hub is out of reach")
    monkeypatch.setattr(clicks.NewsModel, "pretrained", lambda _: (_ for _ in ()).throw(gone))
    found = clicks.evaluate(result.run, str(readers))
    assert "untrained" not in found.groups["history"].figures
    assert found.missing == "The untrained backbone is left out: the Hub is out of reach"


def test_the_command_prints_tables_and_json(
    result: Result, readers: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["trainlab", "evaluate-clicks", str(result.run), str(readers)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for shown in ("9 impressions of 9 readers", "untrained backbone", "nDCG@10", "cold readers", "NAML"):
        assert shown in told, shown
    monkeypatch.setattr("sys.argv", [*cli.sys.argv, "--format", "json"])
    with pytest.raises(SystemExit):
        cli.main()
    plain = json.loads(capsys.readouterr().out)
    assert plain["groups"]["history"]["figures"]["random"]["auc"] == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_a_wrong_file_ends_the_command_with_a_sentence_and_code_2(
    result: Result, news_tsv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["trainlab", "evaluate-clicks", str(result.run), str(news_tsv)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr().err
    assert (ended.value.code, told.count("\n")) == (2, 1)
    assert "8 columns are a news.tsv's" in told


def test_readers_who_had_read_nothing_at_all_are_no_measure(result: Result, readers: Path) -> None:
    rows = [row.split("\t") for row in readers.read_text().splitlines()]
    readers.write_text("".join("\t".join([*cells[:3], "", cells[4]]) + "\n" for cells in rows))
    with pytest.raises(UserError, match="no reader had read any of the news"):
        clicks.evaluate(result.run, str(readers))


def test_a_run_whose_vectors_are_no_numbers_is_refused(result: Result, readers: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "news" / "astray"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text((result.run / "run.json").read_text())
    state = checkpoint.load(result.run / BEST)
    weights = {name: torch.full_like(each, math.nan) for name, each in state["state_dict"].items()}
    (folder / BEST).parent.mkdir()
    checkpoint.save(state | {"state_dict": weights}, folder / BEST)
    with pytest.raises(UserError, match="no numbers: its training went astray"):
        clicks.evaluate(folder, str(readers))


def test_scores_of_candidates_are_of_their_own_reader_whatever_the_order_of_the_file() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((10, 4))
    histories, shown = [[0, 1], [2]], [[5, 6, 7], [7, 5]]
    known = of_impressions([[1, 0, 0], [1, 0]], histories, shown)
    swapped = of_impressions([[1, 0], [1, 0, 0]], histories[::-1], shown[::-1])
    found, again = clicks.scores(known, vectors), clicks.scores(swapped, vectors)
    assert found == pytest.approx(np.concatenate([again[2:], again[:2]]))
    assert clicks.measure(known, found) == pytest.approx(clicks.measure(swapped, again)[::-1])
    assert not np.isnan(clicks.scores(replace(known, histories=known.histories[::-1]), vectors)).any()
