"""Models out of checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from trainlab.errors import UserError
from trainlab.runs import checkpoint, record

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import LightningModule

Module = TypeVar("Module", bound="LightningModule")
BEST = "checkpoints/best.ckpt"


def restore(kind: type[Module], path: Path) -> Module:
    """Return the network of a checkpoint, for evaluation; raises CheckpointError for a damaged file."""
    saved = checkpoint.load(path)
    model = kind(**saved["hyper_parameters"])
    model.load_state_dict(saved["state_dict"])
    return model.eval()


def best_of(folder: Path, experiment: str) -> Path:
    """Return a run's best checkpoint; raise UserError where there is none, or the run is another's."""
    recorded = record.read(folder)
    if recorded.experiment != experiment:
        raise UserError(f"{folder} is no run of the {experiment} experiment but of {recorded.experiment}.")
    if not (folder / BEST).is_file():
        raise UserError(
            f"{folder.name} has no {BEST}: it is {recorded.status}, and no epoch of it was completed. "
            f"Choose another run: trainlab runs --experiment {experiment}"
        )
    return folder / BEST
