"""The captions experiment as a subject of the checks before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from experiments.captions import train
from experiments.captions.batches import Batch, CaptionsData
from experiments.captions.config import CaptionsConfig
from experiments.captions.data import Vocabulary, draw_corpus
from experiments.captions.model import CaptionsModel
from trainlab.checks.subject import Items, Subject

SIDES = {"train": "training", "validation": "validation", "test": "test"}
# Enough to see that pictures help, and little enough for all checks together to take a minute on two cores.
SMALL = {"pictures": 400, "hidden_size": 64, "embedding_size": 64, "batch_size": 16}
SMALLER_HIDDEN = 2  # the smaller network's LSTM


def subject(settings: Mapping[str, Any]) -> CaptionsSubject:
    """Return the subject under these settings; those not given are `SMALL`, or the experiment's defaults.

    Raises UserError for settings, data or an encoder that can't be used.
    """
    config = CaptionsConfig.parse(SMALL | CaptionsConfig.named(settings))
    config.check_machine()
    return CaptionsSubject(config)


class CaptionsSubject(Subject):
    """Pictures with a caption each, and the network that writes these.

    The answers are words, those of all captions of a batch one after the other as they are packed; each is
    predicted from the picture and the words before it.
    """

    steps = 300  # the language is learned first; only then do pictures make a difference
    overfit_steps = 250
    metric = "BLEU"

    def __init__(self, config: CaptionsConfig) -> None:
        self.config, self.corpus = config, draw_corpus(config)
        self.vocabulary = Vocabulary.of(self.corpus.training_captions(), config.min_word_count)
        super().__init__("captions", self._model, self._data, classes=len(self.vocabulary))

    def targets(self, batch: Batch) -> Tensor:
        """Return the words to be predicted [T], packed."""
        return _packed(batch).data

    def size(self, batch: Batch) -> int:
        """Return the number of pictures."""
        return len(batch.pictures)

    def zeroed(self, batch: Batch) -> Batch:
        """Return the same captions of black pictures."""
        return batch._replace(pictures=torch.zeros_like(batch.pictures))

    def outputs(self, module: CaptionsModel, batch: Batch) -> Tensor:  # type: ignore[override]
        """Return the log probabilities [N, L, V] of each caption's words as in training, 0 behind its end."""
        scores = _packed(batch)._replace(data=module(batch).log_softmax(-1))
        return pad_packed_sequence(scores, batch_first=True)[0]

    def predictions(self, module: CaptionsModel, batch: Batch) -> Tensor:  # type: ignore[override]
        """Return the likeliest words [T], packed."""
        return module(batch).argmax(-1)

    def slow(self, module: CaptionsModel, batch: Batch) -> Tensor:  # type: ignore[override]
        """Return the same as a caption is written: picture by picture, and word after word."""
        probabilities = torch.zeros_like(self.outputs(module, batch))
        for caption, index in enumerate(batch.indices.tolist()):
            state = module.begin(module.features(batch.pictures[index : index + 1]))
            for word in range(int(batch.lengths[caption])):
                found, state = module.step(batch.words[caption : caption + 1, word], state)
                probabilities[caption, word] = found[0]
        return probabilities

    def describe(self, module: CaptionsModel, batch: Batch) -> list[str]:  # type: ignore[override]
        """Return a line a picture: what is written of it, and a caption that is right."""
        written = zip(module.caption(batch.pictures), batch.references, strict=True)
        return [f"{text} (right: {right[0]})" for text, right in written]

    def decode(self, batch: Batch) -> list[str]:
        """Return the captions that the words mean."""
        return [self.vocabulary.decode(row) for row in batch.words.tolist()]

    def texts(self, data: CaptionsData, rows: Sequence[int]) -> list[str]:  # type: ignore[override]
        """Return the captions of these items of the training set."""
        items = [data.train_dataloader().dataset.items[row] for row in rows]  # type: ignore[attr-defined]
        return [self.corpus.texts(picture)[which] for picture, which in items]

    def items(self, data: CaptionsData, split: str) -> Items:  # type: ignore[override]  # noqa: ARG002
        """Return a side's pictures by what they show, with the length of their first captions."""
        rows = getattr(self.corpus, SIDES[split])
        lengths = [len(self.corpus.texts(row)[0].split()) for row in rows]
        return Items([self.corpus.keys[row] for row in rows], lengths=lengths)

    def measure(self, module: CaptionsModel, data: CaptionsData) -> float:  # type: ignore[override]
        """Return BLEU on the test."""
        written = [text for batch in data.test_dataloader() for text in module.caption(batch.pictures)]
        references = [self.corpus.texts(row) for row in self.corpus.test]
        return train.measures(written, references)["bleu"]

    def baselines(self, data: CaptionsData) -> dict[str, float]:  # type: ignore[override]  # noqa: ARG002
        """Return BLEU of the commonest caption alone."""
        return {"commonest caption": train.commonest(self.corpus, self.corpus.test)["bleu"]}

    def smaller(self) -> CaptionsModel:
        """Return a network whose LSTM keeps two numbers."""
        return self._model(self.config.model_copy(update={"hidden_size": SMALLER_HIDDEN}))

    def _model(self, config: CaptionsConfig | None = None) -> CaptionsModel:
        side, crop = self.corpus.pictures.shape[1], self.corpus.crop
        model = CaptionsModel.fresh(config or self.config, self.vocabulary, side=side, crop=crop)
        model.expect(self.corpus.training_captions())
        return model

    def _data(self) -> CaptionsData:
        return CaptionsData(self.corpus, self.vocabulary, self.config.max_words, self.config.batch_size)


def _packed(batch: Batch) -> PackedSequence:
    """Return the words to be predicted, and how captions of several lengths are packed."""
    return CaptionsModel.packed(batch.words[:, 1:], batch.lengths)
