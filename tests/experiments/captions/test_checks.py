"""The checks find what can go wrong in image captioning: the chapter's own defects first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from experiments.captions.batches import CaptionsData
from experiments.captions.checks import CaptionsSubject, subject
from experiments.captions.data import SPECIAL, Vocabulary
from experiments.captions.model import CaptionsModel
from trainlab.checks.harness import Finding
from trainlab.checks.run import run_all
from trainlab.errors import UserError

SETTINGS = {"pictures": 60, "hidden_size": 16, "embedding_size": 16, "batch_size": 8}


@pytest.fixture
def sound() -> CaptionsSubject:
    return subject(SETTINGS)


def one(planted: CaptionsSubject, number: int) -> Finding:
    (finding,) = run_all(planted, [number])
    return finding


@pytest.mark.parametrize("number", [1, 2, 3, 4, 9, 11, 12, 13])
def test_the_network_passes(sound: CaptionsSubject, number: int) -> None:
    finding = one(sound, number)
    assert finding.status == "passed", finding.found


def test_a_decoder_without_the_batch_norm_of_training_is_found(
    sound: CaptionsSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def skipping(self: CaptionsModel, features: Tensor) -> object:
        before = features * self.norm.running_var.sqrt() + self.norm.running_mean
        return self.lstm(before[:, None])[1]

    whole = CaptionsModel.forward
    begin = CaptionsModel.begin

    def as_in_training(self: CaptionsModel, batch: object) -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(CaptionsModel, "begin", begin)
            return whole(self, batch)

    monkeypatch.setattr(CaptionsModel, "begin", skipping)
    monkeypatch.setattr(CaptionsModel, "forward", as_in_training)
    assert one(sound, 13).status == "failed"


def test_words_that_start_alike_are_found(sound: CaptionsSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CaptionsModel, "expect", lambda self, captions: None)
    assert one(sound, 4).status == "failed"


def test_a_vocabulary_in_another_order_is_found(
    sound: CaptionsSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = sound.vocabulary.words
    turned = Vocabulary((*SPECIAL, *reversed(words[len(SPECIAL) :])))
    data = CaptionsData(sound.corpus, turned, sound.config.max_words, sound.config.batch_size)
    monkeypatch.setattr(sound, "data", lambda: data)
    assert one(sound, 9).status == "failed"


def test_a_picture_on_two_sides_is_found(sound: CaptionsSubject) -> None:
    held = torch.cat([torch.tensor(sound.corpus.validation), torch.tensor(sound.corpus.training[:1])])
    sound.corpus = replace(sound.corpus, validation=held.numpy())
    finding = one(sound, 1)
    assert finding.status == "failed"
    assert "1 (train and validation)" in finding.found


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(UserError, match="pictures=1"):
        subject({"pictures": "1"})
