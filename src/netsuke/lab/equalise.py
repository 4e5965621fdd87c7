"""Cross-layer equalisation: channels that lie far apart in scale are brought together before they are rounded.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section 4.1.
"""

from __future__ import annotations

import numpy as np

from netsuke.graph import Graph, Op

LAYERS = ("conv2d", "dense")
# f(s x) = s f(x) for every s > 0, channel by channel. ReLU6 is not: its 6 stands still.
SCALING = frozenset({"relu", "leakyrelu", "prelu", "maxpool", "avgpool", "globalavgpool", "flatten"})
ROUNDS = 40
CLOSE = 1e-3  # the largest relative change of a scale that ends the search


def pairs(graph: Graph) -> list[tuple[Op, Op]]:
    """Layers and the layer that alone reads each, with nothing between them but ops of `SCALING`."""
    readers: dict[str, list[Op]] = {op.name: [] for op in graph.ops}
    for op in graph.ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op)
    found = []
    for first in graph.ops:
        if first.kind not in LAYERS:
            continue
        last = first
        while len(readers[last.name]) == 1 and readers[last.name][0].kind in SCALING:
            last = readers[last.name][0]
        after = readers[last.name]
        if len(after) == 1 and after[0].kind in LAYERS:
            found.append((first, after[0]))
    return found


def equalised(graph: Graph, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights of a float graph that computes the same, with the channels between layers at like scales.

    The channel i between two layers is scaled down by s_i in the first and up in the second, with s_i the square
    root of the ratio of its largest weights, until nothing moves. `tensors` is untouched.
    """
    found = pairs(graph)
    touched = {op.tensor(role) for pair in found for op in pair for role in ("weight", "bias")}
    precise = {name: np.array(tensors[name], np.float64, order="C") for name in touched}
    for _ in range(ROUNDS):
        if max([_balance(first, second, precise) for first, second in found], default=0.0) < CLOSE:
            break
    return {**tensors, **{name: array.astype(np.float32) for name, array in precise.items()}}


def _balance(first: Op, second: Op, tensors: dict[str, np.ndarray]) -> float:
    """Bring one pair to balance, in place; gives the largest relative change."""
    weight, bias = tensors[first.tensor("weight")], tensors[first.tensor("bias")]
    out = np.abs(weight).reshape(len(weight), -1).max(1)
    reading = _by_input(second, tensors[second.tensor("weight")], len(weight))
    into = np.abs(reading).max((2, 3)).reshape(-1)
    alive = (out > 0) & (into > 0)  # a silent channel has no scale
    scale = np.sqrt(np.divide(out, into, out=np.ones_like(out), where=alive))
    weight /= scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias /= scale
    reading *= scale.reshape(*reading.shape[:2], 1, 1)
    return float(np.abs(scale - 1).max())


def _by_input(op: Op, weight: np.ndarray, channels: int) -> np.ndarray:
    """A view of a layer's weights: group, input channel in it, outputs that read it, values of each."""
    if op.kind == "dense":  # a flattened map gives a channel as a block of columns
        return weight.reshape(1, len(weight), channels, -1).transpose(0, 2, 1, 3)
    groups = op.attrs["groups"]
    return weight.reshape(groups, len(weight) // groups, channels // groups, -1).transpose(0, 2, 1, 3)
