"""A folder as the Hugging Face Hub takes it: what Transformers loads, and a model card."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from trainlab.errors import UserError
from trainlab.run import record
from trainlab.serving.export import Exported, beside, card_of, finished, refuse
from trainlab.serving.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from trainlab.serving.export import Recipe

README = "README.md"


def export(run: Path, recipe: Recipe, target: Path) -> Exported:
    """Write a run's network as a folder for the Hub, and load it again to see that it answers alike.

    Args:
        run: The run's folder.
        recipe: What becomes of it; its `hub` writes the folder's files and fills the gate.
        target: The folder that the new one is put into.

    Returns:
        The folder; it has a manifest as a bundle has.

    Raises:
        UserError: Transformers has no such network, what is loaded again answers otherwise, or the disk
            refuses; nothing is left then.
    """
    if recipe.hub is None:
        raise UserError(
            f"{run.name} is no network of Transformers, so the Hub has no use for it. Export it for "
            "onnxruntime: leave out --format hub."
        )
    card = card_of(record.read(run), recipe) | {"precision": "fp32"}
    with beside(target) as half:
        gate = Gate()
        usage = recipe.hub(half, gate)
        refuse(gate)
        (half / README).write_text(readme(card | {"gate": gate.figures}, usage))
        return finished(run, half, target, "hub", card["precision"], gate)


def write(folder: Path, network: PreTrainedModel, tokenizer: Tokenizer) -> None:
    """Write a network of Transformers and its tokenizer into a folder, the weights as safetensors."""
    from transformers import PreTrainedTokenizerFast

    network.save_pretrained(folder)
    padding, cut = tokenizer.padding or {}, tokenizer.truncation or {}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=padding.get("pad_token", "[PAD]"),
        model_max_length=cut.get("max_length", 512),
    ).save_pretrained(folder)


def readme(card: Mapping[str, Any], usage: str) -> str:
    """Return a model card: what the Hub reads of it, how it is used, and what is known of the run."""
    head = {"library_name": "transformers", "license": "other", "tags": ["trainlab", str(card["experiment"])]}
    front = "\n".join(f"{name}: {json.dumps(value)}" for name, value in head.items())
    facts = "\n".join(
        f"- {name}: `{json.dumps(card[name], ensure_ascii=False)}`"
        for name in ("run", "settings", "data", "metrics", "licences", "versions", "gate")
    )
    return (
        f"---\n{front}\n---\n\n# {card['run']}\n\n"
        f"A network of the experiment {card['experiment']}, trained with trainlab.\n\n"
        f"```python\n{usage.strip()}\n```\n\n{facts}\n\n"
        "The licences of backbone and data say what may be done with it.\n"
    )
