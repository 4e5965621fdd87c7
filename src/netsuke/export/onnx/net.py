"""The ONNX graph under construction: nodes and constants, and what the emitter of one op sees of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from netsuke.graph import Graph, Op, Tensors, Type

FLOAT, UINT8, INT32, DOUBLE = 1, 2, 6, 11  # TensorProto's element types
_SCALARS: dict[str, Any] = {  # shared constants; their names have no dot, those of ops have one
    "one": np.float32(1),
    "zero": np.uint8(0),
    "middle": np.uint8(128),
    "bit": np.uint8(1),
    "top": np.uint8(127),
    "offset": np.int32(128),
}


class Net:
    """Nodes and constants, gathered op by op. Every value is called `op.role`, so no two names clash."""

    def __init__(self, graph: Graph, tensors: Tensors, opset: int):
        self.graph, self.tensors, self.opset = graph, tensors, opset
        self.types = graph.types(tensors)
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.constants: dict[str, np.ndarray] = {}
        self.int4: set[str] = set()  # those that are stored as INT4


class At:
    """What the emitter of one op sees."""

    def __init__(self, net: Net, op: Op, x: list[str], types: list[Type]):
        self.net, self.op, self.x, self.types = net, op, x, types

    def add(self, kind: str, inputs: list[str], role: str = "out", **attrs: Any) -> str:
        name = self.op.tensor(role)
        self.net.nodes.append((kind, inputs, name, attrs))
        return name

    def constant(self, role: str, value: Any) -> str:
        name = self.op.tensor(role)
        self.net.constants[name] = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        return name

    def scalar(self, name: str) -> str:
        self.net.constants[name] = np.asarray(_SCALARS[name])
        return name

    def weight(self, role: str) -> np.ndarray:
        return self.net.tensors[self.op.tensor(role)]

    def zero(self, type_: Type) -> str:
        """The zero point of an activation."""
        return self.scalar("middle" if type_.dtype == "s8" else "zero")


def window(attrs: Mapping[str, Any]) -> dict[str, Any]:
    names = {"kernel": "kernel_shape", "stride": "strides", "padding": "pads", "groups": "group"}
    values = {names[key]: value for key, value in attrs.items() if key in names}
    return {key: value if key == "group" else list(value) for key, value in values.items()}
