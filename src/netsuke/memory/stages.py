"""Which ops are computed together, pixel by pixel, so that what lies between them is never stored.

A depthwise convolution goes with the pointwise one behind it; a convolution with the pool or the sum behind it, or with
the residual that adds what went in.
A stage works in steps, a row of its output each; a vector takes one step, a sum over a map a step an input row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from netsuke.graph import INPUT, Graph, Op, Tensors, Type
from netsuke.memory.fit import WORD

IN_PLACE = frozenset({"qadd", "qmul", "lookup"})
POOLS = frozenset({"maxpool", "qavgpool"})


@dataclass(frozen=True)
class Window:
    """Step n reads the input rows from n*stride + start to n*stride + stop, the last one not included."""

    stride: int = 1
    start: int = 0
    stop: int = 1

    def of(self, inner: Window) -> Window:
        """This window over the rows that another one gives."""
        start, stop = self.start * inner.stride + inner.start, (self.stop - 1) * inner.stride + inner.stop
        return Window(self.stride * inner.stride, start, stop)


@dataclass(frozen=True)
class Stage:
    """An op with what is computed along with it; `windows` has None for an input that is read whole."""

    op: Op
    before: Op | None  # a depthwise convolution, pixel by pixel, for a pointwise `op`
    after: Op | None  # maxpool, sumpool or qadd
    inputs: tuple[str, ...]  # the ops whose memory it reads
    windows: tuple[Window | None, ...]
    steps: int
    scratch: Mapping[str, int]  # bytes of each part: depth, zeros, patch, pixel

    @property
    def output(self) -> str:
        return (self.after or self.op).name

    @property
    def first(self) -> Op:
        return self.before or self.op

    @property
    def ops(self) -> tuple[Op, ...]:
        return tuple(op for op in (self.before, self.op, self.after) if op)


def bases(graph: Graph) -> dict[str, str]:
    """Every activation to the one whose memory it looks at: flattening is a view."""
    found = {INPUT: INPUT}
    for op in graph.ops:
        found[op.name] = found[op.inputs[0]] if op.kind == "flatten" else op.name
    return found


def readers(graph: Graph) -> dict[str, list[Op]]:
    """The ops that read the memory of an activation; the result has a reader of its own, its last op."""
    base = bases(graph)
    found: dict[str, list[Op]] = {name: [] for name in base}
    for op in graph.ops:
        if op.kind != "flatten":
            for name in dict.fromkeys(base[name] for name in op.inputs):
                found[name].append(op)
    found[base[graph.output]].append(graph.ops[-1])
    return found


def depthwise(op: Op, x: Type, y: Type) -> bool:
    """One filter a channel."""
    return op.kind == "qconv2d" and op.attrs["groups"] == x.shape[0] == y.shape[0] > 1


def pointwise(op: Op, tensors: Tensors) -> bool:
    """A filter of one pixel over all channels, at every pixel."""
    a = op.attrs
    return (
        op.kind == "qconv2d"
        and a["groups"] == 1
        and tensors[op.tensor("weight")].shape[2:] == (1, 1)
        and tuple(a["stride"]) == (1, 1)
        and not any(a["padding"])
    )


def gathered(op: Op, tensors: Tensors) -> bool:
    """Whether a convolution copies its window into one piece: not where that is a pixel as it lies."""
    shape = tensors[op.tensor("weight")].shape
    return op.attrs["groups"] > 1 or shape[2:] != (1, 1) or any(op.attrs["padding"])


def stages(graph: Graph, tensors: Tensors) -> list[Stage]:
    """The graph as stages, in the order of execution."""
    types, base, reads = graph.types(tensors), bases(graph), readers(graph)
    taken: set[str] = set()
    found = []
    for op in graph.ops:
        if op.kind == "flatten" or op.name in taken:
            continue
        before, main, after = None, op, None
        if op.kind == "qconv2d":
            follower = _follower(op, reads)
            if (
                follower
                and depthwise(op, types[op.inputs[0]], types[op.name])
                and pointwise(follower, tensors)
            ):
                before, main = op, follower
                follower = _follower(main, reads)
            if follower and (
                _joins(follower, main, types)
                or _residual(follower, before or main, main, types, base, tensors)
            ):
                after = follower
        taken |= {o.name for o in (main, after) if o}
        found.append(_stage(before, main, after, types, base, tensors))
    return found


def _follower(op: Op, reads: Mapping[str, list[Op]]) -> Op | None:
    """The only op that reads a map, unless that map is the result."""
    only = reads[op.name]
    return only[0] if len(only) == 1 and only[0] is not op else None


def _joins(op: Op, main: Op, types: Mapping[str, Type]) -> bool:
    """Whether a pool can follow pixel by pixel: a maximum over sums of one product, none computed twice."""
    if op.kind != "maxpool":
        return op.kind == "sumpool"
    strides = zip(op.attrs["stride"], op.attrs["kernel"], strict=True)
    return main.attrs["groups"] == 1 and all(stride >= side for stride, side in strides)


def _residual(
    add: Op, first: Op, main: Op, types: Mapping[str, Type], base: Mapping[str, str], tensors: Tensors
) -> bool:
    """Whether a sum adds to a convolution the very pixel that its window lies around."""
    names = sorted(base[name] for name in add.inputs)
    if add.kind != "qadd" or names != sorted((base[first.inputs[0]], main.name)) or names[0] == names[1]:
        return False
    spans = [
        window(op, axis, tensors) for op in {first.name: first, main.name: main}.values() for axis in (0, 1)
    ]
    around = all(w.stride == 1 and w.start <= 0 < w.stop for w in spans)
    return (
        around and len(types[add.name].shape) == 3 and types[first.inputs[0]].shape == types[add.name].shape
    )


def _stage(
    before: Op | None,
    main: Op,
    after: Op | None,
    types: Mapping[str, Type],
    base: Mapping[str, str],
    tensors: Tensors,
) -> Stage:
    first = before or main
    inputs = tuple(base[name] for name in first.inputs)
    ops = [op for op in (after if after and after.kind == "maxpool" else None, main, before) if op]
    windows = tuple(_rows(ops, types[name], tensors) for name in first.inputs)
    shape = types[(after or main).name].shape
    steps = shape[1] if len(shape) == 3 else 1
    if main.kind == "sumpool" or (after and after.kind == "sumpool"):
        steps = types[main.inputs[0] if main.kind == "sumpool" else main.name].shape[1]
    return Stage(main, before, after, inputs, windows, steps, _scratch(before, main, after, types, tensors))


def _rows(ops: list[Op], x: Type, tensors: Tensors) -> Window | None:
    """The rows of `x` that the ops look at together, the last to compute first; None where `x` is a vector."""
    if len(x.shape) == 1:
        return None
    whole = Window()
    for op in ops:
        whole = whole.of(window(op, 0, tensors))
    return whole


def window(op: Op, axis: int, tensors: Tensors) -> Window:
    """How an op looks along rows (0) or columns (1)."""
    if op.kind not in ("qconv2d", *POOLS):
        return Window()
    before = op.attrs.get("padding", (0, 0, 0, 0))[axis]
    side = op.attrs["kernel"][axis] if op.kind in POOLS else tensors[op.tensor("weight")].shape[2 + axis]
    return Window(op.attrs["stride"][axis], -before, side - before)


def _scratch(
    before: Op | None, main: Op, after: Op | None, types: Mapping[str, Type], tensors: Tensors
) -> dict[str, int]:
    """Depthwise pixels and windows in one piece, as many as are pooled; zeros beside the map; a pixel to be added."""
    parts: dict[str, int] = {}
    if main.kind != "qconv2d":
        return parts
    x = types[(before or main).inputs[0]]
    pooled = after is not None and after.kind == "maxpool"
    count = prod(after.attrs["kernel"]) if after and pooled else 1
    deep = before or (main if depthwise(main, x, types[main.name]) else None)
    if before:
        parts["depth"] = x.shape[0] * count
    if deep and any(deep.attrs["padding"]):
        parts["zeros"] = x.shape[0]
    if not deep and (gathered(main, tensors) or pooled):
        parts["patch"] = prod(tensors[main.tensor("weight")].shape[1:]) * count
    if after and not pooled:
        parts["pixel"] = types[main.name].shape[0]
    return parts


def words(size: int) -> int:
    return -(-size // WORD) * WORD
