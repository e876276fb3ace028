"""A run of sentiment becomes a bundle that decides as its network does, in int8 too if that is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.sentiment.config import SentimentConfig
from experiments.sentiment.export import changed, recipe
from experiments.sentiment.train import Result, train
from trainlab import paths
from trainlab.errors import UserError
from trainlab.serving import bundle, hubfolder
from trainlab.serving.export import export
from trainlab.serving.gate import Gate
from trainlab.serving.texts import Texts

pytest.importorskip("onnxscript")


@pytest.fixture
def trained(tiny: SentimentConfig) -> Result:
    return train(tiny.model_copy(update={"epochs": 2}))


def test_the_bundle_s_probabilities_are_the_network_s(trained: Result) -> None:
    made = export(trained.run, recipe(trained.run))
    found = bundle.read(made.folder)
    assert found.json("card.json")["gate"]["reviews"] == sum(map(len, trained.reviews.parts().values()))
    texts = trained.reviews.test["text"].tolist()
    scores = Texts(found).run_all([[text] for text in texts])
    positive = 1 / (1 + np.exp(scores[:, 0] - scores[:, 1]))
    assert np.abs(positive - trained.classifier.probabilities(texts)).max() < 1e-4


def test_int8_is_smaller_and_passes_where_it_decides_alike(trained: Result) -> None:
    whole = export(trained.run, recipe(trained.run))
    try:
        small = export(trained.run, recipe(trained.run), int8=True)
    except UserError as error:
        pytest.fail(f"this network, far from its threshold, decides alike: {error}")
    assert small.bytes < whole.bytes
    assert bundle.read(small.folder).json("card.json")["precision"] == "int8"
    assert small.folder != whole.folder


def test_int8_that_changes_more_than_one_decision_in_a_hundred_is_deleted(
    trained: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.sentiment.export.changed", lambda *_: 2)
    with pytest.raises(UserError, match=r"share of other decisions alone: 0.025, expected 0.01 at most"):
        export(trained.run, recipe(trained.run), int8=True)
    assert list(paths.models().iterdir()) == []


def test_a_folder_for_the_hub_answers_alike_when_it_is_loaded_again(trained: Result) -> None:
    made = hubfolder.export(trained.run, recipe(trained.run), paths.models())
    assert made.figures["largest_difference_loaded_again"] < 1e-4
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        path.name for path in made.folder.iterdir()
    }


def test_decisions_are_counted_at_the_threshold() -> None:
    scores = np.array([[0, 1], [1, 0], [0, 0.1]])
    assert changed(scores, scores) == 0
    assert changed(scores, scores + np.array([[0, 0], [0, 0], [0.2, 0]])) == 1


def test_nan_passes_no_gate() -> None:
    gate = Gate()
    gate.close("alone", np.zeros(2), np.array([0, np.nan]))
    assert gate.faults
