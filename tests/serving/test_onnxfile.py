"""ONNX files as an enemy may have made them: refused before onnxruntime sees them."""

from __future__ import annotations

import random

import numpy as np
import pytest

import onnx_files
from onnx_files import field, model, tensor
from trainlab.errors import UserError
from trainlab.serving import onnxfile


def test_a_harmless_file_runs() -> None:
    pytest.importorskip("onnxruntime")
    content = model(tensor((2,), np.float32([1, 2]).tobytes()))
    onnxfile.check(content)
    (found,) = onnxfile.session(content).run(None, {"x": np.float32([3, 4])})
    assert found.tolist() == [3, 4]


@pytest.mark.parametrize("place", [b"../../../../etc/passwd", b"/etc/passwd", b"weights.bin"])
def test_values_in_another_file_are_refused_wherever_that_lies(place: bytes) -> None:
    with pytest.raises(ValueError, match="another file"):
        onnxfile.check(onnx_files.outside(place))


def test_values_in_another_file_are_found_in_a_node_of_a_graph_in_a_node() -> None:
    attribute = field(5, tensor((2,), more=field(14, 1)))
    inner = field(1, field(5, attribute))
    for depth in range(3):
        assert depth >= 0
        inner = field(1, field(5, field(6, inner)))
    with pytest.raises(ValueError, match="another file"):
        onnxfile.check(field(7, inner))
    function = field(25, field(7, field(5, attribute)))
    with pytest.raises(ValueError, match="another file"):
        onnxfile.check(model() + function)


def test_a_tensor_that_claims_two_gib_and_holds_none_is_refused() -> None:
    with pytest.raises(ValueError, match="536,870,912 numbers, in 4 bytes"):
        onnxfile.check(model(tensor((1 << 29,), b"1234")))
    packed = onnx_files.varint(1 << 20) * 2
    claimed = field(1, packed) + field(2, 1) + field(9, b"1234")
    with pytest.raises(ValueError, match="1,099,511,627,776 numbers"):
        onnxfile.check(model(claimed))


def test_graphs_without_end_are_refused() -> None:
    inner = field(2, b"g")
    for _ in range(100):
        inner = field(1, field(5, field(6, inner)))
    with pytest.raises(ValueError, match="inside each other"):
        onnxfile.check(field(7, inner))


@pytest.mark.parametrize("content", [b"", b"no ONNX", b"\xff" * 40, field(7, b"\x0a\xff\x7f"), b"\x00"])
def test_what_is_no_onnx_file_is_told(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"ONNX|no graph"):
        onnxfile.check(content)


def test_damaged_bytes_end_in_a_sentence_or_are_read() -> None:
    pytest.importorskip("onnxruntime")
    content, rng = model(tensor((2,), bytes(8))), random.Random(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            onnxfile.check(bytes(damaged))
            onnxfile.session(bytes(damaged))
        except (ValueError, UserError):
            refused += 1
    assert 50 < refused < 500
