from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.captions.batches import CaptionsData, crop
from experiments.captions.coco import SIDE, cache_folder, prepare, side_of
from experiments.captions.config import CaptionsConfig
from experiments.captions.data import Vocabulary, draw_corpus
from experiments.captions.train import caption, train
from full_disk import largest_file
from trainlab.errors import UserError

LEFT_OUT = [
    "000000000005.jpg: no caption",
    "000000000003.jpg: unreadable",
    "000000000004.jpg: missing",
]


@pytest.fixture
def config(tiny: CaptionsConfig) -> CaptionsConfig:
    changes = {"data": "coco", "per_category": 8, "validation": 0.3, "test": 0.3, "epochs": 1}
    return tiny.model_copy(update={**changes, "batch_size": 4, "min_word_count": 2})


def test_without_coco_the_commands_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINLAB_DATA", str(tmp_path))
    with pytest.raises(UserError, match="trainlab data fetch coco && trainlab prepare-coco"):
        CaptionsConfig(data="coco").preflight()
    with pytest.raises(UserError, match=r"instances_train2017\.json is not here.*trainlab data fetch coco"):
        prepare(CaptionsConfig(data="coco"))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_the_largest_pictures_of_the_categories_are_taken_and_the_broken_ones_named(
    coco_folder: Path, config: CaptionsConfig
) -> None:
    prepare(config)
    corpus = draw_corpus(config)
    expected = [0, 1, 2, *range(7, 17)]  # not 6, a crowd; nor 17 and later, too small or of another category
    assert list(corpus.keys) == [f"{number:012}.jpg" for number in expected]
    assert list(corpus.left_out) == LEFT_OUT
    assert all(each in corpus.summary() for each in ("left out: 3", *LEFT_OUT))
    assert corpus.fingerprint()["left_out"] == 3
    assert corpus.captions[0] == ["A thing, number 0.", "It is a thing!"]
    assert corpus.texts(0) == ["a thing number 0", "it is a thing"]
    assert corpus.pictures.shape == (13, SIDE, SIDE, 3)
    means = np.asarray(corpus.pictures).mean((1, 2, 3))
    assert means == pytest.approx([10 * number for number in expected], abs=2)


def test_a_picture_that_two_categories_choose_comes_once(coco_folder: Path, config: CaptionsConfig) -> None:
    path = coco_folder / "annotations" / "instances_train2017.json"
    said = json.loads(path.read_text())
    said["annotations"].append({"image_id": 0, "category_id": 43, "area": 5.0, "iscrowd": 0})
    path.write_text(json.dumps(said))
    prepare(config)
    assert list(draw_corpus(config).keys).count("000000000000.jpg") == 1


def test_sides_are_held_out_by_picture_whatever_the_seed(coco_folder: Path, config: CaptionsConfig) -> None:
    prepare(config)
    corpora = [draw_corpus(config.model_copy(update={"seed": seed})) for seed in (0, 1)]
    for side in ("training", "validation", "test"):
        first, second = (getattr(each, side) for each in corpora)
        assert np.array_equal(first, second)
        assert len(first) > 0
    rows = np.concatenate([corpora[0].training, corpora[0].validation, corpora[0].test])
    assert sorted(rows) == list(range(13))


def test_the_shares_of_the_sides_are_those_asked_for() -> None:
    sides = [side_of(number, 0.1, 0.2) for number in range(10_000)]
    assert sides.count("validation") == pytest.approx(1000, abs=100)
    assert sides.count("test") == pytest.approx(2000, abs=150)


def test_training_sees_another_part_each_time_and_each_caption_alone(
    coco_folder: Path, config: CaptionsConfig
) -> None:
    prepare(config)
    corpus = draw_corpus(config)
    data = CaptionsData(corpus, Vocabulary.of(corpus.training_captions(), 1), 20, 4)
    training, validation = data.train_dataloader().dataset, data.val_dataloader().dataset
    assert len(training) == 2 * len(corpus.training)
    assert len(validation) == len(corpus.validation)
    assert [len(training[0].words), len(validation[0].words)] == [1, 2]
    assert training[0].picture.shape == validation[0].picture.shape == (3, 224, 224)


def test_a_crop_lies_anywhere_in_training_and_in_the_middle_elsewhere() -> None:
    picture = torch.arange(10 * 10).view(1, 10, 10).expand(3, -1, -1)
    assert crop(picture, 4, random=False)[0, 0, 0] == 33
    torch.manual_seed(0)
    corners = {int(crop(picture, 4, random=True)[0, 0, 0]) for _ in range(500)}
    assert corners == {10 * top + left for top in range(7) for left in range(7)}


@pytest.mark.parametrize(("setting", "value"), [("per_category", 5), ("validation", 0.2)])
def test_what_other_settings_prepared_is_refused(
    coco_folder: Path, config: CaptionsConfig, setting: str, value: float
) -> None:
    prepare(config)
    with pytest.raises(UserError, match=f"{setting}: prepared with .*, wanted {value}"):
        draw_corpus(config.model_copy(update={setting: value}))


def test_a_side_without_pictures_is_refused_and_nothing_is_prepared(
    coco_folder: Path, config: CaptionsConfig
) -> None:
    small = config.model_copy(update={"per_category": 1})
    with pytest.raises(UserError, match=r"too few pictures: .*raise per_category"):
        prepare(small)
    assert not list(cache_folder().parent.iterdir())


def test_annotations_that_are_no_json_are_named(coco_folder: Path, config: CaptionsConfig) -> None:
    (coco_folder / "annotations" / "captions_train2017.json").write_text("{")
    with pytest.raises(UserError, match=r"captions_train2017\.json is no JSON.*trainlab data verify coco"):
        prepare(config)


def test_a_run_on_prepared_coco_needs_no_raw_data(
    coco_folder: Path, config: CaptionsConfig, tmp_path: Path
) -> None:
    prepare(config)
    coco_folder.rename(tmp_path / "gone")
    result = train(config)
    assert set(result.history()["tag"]) >= {"val/loss", "val/bleu", "val/exact_match", "test/bleu"}
    Image.new("RGB", (300, 200), "red").save(tmp_path / "own.png")
    assert len(caption(result.run, tmp_path / "own.png")) == 1


def test_the_same_settings_and_files_give_the_same_bytes(coco_folder: Path, config: CaptionsConfig) -> None:
    first = {path.name: path.read_bytes() for path in prepare(config).iterdir()}
    assert first == {path.name: path.read_bytes() for path in prepare(config).iterdir()}
    assert first.keys() == {"pictures.bin", "captions.json", "prepared.json"}


def test_preparing_again_replaces_what_was_there(coco_folder: Path, config: CaptionsConfig) -> None:
    prepare(config)
    wider = config.model_copy(update={"per_category": 9})
    prepare(wider)
    assert draw_corpus(wider).cache == cache_folder()
    assert [path.name for path in cache_folder().parent.iterdir()] == ["coco"]


def test_settings_that_do_not_make_the_data_may_differ(coco_folder: Path, config: CaptionsConfig) -> None:
    prepare(config)
    assert draw_corpus(config.model_copy(update={"epochs": 7, "beam": 3})).name == "coco"


def test_annotations_that_changed_since_are_refused(coco_folder: Path, config: CaptionsConfig) -> None:
    prepare(config)
    with (coco_folder / "annotations" / "captions_train2017.json").open("a") as file:
        file.write(" ")
    with pytest.raises(
        UserError, match=r"captions_train2017\.json: changed since\nAgain: trainlab prepare-coco"
    ):
        draw_corpus(config)


@pytest.mark.parametrize("name", ["pictures.bin", "captions.json", "prepared.json"])
@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b'{"files": {}}'])
def test_a_damaged_cache_is_reported(
    coco_folder: Path, config: CaptionsConfig, name: str, content: bytes
) -> None:
    (prepare(config) / name).write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged: .*trainlab prepare-coco per_category=8"):
        draw_corpus(config)


def test_a_disk_that_fills_up_is_reported_and_the_old_cache_stays(
    coco_folder: Path, config: CaptionsConfig
) -> None:
    prepare(config)
    with largest_file(200_000), pytest.raises(UserError, match="can't be written: File too large"):
        prepare(config.model_copy(update={"per_category": 9}))
    assert draw_corpus(config).name == "coco"
    assert [path.name for path in cache_folder().parent.iterdir()] == ["coco"]
