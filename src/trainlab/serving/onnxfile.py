"""An ONNX file as an enemy may have made it: read once, looked through, and run from these same bytes.

ONNX lets a tensor's values lie in another file, whose path may lead anywhere, and a tensor claim any shape.
A bundle's files hold all their values themselves, so whatever says otherwise is refused. The format is
protobuf's; its messages and their numbers are those of onnx.proto.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from trainlab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST = (1 << 31) - 1  # bytes: protobuf reads no more
DEEPEST = 50  # graphs inside each other's nodes, counted in messages
MOST = 5_000_000  # fields looked at
MOST_BYTES_EACH = 16  # of a number, a complex one of double precision

# Of each message, which fields hold which others that a tensor may lie in
_INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
}
# Of a tensor: its shape, the fields with values, what lies in another file, and where its values lie
_DIMS, _VALUES, _EXTERNAL, _LOCATION = 1, (4, 5, 6, 7, 9, 10, 11), 13, 14
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # protobuf's kinds of fields


def check(content: bytes) -> None:
    """Look through an ONNX file.

    Args:
        content: The file's bytes.

    Raises:
        ValueError: It is no such file, is larger than one can be, has values in another file, or a tensor
            that claims more values than lie in it. The text says which.
    """
    if len(content) > LARGEST:
        raise ValueError(f"{len(content):,} bytes, and ONNX files have {LARGEST:,} at most")
    left = MOST
    waiting = [("model", memoryview(content), 0)]
    graphs = 0
    while waiting:
        kind, message, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} messages inside each other")
        graphs += kind == "graph"
        if kind == "tensor":
            left -= _check_tensor(message)
        else:
            for number, value in _fields(message):
                left -= 1
                inside = _INSIDE[kind].get(number)
                if inside and isinstance(value, memoryview):
                    waiting.append((inside, value, depth + 1))
        if left < 0:
            raise ValueError(f"more than {MOST:,} parts")
    if not graphs:
        raise ValueError("no graph in it")


def session(content: bytes) -> Any:
    """Return an onnxruntime session of a file that `check` has found harmless, on one thread of the CPU.

    One thread answers a text in less CPU time than several, and threads that spin while idle take it from
    whoever else works on the machine. Raises UserError where onnxruntime refuses the file.
    """
    from trainlab import extras

    extras.need("onnxruntime", "A bundle")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors alone
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # one of a dozen kinds of its own
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"onnxruntime can't run the network: {reason}") from None


def _check_tensor(message: memoryview) -> int:
    """Refuse a tensor whose values lie elsewhere, or that claims more than it holds; return its fields."""
    dims: list[int] = []
    held = count = 0
    for number, value in _fields(message):
        count += 1
        if number == _EXTERNAL or (number == _LOCATION and value != 0):
            raise ValueError("a tensor whose values lie in another file")
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else _varints(value)
        elif number in _VALUES:
            held += MOST_BYTES_EACH if isinstance(value, int) else len(value)
    claimed = prod(dims)  # strings and packed numbers may take one byte each, and less than one never
    if claimed > 2 * held and claimed > 0:
        raise ValueError(f"a tensor of {claimed:,} numbers, in {held:,} bytes")
    return count


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field; raise ValueError where the bytes are no message."""
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in (_EIGHT, _FOUR):
            size = 8 if kind == _EIGHT else 4
        else:
            raise ValueError("no ONNX file")
        if not number or size > end - place:
            raise ValueError("no ONNX file, or not all of one")
        yield number, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return protobuf's whole number that begins at a place, and where the next field begins."""
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise ValueError("no ONNX file, or not all of one")
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _varints(packed: memoryview) -> list[int]:
    values, place = [], 0
    while place < len(packed):
        value, place = _varint(packed, place)
        values.append(value)
    return values
