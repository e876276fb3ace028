"""Models by name: a folder, the Hugging Face Hub's cache, or the Hub itself, found before a run starts."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
HUB_SECONDS = 5.0  # long enough for a slow line, short enough to be told at once


@dataclass(frozen=True)
class Source:
    """What transformers loads: a folder or a Hub id, and whether the network stays out of it."""

    name: str
    local: bool


def locate(setting: str, model: str, ways_out: str) -> Source:
    """Find the model that a setting names without loading it; takes seconds at most.

    Raises UserError, with the `ways_out` that there are, when the folder holds no model, the Hub knows no
    such model, or the Hub can't be reached and the model isn't in its cache.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _folder(setting, folder)
    if _cached(setting, model, ways_out):
        return Source(model, local=True)
    _ask_hub(setting, model, ways_out)
    return Source(model, local=False)


def _folder(setting: str, folder: Path) -> Source:
    has_weights = any((folder / name).is_file() for name in WEIGHTS)
    if not (folder / "config.json").is_file() or not has_weights:
        raise UserError(
            f"{setting}={folder}: the folder holds no model. Expected config.json and one of "
            f"{', '.join(WEIGHTS)}."
        )
    return Source(str(folder.resolve()), local=True)


def _cached(setting: str, model: str, ways_out: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [isinstance(try_to_load_from_cache(model, name), str) for name in ("config.json", *WEIGHTS)]
    except HFValidationError:
        raise UserError(
            f"{setting}={model}: neither a folder nor the id of a model on the Hugging Face Hub "
            f"(its owner and name). {ways_out}"
        ) from None
    return found[0] and any(found[1:])


def download(setting: str, dataset: str, file: str, ways_out: str) -> str:
    """Return the path of a data set's file in the Hub's cache, downloaded first if it is not there.

    Raises UserError, with the `ways_out` that there are, when the Hub can't be reached or has no such file.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(dataset, file, repo_type="dataset")
    if isinstance(cached, str):
        return cached
    with _explained(setting, dataset, "data set", ways_out):
        return hf_hub_download(dataset, file, repo_type="dataset", etag_timeout=HUB_SECONDS)


def _ask_hub(setting: str, model: str, ways_out: str) -> None:
    """Raise UserError unless the Hub has this model and gives it to us."""
    from huggingface_hub import HfApi

    with _explained(setting, model, "model", ways_out):
        HfApi().model_info(model, timeout=HUB_SECONDS)


@contextmanager
def _explained(setting: str, name: str, kind: str, ways_out: str) -> Iterator[None]:
    """Turn what the Hub refuses into a sentence; refuse at once where nobody may be asked."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{setting}={name}: not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE=1 "
            f"forbids a download. {ways_out}"
        )
    try:
        yield
    except RepositoryNotFoundError:
        raise UserError(
            f"{setting}={name}: no such {kind} on {constants.ENDPOINT}, and no such folder. {ways_out}"
        ) from None
    except HfHubHTTPError as error:
        raise UserError(
            f"{setting}={name}: {constants.ENDPOINT} refused it ({_first_line(error)}). {ways_out}"
        ) from None
    except Exception as error:  # whatever the HTTP library raises for no route, no name, no answer
        raise UserError(
            f"{setting}={name}: the Hugging Face Hub can't be reached at {constants.ENDPOINT} "
            f"({_first_line(error)}), and the {kind} isn't in the cache. {ways_out}"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
