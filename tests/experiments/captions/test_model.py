from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import ResNetConfig, ResNetModel

from experiments.captions import model as encoder
from experiments.captions import train
from experiments.captions.batches import Batch, CaptionsData
from experiments.captions.config import CaptionsConfig
from experiments.captions.data import END, PAD, START, Corpus, Vocabulary, draw_corpus
from experiments.captions.model import CaptionsModel
from trainlab.errors import UserError
from trainlab.run import checkpoint
from trainlab.run.restoring import restore

TEXTS = ["a small red circle", "a large blue square above a small green triangle", "a", "a red"]


@pytest.fixture(scope="module")
def corpus(tiny: CaptionsConfig) -> Corpus:
    return draw_corpus(tiny)


@pytest.fixture(scope="module")
def vocabulary(corpus: Corpus) -> Vocabulary:
    return Vocabulary.of(corpus.training_captions(), 1)


def fresh(config: CaptionsConfig, vocabulary: Vocabulary) -> CaptionsModel:
    """Return a network whose batch norm has seen pictures, as a trained one's has."""
    torch.manual_seed(0)
    model = CaptionsModel.fresh(config, vocabulary, side=64, crop=64)
    with torch.no_grad():
        model.features(torch.randint(256, (16, 3, 64, 64), dtype=torch.uint8))
        model.output.weight.mul_(20)  # clear preferences, so that captions differ
    return model


@pytest.fixture
def model(tiny: CaptionsConfig, vocabulary: Vocabulary) -> CaptionsModel:
    return fresh(tiny, vocabulary).eval()


@pytest.fixture
def batch(corpus: Corpus, vocabulary: Vocabulary) -> Batch:
    """Three pictures with one, one and two captions of different lengths."""
    words = [torch.tensor(vocabulary.encode(text, 20)) for text in TEXTS]
    return Batch(
        torch.from_numpy(corpus.pictures[:3]).permute(0, 3, 1, 2),
        nn.utils.rnn.pad_sequence(words, batch_first=True, padding_value=PAD),
        torch.tensor([len(each) - 1 for each in words]),
        torch.tensor([0, 1, 2, 2]),
        [[TEXTS[0]], [TEXTS[1]], TEXTS[2:]],
    )


def teacher_forced(model: CaptionsModel, picture: torch.Tensor, words: list[int]) -> torch.Tensor:
    """Return the log probabilities [L] of a caption's words and end, each after the words before it."""
    state = model.begin(model.features(picture[None]))
    chances = []
    for word, following in zip([START, *words], words, strict=False):
        found, state = model.step(torch.tensor([word]), state)
        chances.append(found[0, following])
    return torch.stack(chances)


def test_the_packed_loss_is_that_of_a_loop_over_pictures_and_words(
    model: CaptionsModel, batch: Batch
) -> None:
    chances = [
        teacher_forced(model, batch.pictures[place], words[1 : 1 + length].tolist())
        for words, length, place in zip(batch.words, batch.lengths.tolist(), batch.indices, strict=True)
    ]
    assert sum(map(len, chances)) == 5 + 10 + 2 + 3
    assert torch.allclose(model.loss(batch), -torch.cat(chances).mean(), atol=1e-5)


@pytest.mark.parametrize("beam", [1, 3])
def test_a_written_captions_score_is_what_training_gives_it(
    model: CaptionsModel, batch: Batch, beam: int
) -> None:
    written = model.write(batch.pictures, beam)
    for row, picture in enumerate(batch.pictures):
        words = written.words[row].tolist()
        words = words[: words.index(END) + 1] if END in words else words
        as_trained = batch._replace(
            pictures=picture[None],
            words=torch.tensor([[START, *words]]),
            lengths=torch.tensor([len(words)]),
            indices=torch.tensor([0]),
        )
        assert written.scores[row].item() == pytest.approx(
            -len(words) * model.loss(as_trained).item(), rel=1e-4
        )


def test_a_beam_of_one_is_greedy(model: CaptionsModel, batch: Batch) -> None:
    written = model.write(batch.pictures, 1)
    for picture, row in zip(batch.pictures, written.words.tolist(), strict=True):
        state, word, said = model.begin(model.features(picture[None])), START, []
        while word != END and len(said) < model.hparams["max_words"]:
            chances, state = model.step(torch.tensor([word]), state)
            chances[:, [PAD, START]] = -torch.inf
            word = int(chances.argmax())
            said.append(word)
        assert row[: len(said)] == said
        assert set(row[len(said) :]) <= {PAD}


def test_a_wider_beam_finds_captions_at_least_as_likely(model: CaptionsModel, batch: Batch) -> None:
    greedy, wide = (model.write(batch.pictures, beam).scores for beam in (1, 4))
    assert (wide >= greedy - 1e-5).all()
    assert (wide > greedy + 1e-3).any(), "else this network shows no difference"


def test_captioning_takes_batch_norm_as_in_evaluation_and_leaves_the_mode(
    model: CaptionsModel, batch: Batch
) -> None:
    expected = model.caption(batch.pictures)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.caption(batch.pictures) == expected
    assert model.training
    assert model.norm.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [model.caption(batch.pictures[row : row + 1])[0] for row in range(3)] == expected


@pytest.mark.parametrize("setting", ["side", "crop", "max_words", "beam"])
def test_a_checkpoint_that_asks_for_endless_captions_or_huge_pictures_is_refused(
    model: CaptionsModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    path = tmp_path / "best.ckpt"
    settings = dict(model.hparams) | {setting: 1_000_000}
    checkpoint.save({"hyper_parameters": settings, "state_dict": model.state_dict()}, path)
    monkeypatch.setattr(train, "trained", lambda *_: tmp_path)
    monkeypatch.setattr(train, "best_of", lambda *_: path)
    with pytest.raises(UserError, match=f"asks for {setting}=1000000"):
        train.caption("some", np.zeros((64, 64, 3), np.uint8))


def step_once(model: CaptionsModel, batch: Batch) -> None:
    model.train()
    weights = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=0.1)
    model.loss(batch).backward()
    optimizer.step()


@pytest.mark.parametrize("trained", [True, False])
def test_a_frozen_encoder_changes_in_nothing_and_a_trained_one_in_all(
    tiny: CaptionsConfig, vocabulary: Vocabulary, batch: Batch, trained: bool
) -> None:
    model = fresh(tiny.model_copy(update={"train_encoder": trained}), vocabulary)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step_once(model, batch)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    of_encoder = {name for name in changed if name.startswith("encoder.")}
    assert bool(of_encoder) == trained
    assert any("running_mean" in name for name in of_encoder) == trained
    assert {"linear.weight", "lstm.weight_hh_l0", "norm.running_mean"} <= changed


def test_a_checkpoint_restores_the_whole_network_without_encoder_and_hub(
    model: CaptionsModel, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    checkpoint.save(state, tmp_path / "best.ckpt")
    monkeypatch.setattr(encoder, "locate", None)
    restored = restore(CaptionsModel, tmp_path / "best.ckpt")
    assert restored.vocabulary == model.vocabulary
    assert not restored.training
    assert torch.equal(restored.loss(batch), model.loss(batch))
    assert restored.caption(batch.pictures, 3) == model.caption(batch.pictures, 3)


def test_the_grid_keeps_places_apart(tiny: CaptionsConfig, vocabulary: Vocabulary) -> None:
    pictures = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    for grid, width in ((1, 64), (2, 256)):
        model = fresh(tiny.model_copy(update={"grid": grid}), vocabulary)
        assert model.linear.in_features == width
        assert model.features(pictures).shape == (2, tiny.embedding_size)


def test_the_learning_rate_falls_to_nothing(model: CaptionsModel) -> None:
    class Planned:
        estimated_stepping_batches = 4

    model._trainer = Planned()  # type: ignore[assignment]
    made = model.configure_optimizers()
    rates = []
    for _ in range(5):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([0.002, 0.0015, 0.001, 0.0005, 0])


@pytest.fixture(scope="module")
def saved_resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resnet")
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}
    ResNetModel(ResNetConfig(**sizes)).save_pretrained(folder)
    return folder


def test_a_published_encoder_comes_with_its_weights(
    tiny: CaptionsConfig, vocabulary: Vocabulary, saved_resnet: Path
) -> None:
    config = tiny.model_copy(update={"encoder": str(saved_resnet)})
    model = CaptionsModel.fresh(config, vocabulary, side=64, crop=64)
    published = ResNetModel.from_pretrained(saved_resnet).state_dict()
    ours = model.encoder.state_dict()
    assert all(torch.equal(value, published[name]) for name, value in ours.items())
    assert model.linear.in_features == 8 * 4


def test_an_encoder_that_is_no_resnet_is_refused(saved_resnet: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"a bert\. Expected a ResNet"):
        encoder.encoder_config(str(tmp_path))


def test_an_encoder_that_cannot_be_had_says_what_else_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"encoder=microsoft/resnet-152: not in the cache.*encoder=tiny"):
        encoder.locate("microsoft/resnet-152")


def test_a_last_batch_of_one_is_left_out_of_training(corpus: Corpus, vocabulary: Vocabulary) -> None:
    for size, batches in ((47, 1), (46, 2), (48, 1)):  # of 48 captions; a last one of 1, of 2, none
        sizes = [
            len(batch.lengths) for batch in CaptionsData(corpus, vocabulary, 20, size).train_dataloader()
        ]
        assert len(sizes) == batches
        assert min(sizes) > 1


def test_captions_are_cut_at_their_limit(corpus: Corpus, vocabulary: Vocabulary) -> None:
    (batch,) = islice(CaptionsData(corpus, vocabulary, 3, 8).val_dataloader(), 1)
    assert batch.words.shape == (8, 5)
    assert (batch.words[:, -1] == END).all()
    assert len(batch.references[0][0].split()) > 3, "what is right stays whole"
