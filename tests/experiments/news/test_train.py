from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import trainlab
from experiments.news import train as report
from experiments.news.config import NewsConfig
from experiments.news.model import NewsModel
from experiments.news.recommend import VECTORS, recommend, saved_vectors
from experiments.news.train import BASELINES, METRICS, Result, as_markdown, category_distances, train
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.run.restoring import BEST, restore
from trainlab.runs import columns, listing

NOT_REPEATABLE = ("vitals/",)


@pytest.fixture(scope="module")
def events(result: Result) -> EventAccumulator:
    accumulator = EventAccumulator(str(result.run))
    accumulator.Reload()
    return accumulator


def test_a_run_leaves_its_folder_behind(result: Result) -> None:
    record = json.loads((result.run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["config"]["class_size"] == 8
    assert record["data"]["rows"] == 45
    assert record["metrics"] == list(METRICS)
    names = {path.name for path in (result.run / "checkpoints").iterdir()}
    kept = {"best.ckpt", "last.ckpt", "step-00000005.ckpt", "step-00000010.ckpt"}
    assert names == kept | {f"{name}.sha256" for name in kept}
    assert not list(result.run.rglob("lightning_logs"))


def test_every_curve_is_there_over_global_steps(result: Result) -> None:
    history = result.history()
    steps = {tag: points["step"].tolist() for tag, points in history.groupby("tag")}
    assert steps["train/loss"] == list(range(10))
    assert steps["train/loss_epoch"] == [4, 9]
    assert steps["train/lr"] == steps["vitals/samples_per_second"] == list(range(10))
    assert all(steps[tag] == [4, 9] for tag in METRICS)
    for system in BASELINES:
        names = {tag.replace("val", f"val_{system}") for tag in METRICS} - {"val_untrained_euclidean/loss"}
        assert all(steps[name] == [0, 10] for name in names)
    assert steps["test/precision_at_10"] == steps["test/mrr"] == [10]


def test_tensorboard_gets_histograms_pictures_texts_and_the_projector(
    result: Result, events: EventAccumulator
) -> None:
    tags = events.Tags()
    assert set(tags["distributions"]) == {"views/distances_positive", "views/distances_negative"}
    assert tags["images"] == ["views/similarity"]
    assert "recommendations/text_summary" in tags["tensors"]
    metadata = next(result.run.rglob("metadata.tsv")).read_text().splitlines()
    assert metadata[0] == "title\tcategory\tsubcategory"
    assert len(metadata) == 1 + len(result.examples.unseen)
    assert len(next(result.run.rglob("tensors.tsv")).read_text().splitlines()) == len(result.examples.unseen)


def test_tensorboard_shows_what_was_learned_before_baselines_and_pictures(events: EventAccumulator) -> None:
    tags = events.Tags()
    known = {tag.partition("/")[0] for kind in ("scalars", "images", "distributions") for tag in tags[kind]}
    baselines = ["val_tfidf", "val_untrained_cosine", "val_untrained_euclidean"]
    assert sorted(known) == ["test", "train", "val", *baselines, "views", "vitals"]


def test_the_table_says_what_each_column_is_and_reports_the_test(result: Result) -> None:
    table = result.table()
    cosine = f"untrained, cosine ({result.pooling})"
    assert list(table.columns) == ["untrained, Euclidean (mean)", cosine, "TF-IDF", "trained"]
    assert list(table.index) == [tag.removeprefix("val/") for tag in METRICS]
    assert table.index.name == "test, 9 items"
    assert table.loc["loss", "trained"] < table.loc["loss", cosine]
    assert np.isnan(table.loc["loss", "untrained, Euclidean (mean)"]), "no loss of cosines"
    assert json.loads((result.run / "run.json").read_text())["tested"] == result.metrics["test"]


def test_the_untrained_backbone_is_pooled_as_its_makers_say_or_by_the_better_way(
    tiny: NewsConfig, result: Result, tmp_path: Path
) -> None:
    backbone = Path(shutil.copytree(tiny.backbone, tmp_path / "bert"))
    (backbone / "1_Pooling").mkdir()
    measured = {}
    for pooling in ("mean", "cls"):
        said = {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_cls_token": pooling == "cls"}
        (backbone / "1_Pooling" / "config.json").write_text(json.dumps(said))
        found = train(tiny.model_copy(update={"backbone": str(backbone), "trained": False}))
        assert found.pooling == pooling
        measured[pooling] = found.metrics["validation"]["untrained_cosine"]
    assert measured[result.pooling] == result.metrics["validation"]["untrained_cosine"]
    assert measured[result.pooling]["precision_at_10"] == max(
        each["precision_at_10"] for each in measured.values()
    )


def test_cosine_and_euclidean_distance_are_the_untrained_backbones_two_ways(
    tiny: NewsConfig, result: Result
) -> None:
    plain = train(tiny.model_copy(update={"trained": False, "loss": "triplet", "pooling": result.pooling}))
    model = NewsModel.pretrained(plain.config)
    titles = plain.examples.news.texts("title")
    vectors = model.embed_raw(model.tokenize([titles[row] for row in plain.examples.unseen])).double()
    scaled = (vectors / vectors.norm(dim=1, keepdim=True)).numpy()
    found = plain.metrics["validation"]
    assert found["untrained_euclidean"] == plain.examples.measure(vectors.numpy(), plain.config)
    assert found["untrained_cosine"] == pytest.approx(plain.examples.measure(scaled, plain.config))
    assert found["untrained_cosine"]["mrr"] == result.metrics["validation"]["untrained_cosine"]["mrr"]


def test_all_of_the_trained_column_is_of_the_epoch_with_the_best_precision(result: Result) -> None:
    curves = result.history().pivot_table(index="step", columns="tag", values="value")
    step = curves["val/precision_at_10"].idxmax()
    for tag in METRICS:
        found = result.metrics["validation"]["trained"][tag.removeprefix("val/")]
        assert found == pytest.approx(curves.loc[step, tag], abs=1e-5)
    (row,) = [each for each in listing.rows(result.run.parents[1]) if each.folder == result.run]
    assert row.best["val/precision_at_10"] == pytest.approx(
        result.metrics["validation"]["trained"]["precision_at_10"], abs=1e-5
    )
    assert row.best_steps["val/precision_at_10"] == step
    assert columns.main_metrics([row])[0] == "val/precision_at_10"


def test_pictures_are_drawn(result: Result) -> None:
    assert len(result.curves().axes) == 3
    assert len(result.similarity().axes) == 2  # the picture and its scale


def test_the_distance_between_categories_equals_a_loop(result: Result) -> None:
    vectors = result.unseen()
    near = category_distances(result.examples, vectors)
    categories = result.examples.news.table["category"].iloc[result.examples.unseen].tolist()
    pairs = [
        np.linalg.norm(vectors[i] - vectors[j])
        for i, one in enumerate(categories)
        for j, other in enumerate(categories)
        if i != j and (one, other) == ("sports", "weather")
    ]
    assert near.loc["sports", "weather"] == pytest.approx(np.mean(pairs))
    own = [
        np.linalg.norm(vectors[i] - vectors[j])
        for i, one in enumerate(categories)
        for j, other in enumerate(categories)
        if i != j and one == other == "sports"
    ]
    assert near.loc["sports", "sports"] == pytest.approx(np.mean(own))


def test_two_runs_with_one_seed_have_identical_curves(tiny: NewsConfig, result: Result) -> None:
    torch.manual_seed(99)  # whatever went before
    pd.testing.assert_frame_equal(curves(result), curves(train(tiny)), check_exact=True)


def curves(result: Result) -> pd.DataFrame:
    points = result.history()
    points = points[~points["tag"].str.startswith(NOT_REPEATABLE)].sort_values(["tag", "step"])
    return points[["tag", "step", "value"]].reset_index(drop=True)


def test_a_resumed_run_equals_one_that_did_not_stop(tiny: NewsConfig, result: Result) -> None:
    first = train(tiny.model_copy(update={"epochs": 1}))
    resumed = train(tiny.model_copy(update={"resume": "last"}))
    assert resumed.run == first.run
    assert resumed.metrics == result.metrics
    pd.testing.assert_frame_equal(curves(resumed), curves(result), check_exact=True)


@pytest.mark.parametrize("changes", [{}, {"loss": "triplet", "mining": "all"}])
def test_batches_of_groups_are_resumed_in_the_middle_of_an_epoch(tiny: NewsConfig, changes: dict) -> None:
    mined = tiny.model_copy(update={"items_per_class": 2} | changes)
    whole = train(mined.model_copy(update={"checkpoint_every": "5", "keep": 9}))
    steps = sorted(path.stem for path in (whole.run / "checkpoints").glob("step-*.ckpt"))
    before = curves(whole)
    train(mined.model_copy(update={"resume": str(whole.run / "checkpoints" / f"{steps[0]}.ckpt")}))
    assert len(steps) > 2, "one of them in the middle of an epoch"
    pd.testing.assert_frame_equal(curves(whole), before, check_exact=True)


def test_a_run_that_stopped_in_its_last_evaluation_is_resumed_there(
    tiny: NewsConfig, result: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(report, "log_embeddings", interrupt)
        train(tiny)
    assert "epoch 2/2" in capsys.readouterr().out
    resumed = train(tiny.model_copy(update={"resume": "last"}))
    assert "epoch 2/2" not in capsys.readouterr().out
    record = json.loads((resumed.run / "run.json").read_text())
    assert (record["status"], record["resumes"][0]["step"]) == ("finished", 10)
    pd.testing.assert_frame_equal(curves(resumed), curves(result), check_exact=True)


def test_a_fast_development_run_goes_through_everything_and_records_nothing(
    tiny: NewsConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = train(tiny.model_copy(update={"fast_dev_run": 1}))
    assert "fast_dev_run: all of it works" in capsys.readouterr().out
    assert tried.history().empty
    assert not list(tried.run.rglob("*.ckpt"))
    assert set(tried.metrics["test"]) == {*BASELINES, "trained"}
    assert tried.curves() is not None
    assert len(tried.recommendations("win in the cup", k=3)) == 3


def test_another_seed_gives_other_curves(tiny: NewsConfig, result: Result) -> None:
    other = train(tiny.model_copy(update={"seed": 1}))
    assert other.metrics["test"]["trained"]["loss"] != result.metrics["test"]["trained"]["loss"]


def test_recommending_from_the_folder_equals_recommending_at_once(result: Result) -> None:
    titles = ["win in the cup", "Snow in the SUN"]
    later = recommend(result.run, titles, k=4)
    pd.testing.assert_frame_equal(later, result.recommendations(titles, k=4))
    assert list(later.columns) == ["query", "rank", "title", "category", "distance"]
    assert later["rank"].tolist() == [1, 2, 3, 4] * 2
    assert later.groupby("query")["distance"].apply(lambda each: each.is_monotonic_increasing).all()


def test_recommendations_use_the_distance_of_training(result: Result) -> None:
    best = restore(NewsModel, result.run / "checkpoints" / "best.ckpt")
    found = recommend(result.run, "win in the cup", k=1).iloc[0]
    query, answer = best.embed(best.tokenize([["win in the cup"], [found["title"]]]))
    assert found["distance"] == pytest.approx(torch.dist(query, answer).item(), abs=1e-4)


def test_a_title_that_is_news_itself_is_answered_without_the_network(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    title = result.examples.news.table["title"].iloc[3]
    expected = result.recommendations(title, k=4)
    monkeypatch.delattr("experiments.news.recommend.restore")
    pd.testing.assert_frame_equal(recommend(result.run, title, k=4), expected)


@pytest.mark.parametrize("content", [None, b"PK no zip"])
def test_vectors_of_all_news_that_are_missing_or_damaged_are_made_again(
    content: bytes | None, result: Result, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(result.run, tmp_path / "run"))
    (run / VECTORS).unlink()
    if content is not None:
        (run / VECTORS).write_bytes(content)
    title = result.examples.news.table["title"].iloc[3]
    pd.testing.assert_frame_equal(recommend(run, title, k=4), result.recommendations(title, k=4))
    assert saved_vectors(run, result.examples.news) == pytest.approx(result.vectors, abs=1e-5)


def test_vectors_of_another_network_are_not_taken(result: Result, tmp_path: Path) -> None:
    run = Path(shutil.copytree(result.run, tmp_path / "run"))
    assert saved_vectors(run, result.examples.news) is not None
    state = checkpoint.load(run / BEST)
    weights = state["state_dict"]
    words = max(weights, key=lambda name: weights[name].numel())
    weights[words] = weights[words].flip(0)
    checkpoint.save(state, run / BEST)
    assert saved_vectors(run, result.examples.news) is None
    recommend(run, "win in the cup", k=1)
    assert saved_vectors(run, result.examples.news) != pytest.approx(result.vectors, abs=1e-2)


def test_a_known_title_is_not_recommended_to_itself(result: Result) -> None:
    title = result.examples.news.table["title"].iloc[3]
    found = recommend(result.run, [f"  {title.upper()} "], k=100)
    assert title not in set(found["title"])
    assert len(found) == found["title"].nunique() == 44


def test_shown_titles_are_unseen_and_of_different_categories(result: Result) -> None:
    table = result.examples.news.table.set_index("title")
    shown = result.titles()
    assert table.loc[shown, "category"].nunique() == len(shown) == 3
    assert set(shown) <= set(result.examples.news.table["title"].iloc[result.examples.unseen])


@pytest.mark.parametrize(
    ("titles", "k", "said"), [([], 10, "No title"), ([" "], 10, "empty"), (["x"], 0, "k=0")]
)
def test_impossible_questions_are_refused(result: Result, titles: list[str], k: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        recommend(result.run, titles, k)


def test_changed_data_is_warned_about_by_name(tiny: NewsConfig, tmp_path: Path) -> None:
    own = tmp_path / "own.tsv"
    own.write_text(Path(tiny.data).read_text())
    run = train(tiny.model_copy(update={"data": str(own), "trained": False})).run
    with own.open("a") as file:
        file.write("N99\tsports\tsports\tA new game\t\t\t[]\t[]\n")
    with pytest.warns(UserWarning, match=r"own\.tsv has changed.*45 rows then, 46 now"):
        recommend(run, "win in the cup", k=1)


def test_an_untrained_run_is_measured_and_can_recommend(tiny: NewsConfig) -> None:
    result = train(tiny.model_copy(update={"trained": False}))
    assert "trained" not in result.table()
    validated = result.history().query("tag == 'val/mrr'")["value"].tolist()
    assert validated == pytest.approx([result.examples.measure(result.unseen(), result.config)["mrr"]])
    assert len(recommend(result.run, "win in the cup", k=3)) == 3


def test_a_run_of_another_experiment_is_refused(own_logs: Path) -> None:
    with trainlab.Run("other", {"width": 3}) as run:
        run.log({"train/loss": 1.0}, 0)
    with pytest.raises(UserError, match="no run of the news experiment"):
        recommend(run.folder, "win")


def test_a_run_without_a_checkpoint_is_refused(tiny: NewsConfig, own_logs: Path) -> None:
    with trainlab.Run("news", tiny) as run:
        run.log({"train/loss": 1.0}, 0)
    with pytest.raises(UserError, match=r"has no checkpoints/best\.ckpt"):
        recommend(run.folder, "win")


def test_a_bad_setting_leaves_no_run(tiny: NewsConfig, own_logs: Path) -> None:
    with pytest.raises(UserError):
        train(tiny.model_copy(update={"data": "/nowhere/news.tsv"}))
    assert not own_logs.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "title+abstract", "pooling": "cls"},
        {"split": "triplet", "min_class_items": 2},
        {"precision": "bf16-mixed"},
        {"loss": "triplet", "split": "triplet", "min_class_items": 2},
        {"loss": "triplet", "text": "title+abstract", "pooling": "cls", "precision": "bf16-mixed"},
        {"loss": "triplet", "mining": "all", "average": "violating"},
        {"loss": "triplet", "mining": "hard", "test": 0},
    ],
)
def test_the_other_settings_train_too(tiny: NewsConfig, changes: dict) -> None:
    table = train(tiny.model_copy(update={"epochs": 1} | changes)).table()
    assert np.isfinite(table["trained"].to_numpy()).all()


def test_markdown_keeps_strange_titles_in_their_cells() -> None:
    row = {"query": "a|b", "rank": 1, "title": "c|d", "category": "x", "distance": 0.5}
    text = as_markdown(pd.DataFrame([row]))
    assert re.search(r"\| 1 \| c\\\|d \| x \| 0\.500 \|", text)


@pytest.mark.gpu
def test_a_gpu_measures_what_the_cpu_measures_and_trains(tiny: NewsConfig, result: Result) -> None:
    on_gpu = train(tiny.model_copy(update={"accelerator": "cuda"}))
    assert next(on_gpu.model.parameters()).is_cuda
    for system in BASELINES:
        expected = result.metrics["validation"][system]
        assert on_gpu.metrics["validation"][system] == pytest.approx(expected, rel=1e-2)
    losses = on_gpu.history().query("tag == 'train/loss'")["value"]
    assert losses.iloc[-1] < losses.iloc[0]


@pytest.mark.gpu
@pytest.mark.parametrize(
    "batches",
    [{"items_per_class": 2}, {"loss": "triplet"}, {"loss": "triplet", "mining": "all", "items_per_class": 2}],
)
def test_a_run_on_a_gpu_that_stopped_in_an_epoch_is_resumed_to_the_same_curves(
    tiny: NewsConfig, batches: dict
) -> None:
    config = tiny.model_copy(update={"accelerator": "cuda", "checkpoint_every": "3", "keep": 9} | batches)
    whole = train(config)
    before = curves(whole)
    steps = sorted(path.stem for path in (whole.run / "checkpoints").glob("step-*.ckpt"))
    train(config.model_copy(update={"resume": str(whole.run / "checkpoints" / f"{steps[0]}.ckpt")}))
    pd.testing.assert_frame_equal(curves(whole), before, check_exact=True)


def test_settings_of_another_loss_are_named(tiny: NewsConfig, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny.model_copy(update={"trained": False, "batch_size": 256, "margin": 5.0, "mining": "all"}))
    assert "warning: with loss=contrastive this changes nothing: margin, mining\n" in capsys.readouterr().out
    train(tiny.model_copy(update={"trained": False, "loss": "triplet", "margin": 5.0}))
    assert "changes nothing" not in capsys.readouterr().out
