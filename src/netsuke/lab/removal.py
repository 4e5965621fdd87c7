"""A float graph without some of its channels: smaller weights, the same ops."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

import numpy as np

from netsuke.errors import GraphError
from netsuke.graph import INPUT, Graph, Op, Tensors
from netsuke.lab.channels import Channels, coupled, depthwise
from netsuke.lab.forms import Mask, form_of, set_mask
from netsuke.lab.modules import FloatGraph, key

G = TypeVar("G", bound=FloatGraph)
Pair = tuple[Graph, dict[str, np.ndarray]]


def remove(graph: Graph, tensors: Tensors, units: Collection[int], channels: Channels | None = None) -> Pair:
    """The graph and weights without the channels of `units`, which are counted as in `Channels(graph, tensors)`.

    It computes what the original does where every removed channel reads as 0; a mean or peak over the channels is
    one over those that stay. Raises GraphError where units cannot go, or not without others.
    """
    return _removal(channels or Channels(graph, tensors), units).go()


def survivors(channels: Channels, units: Collection[int]) -> dict[str, np.ndarray]:
    """What `remove` leaves of each output: the former places of its channels, in their new order."""
    removal = _removal(channels, units)
    removal.go()
    return removal.order


def _removal(channels: Channels, units: Collection[int]) -> _Removal:
    gone = np.zeros(channels.count, bool)
    gone[list(units)] = True
    if (gone & channels.fixed).any():
        raise GraphError("image channels, logits and means over channels cannot be removed")
    return _Removal(channels, ~gone)


class _Removal:
    """`order` maps each output to the former places of its channels, in their new order."""

    def __init__(self, channels: Channels, keep: np.ndarray):
        self.c, self.keep = channels, keep
        self.order: dict[str, np.ndarray] = {INPUT: np.arange(channels.graph.input_shape[0])}
        self.tensors: dict[str, np.ndarray] = {}

    def go(self) -> Pair:
        graph = self.c.graph
        ops = []
        for op in graph.ops:
            attrs = dict(op.attrs)
            self.order[op.name] = self.rewritten(op, attrs)
            if not len(self.order[op.name]):
                raise GraphError(f"{op.kind} {op.name!r} would keep no channel")
            ops.append(Op(op.kind, op.name, op.inputs, attrs))
        smaller = Graph(graph.input_shape, tuple(ops))
        smaller.types(self.tensors)
        return smaller, self.tensors

    def kept(self, name: str) -> np.ndarray:
        return np.flatnonzero(self.keep[self.c.at[name]])

    def take(self, op: Op, role: str, array: np.ndarray) -> None:
        self.tensors[op.tensor(role)] = np.ascontiguousarray(array)

    def rewritten(self, op: Op, attrs: dict) -> np.ndarray:
        """Adds the weights of an op and changes its attributes; the order of its output."""
        x = self.order[op.inputs[0]]
        size = self.c.types[op.inputs[0]].shape[0]
        if op.kind == "conv2d":
            return self.convolved(op, attrs, x, size)
        if op.kind == "dense":
            rows = self.kept(op.name)
            self.layer(op, self.c.tensors[op.tensor("weight")][np.ix_(rows, x)], rows)
            return rows
        if op.kind in ("channelmean", "channelmax"):
            return np.arange(1)
        if op.kind == "flatten":
            each = self.c.types[op.name].shape[0] // size
            return (x[:, None] * each + np.arange(each)).reshape(-1)
        if op.kind == "concat":
            starts = np.cumsum([0] + [self.c.types[name].shape[0] for name in op.inputs])
            return np.concatenate(
                [self.order[name] + start for name, start in zip(op.inputs, starts, strict=False)]
            )
        if op.kind == "slice":
            return self.sliced(op, attrs, x)
        if op.kind == "shuffle":
            return self.shuffled(op, x, size)
        if op.kind == "prelu":
            self.take(op, "slope", self.c.tensors[op.tensor("slope")][x])
        if coupled(op, self.c.types) and not np.array_equal(x, self.order[op.inputs[1]]):
            raise self.fail(op, "its two inputs would no longer match channel by channel")
        return x

    def layer(self, op: Op, weight: np.ndarray, rows: np.ndarray) -> None:
        self.take(op, "weight", weight)
        self.take(op, "bias", self.c.tensors[op.tensor("bias")][rows])

    def convolved(self, op: Op, attrs: dict, x: np.ndarray, size: int) -> np.ndarray:
        weight, count = self.c.tensors[op.tensor("weight")], op.attrs["groups"]
        each, made = size // count, len(weight) // count
        if depthwise(op, size):
            rows = (x[:, None] * made + np.arange(made)).reshape(-1)
            attrs["groups"] = len(x)
            self.layer(op, weight[rows], rows)
            return rows
        rows = self.kept(op.name)
        if len(x) % count or len(rows) % count:
            raise self.fail(
                op, f"{len(x)} inputs and {len(rows)} outputs would not divide into {count} groups"
            )
        arriving, leaving = x.reshape(count, -1), rows.reshape(count, -1)
        own = np.arange(count)[:, None]
        if (arriving // each != own).any() or (leaving // made != own).any():
            raise self.fail(op, "its groups would keep different numbers of channels")
        parts = [weight[np.ix_(o, i % each)] for i, o in zip(arriving, leaving, strict=True)]
        self.layer(op, np.concatenate(parts), rows)
        return rows

    def sliced(self, op: Op, attrs: dict, x: np.ndarray) -> np.ndarray:
        start, stop = op.attrs["start"], op.attrs["stop"]
        places = np.flatnonzero((x >= start) & (x < stop))
        if not len(places):
            raise self.fail(op, "it would keep no channel")
        attrs["start"], attrs["stop"] = int(places[0]), int(places[-1]) + 1
        if attrs["stop"] - attrs["start"] != len(places):
            raise self.fail(op, "other channels would come between its own")
        return x[places] - start

    def shuffled(self, op: Op, x: np.ndarray, size: int) -> np.ndarray:
        count = op.attrs["groups"]
        each = size // count
        if len(x) % count:
            raise self.fail(op, f"{len(x)} channels would not divide into {count} groups")
        dealt = x.reshape(count, -1).T.reshape(-1)
        return (dealt % each) * count + dealt // each

    def fail(self, op: Op, text: str) -> GraphError:
        return GraphError(f"{op.kind} {op.name!r}: {text}; choose units that keep its balance")


def masked_like(network: G, model: FloatGraph) -> G:
    """`network`, in place, with masks over its zeros wherever `model`, which it was made of, has a mask."""
    for op in network.graph.ops:
        part = key(op.name)
        if part in model.layers and form_of(model.layers[part], Mask):
            layer = network.layers[part]
            set_mask(layer, layer.weight != 0)  # type: ignore
    return network.train(model.training)
