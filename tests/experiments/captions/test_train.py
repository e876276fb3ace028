from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import trainlab
from experiments.captions import train as report
from experiments.captions.config import CaptionsConfig
from experiments.captions.model import CaptionsModel
from experiments.captions.train import Result, caption, train
from trainlab.errors import UserError

NOT_REPEATABLE = ("vitals/",)


@pytest.fixture(scope="module")
def result(tiny: CaptionsConfig, tmp_path_factory: pytest.TempPathFactory) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINLAB_LOGS", str(tmp_path_factory.mktemp("logs")))
        patch.delenv("TRAINLAB_RUN", raising=False)
        patch.setattr("experiments.captions.data.MEASURED", 20)
        return train(tiny)


def curves(result: Result) -> pd.DataFrame:
    history = result.history()
    kept = history[~history["tag"].str.startswith(NOT_REPEATABLE)]
    return kept[["tag", "step", "value"]].reset_index(drop=True)


def test_a_run_leaves_its_folder_behind(result: Result) -> None:
    record = json.loads((result.run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["config"]["pictures"] == 48
    assert record["data"]["training"] == 48
    assert record["data"]["sha256"] == result.corpus.sha256
    assert record["tested"]["commonest caption"]["bleu"] == result.table().loc["bleu", "commonest caption"]
    assert record["best_checkpoint"]["path"] == "checkpoints/best.ckpt"
    assert json.loads((result.run / "vocabulary.json").read_text()) == list(result.model.vocabulary.words)


def test_every_curve_is_there_over_global_steps(result: Result) -> None:
    steps = {tag: points["step"].tolist() for tag, points in result.history().groupby("tag")}
    assert steps["train/loss"] == list(range(12))
    for tag in ("train/loss_epoch", "val/loss", "val/bleu", "val/exact_match"):
        assert steps[tag] == [5, 11]
    for tag in ("test/loss", "test/bleu", "test/exact_match"):
        assert steps[tag] == [12]
    assert steps["val_commonest/bleu"] == [0, 12]


def test_tensorboard_shows_pictures_with_captions_each_epoch(result: Result) -> None:
    events = EventAccumulator(str(result.run), size_guidance={"images": 0})
    events.Reload()
    known = {tag.partition("/")[0] for kind in ("scalars", "images") for tag in events.Tags()[kind]}
    assert sorted(known) == ["test", "train", "val", "val_commonest", "views", "vitals"]
    assert events.Tags()["images"] == ["views/captions"]
    assert [image.step for image in events.Images("views/captions")] == [5, 11]
    assert min(image.width for image in events.Images("views/captions")) > 500


def test_the_table_shows_the_test_beside_the_commonest_caption(result: Result) -> None:
    table = result.table()
    assert list(table.columns) == ["trained", "commonest caption"]
    assert list(table.index) == ["loss", "bleu", "exact_match"]
    assert table.loc["exact_match", "commonest caption"] == 0, "each scene of the test is new"
    history = result.history().set_index("tag")["value"]
    assert table.loc["loss", "trained"] == pytest.approx(history["test/loss"])


def test_figures_and_decodings_are_there(result: Result) -> None:
    assert len(result.pictures(5).axes) == 8
    assert len(result.curves().axes) == 3
    decodings = result.decodings((1, 2))
    assert decodings.index.tolist() == [1, 2]
    assert decodings.loc[1, "bleu"] == pytest.approx(result.table().loc["bleu", "trained"], abs=1e-4)


def test_the_best_checkpoint_captions_arrays_and_files(result: Result, tmp_path: Path) -> None:
    pictures = result.corpus.pictures[result.corpus.test[:3]]
    expected = result.model.caption(report.seen(result.corpus, result.corpus.test[:3]))
    assert caption(result.run, pictures) == expected
    assert result.say(pictures) == expected
    Image.fromarray(pictures[1]).save(tmp_path / "one.png")
    assert caption(result.run, [tmp_path / "one.png", pictures[0]]) == [expected[1], expected[0]]
    assert caption(result.run, str(tmp_path / "one.png"), beam=3) == caption(result.run, pictures[1], beam=3)


def test_lightning_loads_the_checkpoint_without_an_argument(result: Result) -> None:
    loaded = CaptionsModel.load_from_checkpoint(result.run / "checkpoints" / "best.ckpt", weights_only=True)
    ours = result.model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ("nowhere.png", r"nowhere\.png can't be read"),
        ([], "No picture"),
        (np.zeros((2, 8, 8), np.uint8), r"expected \[H, W, 3\]"),
        (np.zeros((8, 8, 3)), "float64: expected"),
    ],
)
def test_what_is_no_picture_is_refused(result: Result, images: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        caption(result.run, images)


def test_a_run_of_another_experiment_or_without_checkpoint_is_refused() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    for experiment, said in (("mine", "no run of the captions experiment"), ("captions", "no epoch of it")):
        with trainlab.Run(experiment) as run:
            pass
        with pytest.raises(UserError, match=said):
            caption(run.folder, picture)


def test_a_beam_of_nothing_is_refused(result: Result) -> None:
    with pytest.raises(UserError, match="beam=0: expected 1 or more"):
        result.say(result.corpus.pictures[:1], beam=0)


def test_measures_count_word_for_word_and_any_reference() -> None:
    found = report.measures(["a b c d", "a b c e"], [["x", "a b c d"], ["a b c d"]])
    assert found["exact_match"] == 0.5
    assert 0.5 < found["bleu"] < 1
    assert report.measures(["a b c d"], [["a b c d"]]) == {"bleu": 1, "exact_match": 1}


def test_a_killed_training_is_resumed_to_the_same_weights_and_curves(
    tiny: CaptionsConfig, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.model_copy(update={"checkpoint_every": "4"})
    step = CaptionsModel.training_step

    def dying(self: CaptionsModel, batch: Any) -> Any:
        if self.trainer.global_step == 9:
            raise RuntimeError("killed")
        return step(self, batch)

    monkeypatch.setattr(CaptionsModel, "training_step", dying)
    with pytest.raises(RuntimeError, match="killed"):
        train(config)
    monkeypatch.setattr(CaptionsModel, "training_step", step)
    resumed = train(config.model_copy(update={"resume": "last"}))
    pd.testing.assert_frame_equal(curves(resumed), curves(result))
    last = torch.load(resumed.run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    once = torch.load(result.run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, once[name]) for name, value in last.items())


@pytest.mark.parametrize(
    "settings",
    [
        {"fast_dev_run": 2},
        {"limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1},
        {"overfit_batches": 1},
    ],
)
def test_the_debugging_settings_shorten_a_run(tiny: CaptionsConfig, settings: dict[str, Any]) -> None:
    found = train(tiny.model_copy(update={**settings, "epochs": 1}))
    losses = found.history().query("tag == 'train/loss'")
    assert len(losses) == {"fast_dev_run": 0, "limit_train_batches": 2}.get(next(iter(settings)), 1)
    assert found.table().loc["loss", "trained"] > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": "1"}, "greater than or equal to 2"),
        ({"data": "squares"}, "'shapes' or 'coco'"),
        ({"encoder_name": "tiny"}, "no such parameter"),
        ({"learning_rate": "-1"}, "learning_rate=-1"),
        ({"validation": "0.5"}, "less than 0.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        CaptionsConfig.parse(given)


def test_the_rate_is_the_chapters_for_coco() -> None:
    assert CaptionsConfig(data="coco").rate == 3e-4
    assert CaptionsConfig(learning_rate=0.1).rate == 0.1
