"""Whole maps in one block: liveness, in-place ops, first fit; for float graphs.

The plan holds what a device must have beside the caller's image and logits. An activation takes its real
width (a byte, or four for sums and floats). `halve` and `flatten` only look at what they are given, so they
take nothing; the logits are written straight to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from netsuke.graph import INPUT, Graph, Op, Tensors, Type
from netsuke.graph.floats import DYNAMIC
from netsuke.memory.fit import WORD, Buffer, fit

VIEWS = frozenset({"halve", "flatten"})
IN_PLACE = frozenset(
    {
        "qadd",
        "qmul",
        "lookup",
        "add",
        "mul",
        "relu",
        "relu6",
        "leakyrelu",
        "prelu",
        "silu",
        "hardswish",
        "hardsigmoid",
    }
    | {"sigmoid", "tanh"}
)
PACKED = frozenset({"qconv2d", "wconv2d", "dconv2d"})
POOLS = frozenset({"maxpool", "qavgpool", "avgpool"})
SCRATCH = "\0"  # marks the buffer of an op's decoded filter; no op name holds it


@dataclass(frozen=True)
class Plan:
    """Byte offsets in one block of `size` bytes; `scratch` names those of decoded filters by op."""

    offsets: Mapping[str, int]
    scratch: Mapping[str, int]
    size: int


def roots(graph: Graph) -> dict[str, str]:
    """Every activation to the one whose memory it looks at: itself, but for a view."""
    found = {INPUT: INPUT}
    for op in graph.ops:
        found[op.name] = found[op.inputs[0]] if op.kind in VIEWS else op.name
    return found


def plan(graph: Graph, tensors: Tensors) -> Plan:
    """Offsets of every activation that needs memory, in the smallest block that first fit finds."""
    buffers = _buffers(graph, graph.types(tensors)) + _scratch(graph, tensors)
    offsets, size = fit(buffers)
    activations = {name: at for name, at in offsets.items() if not name.startswith(SCRATCH)}
    scratch = {name.removeprefix(SCRATCH): at for name, at in offsets.items() if name.startswith(SCRATCH)}
    return Plan(activations, scratch, size)


def _buffers(graph: Graph, types: Mapping[str, Type]) -> list[Buffer]:
    root = roots(graph)
    result = root[graph.output]
    last = {root[op.name]: i for i, op in enumerate(graph.ops)}
    for i, op in enumerate(graph.ops):
        last |= {root[name]: i for name in op.inputs}
    last[result] = len(graph.ops)  # the copy to the caller's logits
    buffers = []
    for i, op in enumerate(graph.ops):
        x = types[op.name]
        if op.kind in VIEWS or (op.name == result and in_logits(x)):
            continue
        reads = [root[name] for name in op.inputs]
        dying = {name for name in reads if last[name] == i}
        below = dict.fromkeys(dying if _in_place(op, [types[name] for name in reads], x) else (), 0)
        buffers.append(Buffer(op.name, x.elements * x.itemsize, x.itemsize, i, last[op.name], below))
    return buffers


def in_logits(result: Type) -> bool:
    """Whether the op behind the logits writes straight to the caller's words, with no copy of bytes."""
    return result.itemsize == WORD


def _in_place(op: Op, inputs: list[Type], x: Type) -> bool:
    """Whether the op may write over its input, from its start on, in the order N, H, W, C.

    An unpadded pool reads nothing before the place it writes to: its window starts there or further on.
    Inputs of two shapes, both flattened, lie in two orders, so no single order of writing is safe.
    """
    if len(x.shape) == 1 and len(inputs) > 1:  # a flattened map lies in another order than a vector does
        return False
    if any(i.itemsize != x.itemsize or i.shape != inputs[0].shape for i in inputs):
        return False
    return op.kind in IN_PLACE or (op.kind in POOLS and not any(op.attrs.get("padding", ())))


def _scratch(graph: Graph, tensors: Tensors) -> list[Buffer]:
    """Packed convolution weights are decoded a filter at a time, once for all pixels; dynamic ops round their
    input into bytes.
    """
    types = graph.types(tensors)
    sizes = []
    for op in graph.ops:
        decoded = op.kind in PACKED and op.attrs["bits"] < 8
        size = prod(tensors[op.tensor("weight")].shape[1:]) if decoded else 0
        sizes.append(size + (types[op.inputs[0]].elements if op.kind in DYNAMIC else 0))
    return [
        Buffer(SCRATCH + op.name, size, 1, i, i)
        for i, (op, size) in enumerate(zip(graph.ops, sizes, strict=True))
        if size
    ]
