"""The captioning network: a ResNet, a linear layer and batch norm, and an LSTM that writes.

After "Deep Learning with PyTorch Lightning", chapter 10. There, a picture is captioned without the batch norm
that it was trained with; here, training and captioning go through the same `features` and `step`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self

import lightning
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torchmetrics.text import BLEUScore
from transformers import AutoConfig, ResNetConfig, ResNetModel

from experiments.captions.batches import Batch
from experiments.captions.config import CaptionsConfig, locate
from experiments.captions.data import END, PAD, START, Vocabulary
from trainlab import hub
from trainlab.errors import UserError

State = tuple[Tensor, Tensor]  # of an LSTM: hidden and cell, both [1, N, H]
Step = Callable[[Tensor, State], tuple[Tensor, State]]  # words [N] -> log probabilities [N, V], next state

# Of ImageNet's colours: what the Hub's ResNets were trained with.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The forget gate starts at 0.95 (sigmoid of 3), so that half of what the picture left is there after a dozen
# words; at torch's 0.5 it is gone, and shapes are hardly learned. After R. Jozefowicz et al., "An empirical
# exploration of recurrent network architectures", 2015, who take 1.
FORGET_BIAS = 3.0
WORD_SCALE = 0.1  # of the words' first vectors beside the picture's: what the picture says is heard first


class CaptionsModel(lightning.LightningModule):
    """Writes captions; its checkpoint holds all that this needs, the words with it."""

    def __init__(  # noqa: PLR0913
        self,
        encoder_config: dict[str, Any],
        words: list[str],
        *,
        grid: int,
        embedding_size: int,
        hidden_size: int,
        max_words: int,  # noqa: ARG002 - save_hyperparameters() keeps it, as the others
        beam: int,  # noqa: ARG002
        learning_rate: float,  # noqa: ARG002
        train_encoder: bool,
        crop: int,  # noqa: ARG002
        side: int,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.vocabulary = Vocabulary(tuple(words))
        config = ResNetConfig.from_dict(encoder_config)
        self.encoder = ResNetModel(config).requires_grad_(train_encoder)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.linear = nn.Linear(encoder_config["hidden_sizes"][-1] * grid**2, embedding_size)
        self.norm = nn.BatchNorm1d(embedding_size)
        self.embedding = nn.Embedding(len(words), embedding_size, padding_idx=PAD)
        self.lstm = nn.LSTM(embedding_size, hidden_size, batch_first=True)
        self.output = nn.Linear(hidden_size, len(words))
        with torch.no_grad():
            self.embedding.weight.mul_(WORD_SCALE)
            self.lstm.get_parameter("bias_hh_l0")[hidden_size : 2 * hidden_size] = FORGET_BIAS
        self.val_bleu, self.test_bleu = BLEUScore(), BLEUScore()

    @classmethod
    def fresh(cls, config: CaptionsConfig, vocabulary: Vocabulary, side: int, crop: int) -> Self:
        """Return an untrained network, its encoder with the published weights where there are any.

        Raises UserError when the encoder can't be found (see `locate`), or is no ResNet.
        """
        hub.quiet()
        names = ("grid", "embedding_size", "hidden_size", "max_words", "beam", "train_encoder")
        settings = {name: getattr(config, name) for name in names}
        settings |= {"learning_rate": config.rate, "side": side, "crop": crop}
        model = cls(encoder_config(config.encoder), list(vocabulary.words), **settings)
        if (source := locate(config.encoder)) is not None:
            model.encoder.load_state_dict(hub.load(ResNetModel, source).state_dict())
        return model

    def expect(self, captions: Iterable[str]) -> None:
        """Let the untrained network say each word as often as these captions do: its bias is their prior's.

        Otherwise the first steps would only learn how frequent the words are.
        """
        counts = torch.ones(len(self.vocabulary))  # one more than counted: no word is impossible
        for caption in captions:
            for word in self.vocabulary.encode(caption, self.hparams["max_words"])[1:]:  # none says the start
                counts[word] += 1
        with torch.no_grad():
            self.output.bias.copy_((counts / counts.sum()).log())

    def train(self, mode: bool = True) -> Self:
        """Switch to training; an encoder that is not trained keeps its batch norm's figures too."""
        super().train(mode)
        if not self.hparams["train_encoder"]:
            self.encoder.eval()
        return self

    def features(self, pictures: Tensor) -> Tensor:
        """Return a vector a picture [P, E]; pictures are bytes [P, 3, H, W]."""
        mean, deviation = (pictures.new_tensor(each, dtype=torch.float) for each in (MEAN, DEVIATION))
        scaled = (pictures / 255 - mean[:, None, None]) / deviation[:, None, None]
        cells = self.encoder(scaled).last_hidden_state  # [P, C, H', W']
        return self.norm(self.linear(self.pool(cells).flatten(1)))

    def begin(self, features: Tensor) -> State:
        """Return the LSTM's state once it has read the pictures' vectors [N, E]."""
        return self.lstm(features[:, None])[1]

    def step(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the log probabilities [N, V] of what follows the words [N], and the next state."""
        states, state = self.lstm(self.embedding(words)[:, None], state)
        return self.output(states[:, 0]).log_softmax(-1), state

    def forward(self, batch: Batch) -> Tensor:
        """Return the scores [T, V] of all words after the captions' own beginnings, as they are packed."""
        features = self.features(batch.pictures)[batch.indices]
        beginnings = self.packed(self.embedding(batch.words[:, :-1]), batch.lengths)
        return self.output(self.lstm(beginnings, self.begin(features))[0].data)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross entropy of all words and ends; padding does not count."""
        targets = self.packed(batch.words[:, 1:], batch.lengths).data
        return nn.functional.cross_entropy(self(batch), targets)

    @staticmethod
    def packed(sequences: Tensor, lengths: Tensor) -> PackedSequence:
        """Return sequences [N, L, ...] of several lengths [N] as the LSTM takes them, without padding."""
        return pack_padded_sequence(sequences, lengths.cpu(), batch_first=True, enforce_sorted=False)

    def write(self, pictures: Tensor, beam: int | None = None) -> Written:
        """Return the captions of pictures [P, 3, H, W] as numbers, and their scores; `beam` may differ."""
        state = self.begin(self.features(pictures))
        width = beam or self.hparams["beam"]
        return write(self.step, state, width, self.hparams["max_words"])

    @torch.inference_mode()
    def caption(self, pictures: Tensor, beam: int | None = None) -> list[str]:
        """Return the captions of pictures [P, 3, H, W] in bytes; batch norm works as in evaluation."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        written = self.write(pictures.to(self.device), beam)
        for module, mode in modes:
            module.training = mode
        return [self.vocabulary.decode(row) for row in written.words.tolist()]

    def training_step(self, batch: Batch) -> Tensor:
        """Return the batch's loss."""
        loss = self.loss(batch)
        size = int(batch.lengths.sum())
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        self.log("train/loss_epoch", loss, on_step=False, on_epoch=True, batch_size=size)
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Measure the pictures that an epoch is chosen by."""
        self._measure("val", self.val_bleu, batch)

    def test_step(self, batch: Batch) -> None:
        """Measure the pictures that nothing is chosen by."""
        self._measure("test", self.test_bleu, batch)

    def _measure(self, side: str, bleu: BLEUScore, batch: Batch) -> None:
        """Log the words' loss, BLEU, and the share of captions that are a reference word for word."""
        written = self.caption(batch.pictures)
        bleu.update(written, batch.references)
        exact = [text in right for text, right in zip(written, batch.references, strict=True)]
        self.log(f"{side}/loss", self.loss(batch), prog_bar=True, batch_size=int(batch.lengths.sum()))
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(written)}
        self.log(f"{side}/bleu", bleu, **options)
        self.log(f"{side}/exact_match", sum(exact) / len(exact), prog_bar=True, **options)

    def configure_optimizers(self) -> Any:
        """Return Adam, its learning rate falling to 0 in a straight line over all steps."""
        weights = [each for each in self.parameters() if each.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=self.hparams["learning_rate"])
        steps = max(1.0, self.trainer.estimated_stepping_batches)
        falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "step"}}


def encoder_config(encoder: str) -> dict[str, Any]:
    """Return the architecture of an encoder as plain values; raise UserError for one that is no ResNet."""
    source = locate(encoder)
    if source is None:
        # two stages of one basic block each: it reads 64 x 64 pixels into 8 x 8 cells, and starts at random
        return ResNetConfig(
            embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic"
        ).to_dict()
    config = hub.load(AutoConfig, source)
    if config.model_type != "resnet":
        raise UserError(
            f"encoder={encoder}: a {config.model_type}. Expected a ResNet, such as microsoft/resnet-152."
        )
    return config.to_dict()


class Written(NamedTuple):
    """Captions as numbers [N, L], from the first word to the end and then padding; log probabilities [N]."""

    words: Tensor
    scores: Tensor


def write(step: Step, state: State, width: int, limit: int) -> Written:
    """Write N captions of at most `limit` words by beams of `width`; 1 takes the likeliest word each time.

    `state` is what the pictures left in the network. A caption's score is the sum of its words' log
    probabilities, its end with them. Whether to end after `limit` words is not asked.
    """
    pictures, device = state[0].shape[1], state[0].device
    rows = torch.arange(pictures, device=device)
    words = torch.full((pictures, 1, limit), PAD, device=device)
    scores = torch.zeros(pictures, 1, device=device)
    last = torch.full((pictures, 1), START, device=device)
    done = torch.zeros_like(last, dtype=torch.bool)
    for index in range(limit):
        beams = last.shape[1]
        chances, state = step(last.flatten(), state)
        chances = chances.view(pictures, beams, -1)
        # a caption that has ended is followed by padding, at no cost; any other never by padding or start
        ended, going = torch.full_like(chances, -torch.inf), chances.clone()
        ended[..., PAD], going[..., [PAD, START]] = 0, -torch.inf
        totals = scores[..., None] + torch.where(done[..., None], ended, going)  # [N, beams, V]
        scores, best = totals.flatten(1).topk(min(width, totals[0].numel()))
        parent, last = best // chances.shape[-1], best % chances.shape[-1]
        words, done = words[rows[:, None], parent], done.gather(1, parent)
        words[:, :, index] = last
        done = done | (last == END)
        followed = (rows[:, None] * beams + parent).flatten()
        state = state[0][:, followed], state[1][:, followed]
        if done.all():
            break
    return Written(words[:, 0], scores[:, 0])
