"""Models out of checkpoints."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from trainlab.errors import UserError
from trainlab.hub import no_larger_than
from trainlab.run import checkpoint, find, record
from trainlab.run.checkpoint import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lightning import LightningModule
    from torch import Tensor, nn

Module = TypeVar("Module", bound="LightningModule")
Network = TypeVar("Network", bound="nn.Module")
BEST = "checkpoints/best.ckpt"
# What a checkpoint's settings may hold; a pickle of a few kB can unfold to any number of lists in lists
MOST_VALUES, DEEPEST = 1_000_000, 50
LARGEST_NUMBER = 10_000_000  # of small networks too, for what is no size, such as RoPE's theta


def restore(kind: type[Module], path: Path) -> Module:
    """Return the network of a checkpoint, for evaluation; raises CheckpointError for one without any."""
    return build(path, checkpoint.load(path), lambda known: kind(**known))


def build(path: Path, saved: Mapping[str, Any], make: Callable[[dict[str, Any]], Network]) -> Network:
    """Return the network that `make` builds from the settings in a checkpoint, with the weights in there.

    It is made without memory at first: settings that ask for more than the weights in the file fill are
    refused before it is taken. Raises CheckpointError for those, and where the two don't belong together.
    """
    import torch

    with explained(path):
        weights, known = saved["state_dict"], saved["hyper_parameters"]
        room = _bytes(weights)
        _check_settings(known, max(room, LARGEST_NUMBER))
        with no_larger_than(room, 4 * len(weights)), torch.device("meta"):
            make(known)
        network = make(known)
        network.load_state_dict(weights)
        return network.eval()


def trained(run: str | Path, experiment: str) -> Path:
    """Return the folder of the run that is meant; 'last' is the experiment's newest that has weights.

    Raises UserError where there is none, as `trainlab.find` does.
    """
    last = str(run) == "last"
    return find.find(run, experiment=experiment if last else None, having=BEST if last else "")


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


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn whatever fails on the way from settings to a network into a sentence."""
    import torch

    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a wrong type fails anywhere in torch, Transformers or the tokenizer
        reason = " ".join(f"{type(error).__name__}: {str(error)[:300]}".split())
        raise CheckpointError(
            f"{path} holds no network that can be built here ({reason}). Expected what this experiment's "
            "training of this version of trainlab keeps: choose another run, or train again."
        ) from None


def _bytes(weights: Mapping[str, Tensor]) -> int:
    """Return what weights take in memory: a shape alone may claim any size."""
    if any(each.device.type == "meta" for each in weights.values()):
        raise ValueError("weights without values")
    storages = [each.untyped_storage() for each in weights.values()]
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


def _check_settings(known: Any, largest: int) -> None:
    """Refuse what would take memory or time before the first layer is made: a number, or endless lists."""
    left = MOST_VALUES
    waiting = [(known, 0)]
    while waiting:
        value, depth = waiting.pop()
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise ValueError("its settings are lists in lists without end")
        if isinstance(value, int) and abs(value) > largest:
            raise ValueError(f"a setting of {value:.3g}, and weights of {largest:,} bytes at most")
        if isinstance(value, dict):
            waiting += [(each, depth + 1) for pair in value.items() for each in pair]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += [(each, depth + 1) for each in value]
