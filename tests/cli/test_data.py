from __future__ import annotations

import sys

import pytest

from trainlab import cli, experiments


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINLAB_DATA", str(tmp_path))
    return tmp_path


def call(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["trainlab", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    told = capsys.readouterr()
    return int(end.value.code or 0), told.out, told.err


def test_the_data_sets_of_all_experiments_are_listed(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "data", "list")
    assert code == 0
    for shown in ("coco", "mind-small", "sample", "shipped", "84 MB"):
        assert shown in out


def test_a_table_that_cannot_be_read_is_named(monkeypatch, capsys, tmp_path):
    table = tmp_path / "datasets.toml"
    monkeypatch.setattr(experiments, "with_file", lambda _: {"mine": table})
    for text, said in [
        ("[mine", "datasets.toml"),
        ("[mine]\nwhat = 'x'\n", "licence"),
        ("mine = 1", "mapping"),
    ]:
        table.write_text(text)
        code, _, err = call(monkeypatch, capsys, "data", "list")
        assert code == 2
        assert "can't be read" in err
        assert said in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["epochs=2"], "epochs: makes no difference to what is prepared"),
        (["per_category=x"], "per_category=x"),
        (["per_categry=2"], "Did you mean 'per_category'"),
        (["per_category=2"], "instances_train2017.json is not here"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_prepared(data, monkeypatch, capsys, words, told):
    code, _, err = call(monkeypatch, capsys, "prepare-coco", *words)
    assert code == 2
    assert told in err
    assert not [path for path in data.rglob("*") if path.is_file()]
