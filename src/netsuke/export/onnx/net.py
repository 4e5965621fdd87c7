"""The ONNX graph under construction: nodes and constants, and what the emitter of one op sees of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count, product
from string import ascii_lowercase
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

    def compact(self, keep: tuple[str, ...]) -> None:
        """Equal constants become one, and names the shortest there are, but for those in `keep`."""
        first: dict[tuple[str, tuple[int, ...], bytes, bool], str] = {}
        same = {
            name: first.setdefault((array.dtype.str, array.shape, array.tobytes(), name in self.int4), name)
            for name, array in self.constants.items()
        }
        new = {name: name for name in ("", *keep)}
        letters = _letters()

        def short(name: str) -> str:
            name = same.get(name, name)
            if name not in new:
                new[name] = next(letters)
            return new[name]

        self.nodes = [
            (kind, [short(name) for name in inputs], short(output), _needed(kind, attrs))
            for kind, inputs, output, attrs in self.nodes
        ]
        self.int4 = {new[name] for name in self.int4 if name in new}
        self.constants = {new[name]: array for name, array in self.constants.items() if name in new}


def _letters() -> Iterator[str]:
    """a, b, …, z, aa, ab, …"""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))


def _needed(kind: str, attrs: dict[str, Any]) -> dict[str, Any]:
    """Attributes without those that say what ONNX takes for granted."""
    default = {"group": 1, "strides": [1, 1], "pads": [0, 0, 0, 0]}
    if kind in ("Conv", "QLinearConv", "ConvInteger"):
        attrs = {key: value for key, value in attrs.items() if key != "kernel_shape"}  # the weight has it
    return {key: value for key, value in attrs.items() if default.get(key) != value}


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
