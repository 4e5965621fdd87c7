"""The graph under construction, and what the rules of layers and functions ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from netsuke.errors import UnsupportedLayer
from netsuke.graph import INPUT, Op, Type, infer, typed

PIXELS = "pixels"  # the images in 0..1


class Builder:
    """`values` maps fx nodes to the names of graph outputs, a list of them where a tensor is cut into parts."""

    node: fx.Node  # the one that is being lowered

    def __init__(self, shape: tuple[int, int, int]):
        self.ops: list[Op] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.types: dict[str, Type] = {INPUT: typed(shape, "u8")}
        self.values: dict[fx.Node, str | list[str]] = {}
        self.append(Op("normalize", PIXELS, (INPUT,), scaling([0.0] * shape[0], [1.0] * shape[0])))

    def value(self, index: int) -> str:
        """The graph output that stands at this place among the node's arguments."""
        if index >= len(self.node.args):
            raise UnsupportedLayer(
                f"cannot lower {self.node.name!r}: give its inputs by position, not by name"
            )
        return self.one(self.node.args[index])

    def one(self, argument: Any) -> str:
        """The graph output that an argument of the current node stands for."""
        value = self.values.get(argument) if isinstance(argument, fx.Node) else None
        if not isinstance(value, str):
            raise UnsupportedLayer(
                f"cannot lower {self.node.name!r}: {str(argument)[:80]} is not the output of one layer"
            )
        return value

    def alone(self, name: str) -> bool:
        """Whether the current node is the only reader of graph output `name`, its first argument.

        Several nodes may stand for one output: layers that only hand it on.
        """
        node: Any = self.node.args[0]
        while isinstance(node, fx.Node) and self.values.get(node) == name:
            if len(node.users) > 1:
                return False
            node = node.args[0] if node.args else None
        return True

    def append(self, op: Op) -> str:
        """Add an op whose tensors are there; it must fit what arrives."""
        self.types[op.name] = infer(op, [self.types[name] for name in op.inputs], self.tensors)
        self.ops.append(op)
        return op.name

    def emit(
        self, kind: str, inputs: tuple[str, ...], attrs: Mapping[str, Any] = {}, **weights: np.ndarray
    ) -> str:
        name = self.node.name.strip("_")
        name = f"layer{name}" if name[:1].isdigit() else name
        while name in self.types:  # one node may give several ops
            name += "_"
        op = Op(kind, name, inputs, dict(attrs))
        self.tensors.update({op.tensor(role): array for role, array in weights.items()})
        return self.append(op)

    def fail(self, text: str) -> UnsupportedLayer:
        return UnsupportedLayer(f"cannot lower {str(self.node.target)!r}: {text}")

    def refuse(self, text: str) -> UnsupportedLayer:
        """As `fail`, for calls, whose target has no telling name."""
        return UnsupportedLayer(f"cannot lower {self.node.name!r}: {text}")


def scaling(mean: list[float], std: list[float]) -> dict[str, list[float]]:
    """Attributes of `normalize`: 0..255 to (x / 255 - mean) / std."""
    return {
        "scales": [1 / (255 * s) for s in std],
        "offsets": [-m / s if m else 0.0 for m, s in zip(mean, std, strict=True)],
    }


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().float().contiguous().numpy().copy()
