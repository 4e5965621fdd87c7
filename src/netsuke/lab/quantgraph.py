"""The trainable twin of an integer graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from netsuke.graph import INPUT, Graph, Op
from netsuke.lab import native
from netsuke.lab.integers import Activation
from netsuke.lab.modules import MOVES, avgpool, gate, key
from netsuke.lab.quantlayers import QuantLayer, QuantLogits, QuantLookup

Layer = QuantLayer | QuantLogits | QuantLookup


class QuantGraph(nn.Module):
    """The trainable twin of an integer graph: images in 0..1 [n, C, H, W] to real logits, one a class or a map.

    `quantize` builds it. In evaluation mode the logits are the integer graph's,
    times the scale of its last op; `to_graph` gives that graph.
    """

    exact = True  # arithmetic on integers in float32: not to be run in bf16

    def __init__(self, input_shape: tuple[int, int, int]):
        super().__init__()
        self.layers = nn.ModuleDict()  # of the ops in `plan` that have weights, by name
        self.input_shape = input_shape
        self.plan: list[Op] = []

    def layer(self, name: str) -> Any:
        """The trainable part of the op called `name`."""
        return self.layers[key(name)]

    def forward(self, x: Tensor) -> Tensor:
        if native.usable(self, x):
            return native.forward(self, x)
        values: dict[str, Tensor] = {INPUT: x}
        for op in self.plan:
            values[op.name] = self.step(op, [values[name] for name in op.inputs])
        return values[self.plan[-1].name]

    def step(self, op: Op, x: Sequence[Tensor]) -> Tensor:
        """One op on integers held in float32."""
        if key(op.name) in self.layers:
            return self.layers[key(op.name)](x[0])
        if op.kind == "halve":
            return ((x[0] * 255).round() / 2).floor()
        if op.kind in MOVES:
            return MOVES[op.kind](op, x, {})
        if op.kind == "qavgpool":
            return averaged(avgpool(x[0], op), op)
        if op.kind == "qchannelmean":
            return averaged(x[0].sum(1, keepdim=True), op)
        if op.kind == "sumpool":
            return x[0].sum((2, 3)) * op.attrs.get("scale", 1.0)
        lo = -127 if op.attrs["signed"] else 0
        if op.kind == "qmul":
            return Activation.apply(
                gate(x[0], x[1]) * (op.attrs["multiplier"] / 2.0 ** op.attrs["shift"]), lo, 127
            )
        assert op.kind == "qadd"
        return (x[0] + x[1]).clamp(lo, 127)

    def to_graph(self) -> tuple[Graph, dict[str, np.ndarray]]:
        ops, found = [], {}
        for op in self.plan:
            if key(op.name) in self.layers:
                layer = self.layers[key(op.name)]
                assert isinstance(layer, Layer)
                found.update({op.tensor(role): array for role, array in layer.arrays().items()})
                if isinstance(layer, QuantLogits):
                    op = Op(op.kind, op.name, op.inputs, {**op.attrs, "scale": float(layer.scale.detach())})
            ops.append(op)
        return Graph(self.input_shape, tuple(ops)), found


def averaged(total: Tensor, op: Op) -> Tensor:
    """Sums requantised by the op's multiplier; in float64, for a sum over a large map has many digits."""
    return Activation.apply(
        total.double() * (op.attrs["multiplier"] / 2.0 ** op.attrs["shift"]), -127, 127
    ).to(total.dtype)
