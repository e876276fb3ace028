"""A run of news becomes a bundle that answers as its network does, or nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.news.config import NewsConfig
from experiments.news.data import read
from experiments.news.export import recipe
from experiments.news.recommend import embed, recommend
from experiments.news.train import Result, train
from trainlab import paths
from trainlab.cli import app
from trainlab.errors import UserError
from trainlab.run import record
from trainlab.serving import bundle, engine, served
from trainlab.serving.export import export
from trainlab.serving.questions import NearestQuestion
from trainlab.serving.texts import Texts

pytest.importorskip("onnxscript")


@pytest.fixture(params=["contrastive", "triplet"])
def trained(tiny: NewsConfig, request: pytest.FixtureRequest) -> Result:
    return train(tiny.model_copy(update={"epochs": 1, "loss": request.param}))


def test_the_command_exports_a_run_and_its_bundle_answers_as_the_network_does(
    trained: Result, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["export-model", "last"])
    assert done.exit_code == 0, done.output
    (folder,) = [path for path in paths.models().iterdir() if path.is_dir()]
    assert f"exported: {folder}" in done.output.replace("\n", "")
    found = bundle.read(folder)
    assert folder.name == f"{trained.run.name}-{found.digest[:12]}"
    texts, news = Texts(found), trained.examples.news
    alone = np.concatenate([texts.run([texts.item(title)]) for title in news.table["title"]])
    assert np.abs(alone - embed(trained.model, news)).max() < 1e-4

    items, vectors = found.json("items.json"), found.array()
    assert vectors.dtype == np.float16
    assert len(vectors) == len(items["title"]) == len({*news.table["title"]})
    assert set(items) == {"id", "title", "category", "subcategory", "url"}

    card = found.json("card.json")
    assert card["gate"]["items"] == len(news.table)
    assert card["gate"]["other_top_ten_alone"] == 0
    assert card["data"] == {"path": "news.tsv", "rows": 45, "sha256": news.sha256, "unreadable": 0}
    for content in found.content.values():
        assert str(tmp_path).encode() not in content
        assert b"/site-packages/" not in content
    (noted,) = record.read(trained.run).exports  # type: ignore[attr-defined]
    assert noted["digest"] == found.digest


@pytest.mark.parametrize("loss", ["contrastive", "triplet"])
def test_a_network_of_titles_and_abstracts_with_frozen_layers_and_the_first_token(
    tiny: NewsConfig, loss: str
) -> None:
    settings = {"text": "title+abstract", "pooling": "cls", "freeze": 1, "epochs": 1, "loss": loss}
    run = train(tiny.model_copy(update=settings)).run
    made = export(run, recipe(run))
    assert made.figures["largest_difference_in_batches"] < 1e-4
    assert Texts(bundle.read(made.folder)).item("a", "") == ["a", "a"]


def test_an_export_that_answers_otherwise_is_deleted_and_the_figures_are_told(article: NewsConfig) -> None:
    trained = train(article.model_copy(update={"epochs": 1}))
    made = recipe(trained.run)
    network = made.networks["text.onnx"]
    network.module.head[-1].bias.data += 0.01  # type: ignore[index,union-attr]
    with pytest.raises(UserError, match=r"largest difference alone: 0.01, expected 0.0001 at most.*deleted"):
        export(trained.run, made)
    assert list(paths.models().iterdir()) == []
    assert not hasattr(record.read(trained.run), "exports")


def test_an_export_that_onnxruntime_cannot_run_is_deleted(trained: Result) -> None:
    made = recipe(trained.run)
    wrong = dataclasses.replace(made.networks["text.onnx"], axes={})
    with pytest.raises(UserError, match=r"invalid dimensions.*deleted"):
        export(trained.run, dataclasses.replace(made, networks={"text.onnx": wrong}))
    assert list(paths.models().iterdir()) == []


def test_int8_is_refused_with_what_was_measured(trained: Result) -> None:
    done = CliRunner().invoke(app, ["export-model", "last", "--int8"])
    assert isinstance(done.exception, UserError)
    assert "int8 is not offered here: with 8 bits 83 of 100" in str(done.exception)
    assert not paths.models().exists()


def test_news_that_changed_since_the_run_are_not_exported_in_its_name(
    trained: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(read(trained.config.data), sha256="0" * 64)
    monkeypatch.setattr("experiments.news.export.read", lambda _: other)
    with pytest.raises(UserError, match="has changed since the run: 45 rows then, 45 now"):
        recipe(trained.run)


def test_a_bundle_that_is_copied_elsewhere_is_checked_by_the_command(trained: Result, tmp_path: Path) -> None:
    made = export(trained.run, recipe(trained.run), tmp_path / "there")
    assert made.folder.parent == tmp_path / "there"
    (paths.models() / bundle.TRUSTED).unlink()
    call = ["check-model", str(made.folder)]
    refused = CliRunner().invoke(app, call)
    assert isinstance(refused.exception, UserError)
    assert "was not exported here" in str(refused.exception)
    assert CliRunner().invoke(app, [*call, "--trust", made.digest]).exit_code == 0
    told = CliRunner().invoke(app, call)
    assert f"nearest: whole, digest {made.digest}" in told.output.replace("\n", "")


def test_a_folder_for_the_hub_gives_the_same_vectors_by_its_own_card(
    trained: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = CliRunner().invoke(app, ["export-model", "last", "--format", "hub"])
    assert done.exit_code == 0, (done.output, done.exception)
    (folder,) = [path for path in paths.models().iterdir() if path.is_dir()]
    card = (folder / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    title = trained.examples.news.table["title"][0]
    monkeypatch.chdir(folder)
    known: dict[str, object] = {}
    exec(code.replace("Ten easy pasta dinners", title), known)
    found = known["vectors"].detach().numpy()  # type: ignore[attr-defined]
    assert np.abs(found - trained.vectors[:1]).max() < 1e-4
    assert "license:" in card and str(paths.models()) not in card
    assert bundle.read(folder).kind == "hub"


def test_a_run_that_is_to_be_served_is_exported_first_and_the_page_says_what_recommend_says(
    trained: Result,
) -> None:
    done = CliRunner().invoke(app, ["serve", "last", "--choose"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "has no bundle" in done.output
    again = CliRunner().invoke(app, ["serve", "last", "--choose"])
    assert again.output.splitlines() == done.output.splitlines()[-1:], "the second time it is there"
    runner = engine.load(served.names()).runners["nearest"]
    for title in ("storm in the sun", "a bank that is not there"):
        expected = recommend(trained.run, title, 5)
        found = runner.answer(NearestQuestion(title=title, k=5)).items
        assert [each.title for each in found] == expected["title"].tolist()
        assert [each.distance for each in found] == pytest.approx(expected["distance"].tolist(), abs=0.01)


def test_links_that_are_no_web_addresses_are_left_out(trained: Result) -> None:
    from experiments.news.export import item_files

    news = trained.examples.news
    news.table["url"] = ["javascript:alert(1)", "https://a.example/x", *[""] * (len(news.table) - 2)]
    listed = json.loads(item_files(news, trained.vectors.astype(np.float32))["items.json"])
    assert [each for each in listed["url"] if each] == ["https://a.example/x"]
