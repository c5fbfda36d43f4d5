"""A network of the world of shapes as ONNX, for any number of rows."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from zigzag.support.extras import require
from zigzag.zoo.learned import LearnedModel
from zigzag.zoo.shapes.grammar import LENGTH

__all__ = ["INPUTS", "OUTPUT", "network_bytes", "require_onnx"]

INPUTS, OUTPUT = ("x", "t", "tokens"), "e"
OPSET = 20


def require_onnx() -> Any:
    """`onnx`, with what torch exports by.

    Raises:
        ImportError: if they are missing, naming the extra that brings them.
    """
    require("onnxscript", "the export of a network needs onnxscript, and Python 3.11", "web")
    return require("onnx", "the export of a network needs onnx, and Python 3.11", "web")


def network_bytes(network: nn.Module) -> bytes:
    """The ONNX of a network `(x, t, tokens) -> e`, float32 `(B, 3, 32, 32)`, `(B,)` and int64 `(B, 8)`, with B free.

    Weights that float16 holds exactly, as those in the package do, are kept in it, and are widened when a runtime
    loads them: half of the size, and the same numbers. The same network gives the same bytes.

    Raises:
        ImportError: without onnx or onnxscript, naming the extra that brings them.
    """
    onnx = require_onnx()
    example = torch.zeros(2, *LearnedModel.shape), torch.zeros(2), torch.zeros(2, LENGTH, dtype=torch.int64)
    rows = torch.export.Dim("rows", min=1)
    with _quiet():
        # Not optimised: torch 2.13's optimiser drops the 1e-15 under the quotient of linear attention, for 0/0.
        program = torch.onnx.export(
            network, example, dynamo=True, verbose=False, optimize=False, opset_version=OPSET,
            input_names=INPUTS, output_names=[OUTPUT], dynamic_shapes=[{0: rows}] * len(example),
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    _without_notes(model)
    _halve(onnx, model.graph)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells of torchvision, and of itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _without_notes(model: Any) -> None:
    """Takes out where in which files each node comes from: it is another text on every machine."""
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")


def _halve(onnx: Any, graph: Any) -> None:
    """Puts each float32 constant that float16 holds exactly into it, with a Cast to float32 behind."""
    casts = []
    for constant in graph.initializer:
        if constant.data_type != onnx.TensorProto.FLOAT:
            continue
        full = torch.from_numpy(onnx.numpy_helper.to_array(constant).copy())
        half = full.half()
        if full.numel() < 16 or not half.float().equal(full):
            continue
        name, constant_name = constant.name, f"{constant.name}_half"
        constant.CopyFrom(onnx.numpy_helper.from_array(half.numpy(), constant_name))
        casts.append(onnx.helper.make_node("Cast", [constant_name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    graph.ClearField("node")
    graph.node.extend(nodes)
