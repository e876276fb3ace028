from __future__ import annotations

import pytest

from runs_folder import make, points
from trainlab.errors import UserError
from trainlab.runs import listing, query


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Three runs of news, the newest first, and one without a record."""
    logs = tmp_path_factory.mktemp("logs")
    a = {"margin": 3.0, "trained": True, "backbone": "minilm", "lr": 1e-4, "layers": [64, 32]}
    make(
        logs, "news/a", minutes_ago=60, config=a, best=points(val_loss=0.1), last=points(val_loss=0.3, f1=0.9)
    )
    b = {"margin": 5.0, "trained": False, "backbone": "two words", "resume": None}
    make(logs, "news/b", minutes_ago=9 * 24 * 60, config=b, best=points(val_loss=0.3), status="failed")
    make(logs, "words/c", minutes_ago=10 * 24 * 60, config={"margin": 10.0, "lr": 0.1}, status="interrupted")
    (logs / "foreign").mkdir()
    (logs / "foreign" / "events.out.tfevents.1.x").touch()
    return listing.rows(logs)


def names(rows, *texts):
    return "".join(row.run[0] for row in query.select(rows, *texts))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("margin>=5", "bc"),
        ("margin >= 5 and val/loss < 0.5", "b"),
        ("margin=3 or margin=10", "ac"),
        ("margin=3 or margin=5 and val/loss>1", "a"),  # `and` binds more tightly
        ("(margin=3 or margin=5) and val/loss>0.2", "b"),
        ("not margin=5", "acf"),
        ("not (margin=3 or margin=5)", "cf"),
        ("NOT margin=5 AND experiment=news", "a"),
        ("margin!=5", "acf"),
        ("lr==1e-4", "a"),
        ("lr=none", "bf"),
        ("val/loss<0.2", "a"),  # the best
        ("last.val/loss<0.2", ""),
        ("last.val/loss<0.2 or best.val/loss<0.2", "a"),
        ("trained=true", "a"),
        ("trained=False", "b"),
        ("backbone='two words'", "b"),
        ("backbone=minilm", "a"),
        ("layers=64", "a"),
        ("status=finished", "a"),
        ("status!=finished", "bcf"),
        ("status=running", ""),
        ("experiment=words", "c"),
        ("age<7d", "a"),
        ("age>1w", "bc"),
        ("age<=7200", "a"),
        ("seconds<5m", "abc"),
        ("started<2000-01-01", ""),
        ('"margin"="5"', "b"),
        ("", "abcf"),
    ],
)
def test_a_filter_chooses_runs(rows, text, expected):
    assert names(rows, text) == expected


def test_several_filters_must_all_be_fulfilled(rows):
    assert names(rows, "margin>=3", 'status="failed"', "") == "b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("marginn>5", "Did you mean 'margin'?"),
        ("val/los<5", "Did you mean 'val/loss'?"),
        ("agee<7d", "Did you mean 'age'?"),
        ("status=finishd", "Did you mean 'finished'?"),
        ("experiment=nws", "Did you mean 'news'?"),
        ("margin>=wide", "margin is a number"),
        ("trained=perhaps", "true or false"),
        ("started>yesterday", "a date"),
        ("age<7y", "Expected a number with s, m, h, d or w"),
    ],
)
def test_a_typo_is_refused_with_what_was_meant(rows, text, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        query.select(rows, text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("margin", 6),
        ("margin>>5", 7),
        ("margin=5 margin=3", 9),
        ("(margin=5", 9),
        ("margin=5)", 8),
        ("margin=5 and", 12),
        ("margin ! 5", 7),
        ("margin='5", 7),
        ("and=3", 0),
        ("()", 1),
        ("__import__('os').getcwd()", 10),
    ],
)
def test_a_broken_filter_is_shown_with_the_place(rows, text, place):
    with pytest.raises(UserError) as caught:
        query.select(rows, text)
    assert str(caught.value).splitlines()[1:] == [f"  {text}", f"  {' ' * place}^"]


def test_brackets_without_end_are_an_error_and_no_crash(rows):
    for deep in (
        "(" * 100_000,
        "margin=3 and " + "not " * 1000 + "margin=3",
        "(" * 300 + "margin=3" + ")" * 300,
    ):
        with pytest.raises(UserError, match="flatter"):
            query.select(rows, deep)
    assert names(rows, "(" * 150 + "margin=3" + ")" * 150) == "a"
    assert names(rows, "not " * 200 + "margin=3") == "a"


def test_without_runs_nothing_is_chosen_and_only_the_form_is_checked():
    assert query.select([], "margin>5") == []
    with pytest.raises(UserError):
        query.select([], "margin>")
