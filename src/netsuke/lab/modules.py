"""A float graph as a trainable torch module: how an artifact comes back into the lab."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netsuke.errors import UnsupportedOp
from netsuke.graph import INPUT, OPS, Graph, Op

Weights = Mapping[str, Tensor]


def _padded(x: Tensor, padding: Sequence[int], value: float = 0.0) -> Tensor:
    if not any(padding):
        return x
    top, left, bottom, right = padding
    return F.pad(x, (left, right, top, bottom), value=value)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, op: Op) -> Tensor:
    """conv2d of a graph op; symmetric padding goes to the library, which is faster than a padded copy."""
    top, left, bottom, right = op.attrs["padding"]
    stride, groups = tuple(op.attrs["stride"]), op.attrs["groups"]
    if (top, left) == (bottom, right):
        return F.conv2d(x, weight, bias, stride, (top, left), groups=groups)
    return F.conv2d(_padded(x, op.attrs["padding"]), weight, bias, stride, groups=groups)


def maxpool(x: Tensor, op: Op) -> Tensor:
    x = _padded(x, op.attrs["padding"], -torch.inf)
    return F.max_pool2d(x, tuple(op.attrs["kernel"]), tuple(op.attrs["stride"]))


def avgpool(x: Tensor, op: Op) -> Tensor:
    """Averages of windows, or their sums for the integer op; padded zeros count."""
    window = tuple(op.attrs["kernel"]), tuple(op.attrs["stride"])
    x = _padded(x, op.attrs.get("padding", ()))
    return F.avg_pool2d(x, *window, divisor_override=1 if op.kind == "qavgpool" else None)


def gate(x: Tensor, g: Tensor) -> Tensor:
    """x [n, C, H, W] times one value a channel [n, C], a pixel [n, 1, H, W] or an element."""
    return x * (g if g.ndim == x.ndim else g[:, :, None, None])


def _normalize(op: Op, x: Sequence[Tensor], w: Weights) -> Tensor:
    scale, offset = (x[0].new_tensor(op.attrs[key])[:, None, None] for key in ("scales", "offsets"))
    return x[0] * (scale * 255) + offset  # modules take images in 0..1, graphs 0..255


# What only moves values, or picks among them, and so is the same on floats and integers.
MOVES: dict[str, Callable[[Op, Sequence[Tensor], Weights], Tensor]] = {
    "channelmax": lambda op, x, w: x[0].amax(1, keepdim=True),
    "concat": lambda op, x, w: torch.cat(list(x), 1),
    "slice": lambda op, x, w: x[0][:, op.attrs["start"] : op.attrs["stop"]],
    "shuffle": lambda op, x, w: F.channel_shuffle(x[0], op.attrs["groups"]),
    "maxpool": lambda op, x, w: maxpool(x[0], op),
    "flatten": lambda op, x, w: x[0].flatten(1),
}

TORCH: dict[str, Callable[[Op, Sequence[Tensor], Weights], Tensor]] = {
    "normalize": _normalize,
    "conv2d": lambda op, x, w: convolve(x[0], w["weight"], w["bias"], op),
    "dense": lambda op, x, w: F.linear(x[0], w["weight"], w["bias"]),
    "relu": lambda op, x, w: F.relu(x[0]),
    "relu6": lambda op, x, w: F.relu6(x[0]),
    "sigmoid": lambda op, x, w: torch.sigmoid(x[0]),
    "tanh": lambda op, x, w: torch.tanh(x[0]),
    "leakyrelu": lambda op, x, w: F.leaky_relu(x[0], op.attrs["slope"]),
    "prelu": lambda op, x, w: F.prelu(x[0], w["slope"]),
    "silu": lambda op, x, w: F.silu(x[0]),
    "hardswish": lambda op, x, w: F.hardswish(x[0]),
    "hardsigmoid": lambda op, x, w: F.hardsigmoid(x[0]),
    "avgpool": lambda op, x, w: avgpool(x[0], op),
    "globalavgpool": lambda op, x, w: x[0].mean((2, 3)),
    "channelmean": lambda op, x, w: x[0].mean(1, keepdim=True),
    "add": lambda op, x, w: x[0] + x[1],
    "mul": lambda op, x, w: gate(x[0], x[1]),
    **MOVES,
}


def key(name: str) -> str:
    """The name of an op's part in a ModuleDict, which takes neither dots nor the names of its own methods."""
    plain = name.replace(".", "\u00b7")
    return f"{plain}\u00b7" if hasattr(nn.ModuleDict, plain) else plain


class FloatGraph(nn.Module):
    """The torch twin of a float graph: images in 0..1 [n, C, H, W] to logits, its weights as parameters.

    A weight may take a form of `lab.forms`, pruned or shared; `to_graph` gives the values it stands for.
    Raises UnsupportedOp for an integer graph, whose weights are rounded beyond training.
    """

    def __init__(self, graph: Graph, tensors: dict[str, np.ndarray]):
        super().__init__()
        unknown = sorted({op.kind for op in graph.ops} - set(TORCH))
        if unknown:
            raise UnsupportedOp(
                f"cannot train {unknown[0]!r}; only float graphs train: {', '.join(sorted(TORCH))}"
            )
        self.graph = graph
        self.layers = nn.ModuleDict()
        for name, (op, role) in graph.roles().items():
            if key(op) not in self.layers:
                self.layers[key(op)] = nn.Module()
            self.layers[key(op)].register_parameter(
                role, nn.Parameter(torch.from_numpy(tensors[name].copy()))
            )

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        values = {INPUT: x}
        for op in self.graph.ops:
            part = key(op.name)
            weights = {role: getattr(self.layers[part], role) for role in OPS[op.kind].roles}
            values[op.name] = TORCH[op.kind](op, [values[i] for i in op.inputs], weights)
        return values

    def forward(self, x: Tensor) -> Tensor:
        return self.activations(x)[self.graph.output]

    def again(
        self, values: Mapping[str, Tensor], tensors: Weights, keep: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The logits with other `tensors`, by name, given the `activations` without them.

        `keep` zeroes channels: op name to bool [channels] of its output. Only what changes is computed again.
        """
        new: dict[str, Tensor] = {}
        for op in self.graph.ops:
            names = {role: op.tensor(role) for role in OPS[op.kind].roles}
            kept = (keep or {}).get(op.name)
            if kept is None and not (new.keys() & set(op.inputs) or tensors.keys() & set(names.values())):
                continue
            weights = {
                role: tensors[name] if name in tensors else getattr(self.layers[key(op.name)], role)
                for role, name in names.items()
            }
            y = TORCH[op.kind](op, [new.get(i, values[i]) for i in op.inputs], weights)
            new[op.name] = y if kept is None else y * kept.reshape(-1, *[1] * (y.ndim - 2))
        return new.get(self.graph.output, values[self.graph.output])

    def to_graph(self) -> tuple[Graph, dict[str, np.ndarray]]:
        roles = self.graph.roles()
        found = {name: getattr(self.layers[key(op)], role) for name, (op, role) in roles.items()}
        return self.graph, {name: p.detach().cpu().numpy().copy() for name, p in found.items()}
