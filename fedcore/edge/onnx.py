"""A trained model as ONNX bytes: input ``x`` (rows, …) float32, output ``scores``.

The sigmoid or softmax is part of the graph, so a device needs no idea of the model. Bytes are
the same for equal models; nothing of the exporting machine is left in them.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedcore.adapters.model import FRAMEWORKS, ModelSpec
from fedcore.adapters.numpy import NumpyModel
from fedcore.adapters.trained import TrainedModel
from fedcore.adapters.zoo import DENSE
from fedcore.errors import BadConfig, MissingExtra, UnknownName
from fedcore.types import Vector

OPSET = 20


def onnx_bytes(trained: TrainedModel) -> bytes:
    """The ONNX model of `trained`. Raises `MissingExtra` without onnx, `BadConfig` for what only torch exports."""
    spec = trained.spec
    if spec.framework not in FRAMEWORKS:
        raise UnknownName("framework for export", spec.framework, FRAMEWORKS)
    if spec.factory and spec.framework != "torch":
        raise BadConfig(
            "model.factory",
            spec.factory,
            f"a model of {spec.framework} by import path cannot be exported, use torch",
        )
    try:
        dense = not spec.factory and spec.name in DENSE
        proto = _dense_graph(spec, trained.vector) if dense else _torch_graph(trained)
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "torch,export") from None
    _forget_origin(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _dense_graph(spec: ModelSpec, vector: Vector) -> Any:
    """A dense network, which every framework lays out alike: no need to trace it, which takes seconds."""
    from onnx import TensorProto, helper, numpy_helper

    layers = NumpyModel(spec).layers(vector)
    flat = len(spec.input_shape) == 1
    nodes = [] if flat else [helper.make_node("Flatten", ["x"], ["flat"], axis=1)]
    tensors, current = [], "x" if flat else "flat"
    for i, (weight, bias) in enumerate(layers):
        tensors += [numpy_helper.from_array(weight, f"w{i}"), numpy_helper.from_array(bias, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [current, f"w{i}", f"b{i}"], [f"z{i}"]))
        current = f"z{i}"
        if i < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [current], [f"h{i}"]))
            current = f"h{i}"
    nodes += _score_nodes(spec, current, tensors)
    rows: list[str | int | None] = ["rows", *spec.input_shape]
    scores: list[str | int | None] = ["rows"] if spec.outputs == 1 else ["rows", spec.outputs]
    graph = helper.make_graph(
        nodes,
        "fedcore",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, scores)],
        tensors,
    )
    return helper.make_model(
        graph, producer_name="fedcore", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10
    )


def _score_nodes(spec: ModelSpec, current: str, tensors: list[Any]) -> list[Any]:
    """Nodes from logits or values to ``scores``; adds the tensor a reshape needs to `tensors`."""
    import numpy as np
    from onnx import helper, numpy_helper

    if spec.outputs > 1:
        return [helper.make_node("Softmax", [current], ["scores"], axis=1)]
    tensors.append(numpy_helper.from_array(np.array([-1], np.int64), "vector"))
    if spec.task != "classification":
        for name, number in zip(("center", "scale"), spec.target, strict=True):
            tensors.append(numpy_helper.from_array(np.array(number, np.float32), name))
        return [
            helper.make_node("Reshape", [current, "vector"], ["standard"]),
            helper.make_node("Mul", ["standard", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "center"], ["scores"]),
        ]
    reshape = helper.make_node("Reshape", [current, "vector"], ["logits"])
    return [reshape, helper.make_node("Sigmoid", ["logits"], ["scores"])]


def _torch_graph(trained: TrainedModel) -> Any:
    """Any module, by PyTorch's own exporter."""
    import torch

    spec = trained.spec

    class Scores(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        """The model with its scores at the end."""

        def __init__(self) -> None:
            super().__init__()
            self.module = trained.model.module(trained.vector)  # type: ignore[attr-defined]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Scores (rows,) or (rows, classes)."""
            out = self.module(x)
            if spec.outputs > 1:
                return torch.softmax(out, dim=1)
            if spec.task != "classification":
                values: torch.Tensor = out.reshape(-1) * spec.target[1] + spec.target[0]
                return values
            return torch.sigmoid(out.reshape(-1))

    example = torch.zeros((3, *spec.input_shape))  # torch.export takes sizes 0 and 1 for constants
    with _quiet():
        program = torch.onnx.export(
            Scores().eval(),
            (example,),
            dynamo=True,
            input_names=["x"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None  # only None when not dynamo
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells about torchvision and its own deprecations; none of it is the user's business."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _forget_origin(proto: Any) -> None:
    """Drop stack traces and scopes: they name paths of the exporting machine."""
    del proto.metadata_props[:]
    proto.doc_string = ""
    parts = [proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    for part in [
        *parts,
        *proto.graph.initializer,
        *proto.functions,
        *(n for f in proto.functions for n in f.node),
    ]:
        del part.metadata_props[:]
        part.doc_string = ""
