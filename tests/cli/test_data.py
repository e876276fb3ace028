from __future__ import annotations

import sys

import pytest

from trainlab import cli, freezing, paths
from trainlab.config import Config


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINLAB_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def toy(monkeypatch):
    """Stands for the news experiment, so that freezing takes no time."""

    class Settings(Config):
        data: str = "toy"
        size: int = 3
        epochs: int = 1

    class Module:
        CONFIG = Settings

        @staticmethod
        def recipe(config):
            def prepare(folder, report):
                (folder / "numbers.bin").write_bytes(bytes(config.size * 1000))

            return freezing.Recipe("news", config, ("data", "size"), {}, prepare)

    monkeypatch.setitem(sys.modules, "experiments.news.frozen", Module)


def call(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["trainlab", "data", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    told = capsys.readouterr()
    return int(end.value.code or 0), told.out, told.err


def test_freezing_says_where_and_how_much(toy, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "freeze", "news", "size=500")
    assert code == 0
    assert f"frozen: {paths.data() / 'frozen' / 'news-toy.zip'}" in out
    assert "1 files, 0.5 MB" in out


def test_frozen_data_is_listed_with_its_settings_and_a_damaged_archive_is_told(toy, monkeypatch, capsys):
    call(monkeypatch, capsys, "freeze", "news")
    (paths.data() / "frozen" / "other.zip").write_text("none")
    code, out, _ = call(monkeypatch, capsys, "list")
    assert code == 0
    assert "coco" in out
    assert "data=toy size=3" in " ".join(out.split())
    assert "damaged" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["newz"], "Did you mean 'news'"),
        (["news", "epochs=2"], "epochs: makes no difference to the data"),
        (["news", "size=x"], "size=x"),
        (["news", "sise=2"], "Did you mean 'size'"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_frozen(toy, monkeypatch, capsys, words, told):
    code, _, err = call(monkeypatch, capsys, "freeze", *words)
    assert code == 2
    assert told in err
    assert freezing.archives() == []


def test_every_experiment_that_can_be_frozen_makes_its_recipe():
    from importlib import import_module

    from trainlab.cli.data import FREEZABLE

    for name in FREEZABLE:
        module = import_module(f"trainlab.{name}.frozen")
        recipe = module.recipe(module.CONFIG())
        assert recipe.experiment == name
        assert set(recipe.keys) <= set(module.CONFIG.model_fields)
        assert "data" in recipe.settings
