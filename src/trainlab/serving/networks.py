"""torch's networks as ONNX files that hold all they need and nothing of this machine."""

from __future__ import annotations

import inspect
import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlab import extras
from trainlab.cleaning import printable
from trainlab.errors import UserError
from trainlab.serving import onnxfile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

OPSET = 20  # what torch 2.13 writes; onnxruntime has read it since 1.17


@dataclass(frozen=True)
class Network:
    """A network that becomes one file.

    Attributes:
        module: Called with the example's tensors, in their order; returns a tensor, or a tuple of them.
        example: Its inputs by name, of two items at least: a size of one would be taken for a constant.
        axes: Which of an input's dimensions may have another size, by name; the same name, the same size.
        outputs: The names of what it returns. Not "embedding": onnxruntime refuses the file.
    """

    module: nn.Module
    example: Mapping[str, Tensor]
    axes: Mapping[str, Mapping[int, str]]
    outputs: Sequence[str]


def to_onnx(network: Network) -> bytes:
    """Return a network as an ONNX file, in fp32.

    Raises UserError where torch can't export it, or it is larger than an ONNX file can be.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        extras.need(module, "trainlab export-model")
    import torch

    dims = {name: torch.export.Dim(name) for axes in network.axes.values() for name in axes.values()}
    shapes: Any = tuple(
        {axis: dims[name] for axis, name in network.axes.get(each, {}).items()} for each in network.example
    )
    kinds = {each.kind for each in inspect.signature(network.module.forward).parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL in kinds:  # torch takes what stands behind a star for one input
        shapes = (shapes,)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nobody needs here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's of its own deprecated ways
            program = torch.onnx.export(
                network.module.eval(),
                tuple(
                    each.clone() for each in network.example.values()
                ),  # one given twice would be one input
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(network.example),
                output_names=list(network.outputs),
                opset_version=OPSET,
                verbose=False,
            )
        assert program is not None, "torch.onnx.export returns a program unless it is given a file"
        model = program.model_proto
        size = model.ByteSize()
    except Exception as error:  # anything, from any layer of torch, and protobuf's for what is too large
        text = str(error).partition("## Exception summary")[2] or f"{type(error).__name__}: {error}"
        reason = printable(" ".join(text.split()))[:400]
        raise UserError(
            f"The network can't be exported to ONNX. torch says: {reason} Expected a forward() of tensors "
            "alone, without branches on their values."
        ) from None
    if size > onnxfile.LARGEST:
        raise UserError(
            f"The network comes to {size:,} bytes in ONNX, which has {onnxfile.LARGEST:,} at most. Train a "
            "smaller backbone."
        )
    _strip(model)
    return model.SerializeToString(deterministic=True)


def to_int8(content: bytes) -> bytes:
    """Return an ONNX file with the weights of its matrix products in 8 bits, a scale for each column.

    What goes through them is scaled to 8 bits while it runs, by the largest number in a batch: a text's
    answer depends on what else is in its batch, and on the CPU.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(max(logging.ERROR, logging.getLogger().level))
    with tempfile.TemporaryDirectory() as temporary:
        before, after = Path(temporary, "fp32.onnx"), Path(temporary, "int8.onnx")
        before.write_bytes(content)
        quantize_dynamic(
            before,
            after,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
        )
        return after.read_bytes()


def _strip(model: Any) -> None:
    """Take out what torch notes of where each node comes from: names and lines of files of this machine."""
    graphs = [model.graph]
    del model.metadata_props[:]
    for function in model.functions:
        del function.metadata_props[:]
        graphs.append(function)
    while graphs:
        graph = graphs.pop()
        graph.doc_string = ""
        if hasattr(graph, "metadata_props"):
            del graph.metadata_props[:]
        named = ("input", "output", "value_info", "initializer")
        for each in [
            value for name in named for value in getattr(graph, name, ()) if not isinstance(value, str)
        ]:
            del each.metadata_props[:]
            each.doc_string = ""
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs
