"""A finished float graph whose weights are integers, as a torch module: it runs, it does not train."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netsuke.errors import UnsupportedOp
from netsuke.graph import INPUT, OPS, Graph, Op
from netsuke.kernels import MIN_PEAK
from netsuke.lab.modules import TORCH, Weights, convolve, key

EXACT = 1 << 24  # whole numbers up to here are exact in float32


def _axes(values: Tensor, ndim: int) -> Tensor:
    """Values [C] to stand beside [n, C, ...] of `ndim` axes, or beside a weight [C, ...] if one axis is added."""
    return values.reshape(-1, *[1] * (ndim - 2))


def _dequantized(w: Weights) -> Tensor:
    return w["weight"].float() * _axes(w["scale"], w["weight"].ndim + 1)


def _dynamic(op: Op, x: Sequence[Tensor], w: Weights, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The kernel's arithmetic: `product` is linear, of whole numbers held exactly."""
    peak = x[0].abs().flatten(1).amax(1).reshape(-1, *[1] * (x[0].ndim - 1))
    step = peak.clamp(min=MIN_PEAK) / 127
    reach = float(w["weight"].float().abs().flatten(1).sum(1).max()) * 127
    wide = torch.float32 if reach <= EXACT else torch.float64
    total = product((x[0] / step).round().to(wide), w["weight"].to(wide)).float()
    return total * step * _axes(w["scale"], total.ndim) + _axes(w["bias"], total.ndim)


STORED: dict[str, Callable[[Op, Sequence[Tensor], Weights], Tensor]] = {
    **TORCH,
    "wconv2d": lambda op, x, w: convolve(x[0], _dequantized(w), w["bias"], op),
    "wdense": lambda op, x, w: F.linear(x[0], _dequantized(w), w["bias"]),
    "dconv2d": lambda op, x, w: _dynamic(op, x, w, lambda a, b: convolve(a, b, None, op)),
    "ddense": lambda op, x, w: _dynamic(op, x, w, F.linear),
}


class StoredGraph(nn.Module):
    """Images in 0..1 [n, C, H, W] to logits by a float graph as it is stored; its tensors are buffers.

    Raises UnsupportedOp for a graph in the integer contract, which has a twin that trains.
    """

    exact = True  # whole numbers in float32: not to be run in bf16

    def __init__(self, graph: Graph, tensors: dict[str, np.ndarray]):
        super().__init__()
        strange = sorted({op.kind for op in graph.ops} - set(STORED))
        if strange:
            raise UnsupportedOp(f"cannot run {strange[0]!r} in torch; known are {', '.join(sorted(STORED))}")
        self.graph = graph
        self.layers = nn.ModuleDict()
        for name, (op, role) in graph.roles().items():
            if key(op) not in self.layers:
                self.layers[key(op)] = nn.Module()
            self.layers[key(op)].register_buffer(role, torch.from_numpy(tensors[name].copy()))

    def forward(self, x: Tensor) -> Tensor:
        values = {INPUT: x}
        for op in self.graph.ops:
            part = key(op.name)
            weights = {role: getattr(self.layers[part], role) for role in OPS[op.kind].roles}
            values[op.name] = STORED[op.kind](op, [values[i] for i in op.inputs], weights)
        return values[self.graph.output]

    def to_graph(self) -> tuple[Graph, dict[str, np.ndarray]]:
        roles = self.graph.roles()
        found = {name: getattr(self.layers[key(op)], role) for name, (op, role) in roles.items()}
        return self.graph, {name: tensor.cpu().numpy().copy() for name, tensor in found.items()}
