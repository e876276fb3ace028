"""Where the encoder comes from: a small ResNet of our own, a folder, the hub's cache, or the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainlab import backbones, hub
from trainlab.captions.config import TINY
from trainlab.errors import UserError
from trainlab.hub import Source

if TYPE_CHECKING:
    from transformers import ResNetModel

# Two stages of one basic block each. It reads 64 x 64 pixels into 8 x 8 places, and starts at random.
TINY_CONFIG: dict[str, Any] = {
    "embedding_size": 16,
    "hidden_sizes": [32, 64],
    "depths": [1, 1],
    "layer_type": "basic",
}
WAYS_OUT = (
    "encoder=tiny (the default) needs no hub; a model downloaded before works offline (HF_HUB_OFFLINE=1); a "
    "local folder with config.json and model.safetensors works too."
)


def locate(encoder: str) -> Source | None:
    """Find an encoder without loading it, in seconds at most; None for the one that starts at random.

    Raises UserError when the folder holds no model, the Hub knows no such model, or the Hub can't be reached
    and the model isn't in its cache.
    """
    return None if encoder == TINY else hub.locate("encoder", encoder, WAYS_OUT)


def config_of(encoder: str) -> dict[str, Any]:
    """Return the architecture of an encoder as plain values; raise UserError for one that is no ResNet."""
    from transformers import AutoConfig, ResNetConfig

    source = locate(encoder)
    if source is None:
        return ResNetConfig(**TINY_CONFIG).to_dict()
    config = backbones.load(AutoConfig, source)
    if config.model_type != "resnet":
        raise UserError(
            f"encoder={encoder}: a {config.model_type}. Expected a ResNet, such as microsoft/resnet-152."
        )
    return config.to_dict()


def pretrained(encoder: str) -> ResNetModel | None:
    """Return the encoder with its published weights, or None for the one that starts at random."""
    from transformers import ResNetModel

    source = locate(encoder)
    if source is None:
        return None
    return backbones.load(ResNetModel, source)
