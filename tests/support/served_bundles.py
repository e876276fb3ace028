"""Bundles of each kind that a page can show, with networks of a few nodes that nobody trained."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trainlab.serving import bundle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WORDS = ["[PAD]", "[UNK]", "rain", "storm", "team", "cup", "good", "bad"]
CAPTION = ["<pad>", "<start>", "<end>", "<unk>", "a", "grey", "field"]
ITEMS = {
    "id": ["N1", "N2", "N3", "N4"],
    "title": ["Rain storm", "Storm", "Team <b>cup</b>", "Cup"],
    "category": ["weather", "weather", "sports", "sports"],
    "subcategory": ["weather", "storms", "sports", "cups"],
    "url": ["https://a.example/rain", "", "javascript:alert(1)", 'https://a.example/"onclick=x'],
}
VECTORS = np.array([[1, 0, 0.5], [1, 0.1, 0], [0, 1, 0], [0.1, 1, 0.2]], np.float16)


def write(
    kind: str, name: str, changes: Mapping[str, bytes] | None = None, models: Path | None = None
) -> str:
    """Write a bundle, with some files changed, and trust it; return its folder's name.

    Args:
        kind: "nearest", "sentiment" or "caption".
        name: Before the digest in the folder's name.
        changes: Files that are others than usual, or more.
        models: The folder of bundles; by default the one of the environment.
    """
    models = models or bundle.paths.models()
    half = models / f".half-{name}"
    half.mkdir(parents=True)
    for file, content in {**MADE[kind](), **(changes or {})}.items():
        (half / file).write_bytes(content)
    digest = bundle.seal(half, kind)
    folder = half.rename(models / f"{name}-{digest[:12]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINLAB_MODELS", str(models))
        bundle.trust(digest, folder.name)
    return folder.name


def choose(models: Path, *names: str) -> None:
    """Say which of the bundles are served."""
    half = models / ".served"
    half.write_text("".join(f"{name}\n" for name in names))
    half.replace(models / "served")


def text_network(table: Any, output: str = "vector", inputs: tuple[str, str] = ("ids", "mask")) -> bytes:
    """Return a network that adds up the table's rows [V, D] of an item's words."""
    from onnx import TensorProto, helper, numpy_helper

    ids, mask = inputs
    nodes = [
        helper.make_node("Gather", ["table", ids], ["rows"]),
        helper.make_node("Cast", [mask], ["share"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["share", "last"], ["shares"]),
        helper.make_node("Mul", ["rows", "shares"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "inner"], [output], keepdims=0),
    ]
    tensors = {"table": np.asarray(table, np.float32), "last": np.array([-1]), "inner": np.array([1, 2])}
    return _model(
        helper.make_graph(
            nodes,
            "text",
            [helper.make_tensor_value_info(each, TensorProto.INT64, ["n", "t", "l"]) for each in inputs],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", np.shape(table)[1]])],
            [numpy_helper.from_array(value, key) for key, value in tensors.items()],
        )
    )


def picture_network() -> bytes:
    """Return a network from pictures to their mean colour, twice."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "inner"], ["hidden"], keepdims=0),
        helper.make_node("Identity", ["hidden"], ["cell"]),
    ]
    return _model(
        helper.make_graph(
            nodes,
            "picture",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 3, 8, 8])],
            [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n", 3]) for each in ("hidden", "cell")],
            [numpy_helper.from_array(np.array([2, 3]), "inner")],
        )
    )


def word_network() -> bytes:
    """Return a network that says "a grey field" whatever it has seen."""
    from onnx import TensorProto, helper, numpy_helper

    follows = {1: 4, 4: 5, 5: 6, 6: 2}
    table = np.full((len(CAPTION), len(CAPTION)), -9, np.float32)
    for word, following in follows.items():
        table[word, following] = -0.1
    state, after = (
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n", 3]) for each in names]
        for names in (("hidden", "cell"), ("next_hidden", "next_cell"))
    )
    return _model(
        helper.make_graph(
            [
                helper.make_node("Gather", ["table", "words"], ["chances"]),
                helper.make_node("Identity", ["hidden"], ["next_hidden"]),
                helper.make_node("Identity", ["cell"], ["next_cell"]),
            ],
            "word",
            [helper.make_tensor_value_info("words", TensorProto.INT64, ["n"]), *state],
            [helper.make_tensor_value_info("chances", TensorProto.FLOAT, ["n", len(CAPTION)]), *after],
            [numpy_helper.from_array(table, "table")],
        )
    )


def _model(graph: Any) -> bytes:
    from onnx import helper

    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return made.SerializeToString()


def tokenizer() -> bytes:
    """Return a tokenizer of whole words, at most sixteen of a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, "[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.enable_truncation(16)
    made.enable_padding()
    return made.to_str().encode()


def numbers(vectors: Any) -> bytes:
    """Return vectors as a file of NumPy's."""
    file = io.BytesIO()
    np.save(file, np.asarray(vectors), allow_pickle=False)
    return file.getvalue()


def card(kind: str) -> bytes:
    """Return what is known of a run that there never was."""
    held = {"run": f"{kind}-run", "experiment": "<i>mine</i>", "licences": {"data": "MIT"}}
    return json.dumps(held).encode()


def nearest() -> dict[str, bytes]:
    """Return the files of a bundle of four news."""
    table = [[0, 0, 0], [0, 0, 0.01], [1, 0, 0], [0, 0, 0.5], [0, 1, 0], [0, 0.2, 0], [0, 0, 0], [0, 0, 0]]
    return {
        "text.onnx": text_network(table),
        "tokenizer.json": tokenizer(),
        "settings.json": b'{"texts": 1}',
        "card.json": card("nearest"),
        "items.npy": numbers(VECTORS),
        "items.json": json.dumps(ITEMS).encode(),
    }


def sentiment() -> dict[str, bytes]:
    """Return the files of a bundle that knows two words."""
    table = np.zeros((len(WORDS), 2))
    table[6], table[7] = (0, 3), (3, 0)
    return {
        "text.onnx": text_network(table, "scores"),
        "tokenizer.json": tokenizer(),
        "settings.json": b'{"texts": 1}',
        "card.json": card("sentiment"),
    }


def caption() -> dict[str, bytes]:
    """Return the files of a bundle with one thing to say."""
    settings = {"side": 8, "crop": 8, "max_words": 6, "beam": 2, "padding": 0, "start": 1, "end": 2}
    return {
        "picture.onnx": picture_network(),
        "word.onnx": word_network(),
        "words.json": json.dumps(CAPTION).encode(),
        "settings.json": json.dumps(settings).encode(),
        "card.json": card("caption"),
    }


MADE = {"nearest": nearest, "sentiment": sentiment, "caption": caption}
