"""A float graph as a trainable torch module: how an artifact comes back into the lab."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netsuke.errors import UnsupportedOp
from netsuke.graph import INPUT, Graph, Op

Weights = Mapping[str, Tensor]


def _padded(x: Tensor, padding: Sequence[int], value: float = 0.0) -> Tensor:
    top, left, bottom, right = padding
    return F.pad(x, (left, right, top, bottom), value=value) if any(padding) else x


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


def _normalize(op: Op, x: Sequence[Tensor], w: Weights) -> Tensor:
    scale, offset = (x[0].new_tensor(op.attrs[key])[:, None, None] for key in ("scales", "offsets"))
    return x[0] * (scale * 255) + offset  # modules take images in 0..1, graphs 0..255


TORCH: dict[str, Callable[[Op, Sequence[Tensor], Weights], Tensor]] = {
    "normalize": _normalize,
    "conv2d": lambda op, x, w: convolve(x[0], w["weight"], w["bias"], op),
    "dense": lambda op, x, w: F.linear(x[0], w["weight"], w["bias"]),
    "relu": lambda op, x, w: F.relu(x[0]),
    "relu6": lambda op, x, w: F.relu6(x[0]),
    "sigmoid": lambda op, x, w: torch.sigmoid(x[0]),
    "tanh": lambda op, x, w: torch.tanh(x[0]),
    "avgpool": lambda op, x, w: F.avg_pool2d(x[0], tuple(op.attrs["kernel"]), tuple(op.attrs["stride"])),
    "globalavgpool": lambda op, x, w: x[0].mean((2, 3)),
    "add": lambda op, x, w: x[0] + x[1],
    "maxpool": lambda op, x, w: maxpool(x[0], op),
    "flatten": lambda op, x, w: x[0].flatten(1),
}


def _key(name: str) -> str:
    """Torch takes no dots in the names of modules; foreign graphs have them."""
    return name.replace(".", "\u00b7")


class FloatGraph(nn.Module):
    """The torch twin of a float graph: images in 0..1 [n, C, H, W] to logits, its weights as parameters.

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
            if _key(op) not in self.layers:
                self.layers[_key(op)] = nn.Module()
            self.layers[_key(op)].register_parameter(
                role, nn.Parameter(torch.from_numpy(tensors[name].copy()))
            )

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        values = {INPUT: x}
        for op in self.graph.ops:
            key = _key(op.name)
            weights = dict(self.layers[key].named_parameters()) if key in self.layers else {}
            values[op.name] = TORCH[op.kind](op, [values[i] for i in op.inputs], weights)
        return values

    def forward(self, x: Tensor) -> Tensor:
        return self.activations(x)[self.graph.output]

    def to_graph(self) -> tuple[Graph, dict[str, np.ndarray]]:
        roles = self.graph.roles()
        found = {name: getattr(self.layers[_key(op)], role) for name, (op, role) in roles.items()}
        return self.graph, {name: p.detach().cpu().numpy().copy() for name, p in found.items()}
