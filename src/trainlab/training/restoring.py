"""Models out of checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from trainlab.runs import checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import LightningModule

Module = TypeVar("Module", bound="LightningModule")


def restore(kind: type[Module], path: Path) -> Module:
    """Return the network of a checkpoint, for evaluation; raises CheckpointError for a damaged file."""
    saved = checkpoint.load(path)
    model = kind(**saved["hyper_parameters"])
    model.load_state_dict(saved["state_dict"])
    return model.eval()
