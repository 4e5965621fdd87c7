"""What goes on inside a network: its intermediates by the names of the graph that `lower` makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch.nn.functional as F
from torch import Tensor, fx, nn

from netsuke.errors import OptionError
from netsuke.graph import INPUT, OPS
from netsuke.lab.lower import lower
from netsuke.lab.lower.functions import HANDING
from netsuke.lab.lower.layers import PASSING
from netsuke.lab.lower.walk import Walk
from netsuke.lab.modules import MOVES, FloatGraph, key
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.quantlayers import QuantLayer, QuantLookup

Values = dict[str, Tensor]
PLAIN = {"normalize", "halve", "avgpool", "qavgpool", "globalavgpool", "sumpool", *MOVES} - {"concat"}


@dataclass(frozen=True)
class Place:
    """An intermediate: the op that gives it, its channels, rows and columns, its depth as a share of the layers.

    A vector is a map of one pixel.
    """

    name: str
    channels: int
    rows: int
    columns: int
    depth: float


def places(model: nn.Module, shape: tuple[int, int, int]) -> dict[str, Place]:
    """Every hidden intermediate that a layer or an activation of the model computes, in order, by name."""
    graph, tensors = lower(model, shape)
    types = graph.types(tensors)
    layers = [op.name for op in graph.ops if "weight" in OPS[op.kind].roles]
    found, passed = {}, 0
    for op in graph.ops[:-1]:
        passed += op.name in layers
        if op.kind not in PLAIN:
            channels, rows, columns = (*types[op.name].shape, 1, 1)[:3]
            found[op.name] = Place(op.name, channels, rows, columns, passed / max(1, len(layers)))
    last = layers[-1] if layers else ""
    return {name: place for name, place in found.items() if name != last}


def ends(found: dict[str, Place]) -> list[Place]:
    """The last place of each map size: where a stage of the network ends."""
    order = list(found.values())
    after = [(p.rows, p.columns) for p in order[1:]] + [(0, 0)]
    return [p for p, size in zip(order, after, strict=True) if (p.rows, p.columns) != size]


def pair(student: dict[str, Place], teacher: dict[str, Place]) -> list[tuple[str, str]]:
    """Each end of a stage of the student with the teacher's of its size, or else with the one nearest in depth.

    Where one of them has no maps, their vectors are paired by depth.
    """
    mine, theirs = ends(student), ends(teacher)
    maps = [[p for p in side if p.rows * p.columns > 1] for side in (mine, theirs)]
    if all(maps):
        mine, theirs = maps
    found = []
    for place in mine if theirs else []:
        same = [p for p in theirs if (p.rows, p.columns) == (place.rows, place.columns)] or theirs
        nearest = min(same, key=lambda p: abs(p.depth - place.depth))
        found.append((place.name, nearest.name))
    return found


def units(model: nn.Module) -> dict[str, float]:
    """The real value of one unit of the intermediates of a QuantGraph, as it was calibrated; nothing of others."""
    if not isinstance(model, QuantGraph):
        return {}
    found = {INPUT: 1.0}
    for op in model.plan:
        layer = dict(model.layers).get(key(op.name))
        before = [found.get(name) for name in op.inputs]
        if isinstance(layer, QuantLayer):
            found[op.name] = 1 / layer.unit
        elif isinstance(layer, QuantLookup):
            found[op.name] = layer.out
        elif op.kind == "halve":
            found[op.name] = 2 / 255
        elif before[0] is not None and before[-1] is not None:
            ratio = 2.0 ** op.attrs["shift"] / op.attrs["multiplier"] if "multiplier" in op.attrs else 1.0
            if op.kind == "qmul":
                found[op.name] = before[0] * before[1] * ratio  # type: ignore[operator]
            elif op.kind == "qavgpool":
                found[op.name] = before[0] * ratio / prod(op.attrs["kernel"])
            elif op.kind in ("qadd", *MOVES):
                found[op.name] = before[0]
    return found


class Tapped(nn.Module):
    """A network whose forward gives its logits and, in `seen`, the intermediates called `names` of the same images.

    It shares the model's weights. Graph twins give what their ops compute, integer twins their integers times
    `units`, or over 127 where those are unknown; of other modules the traced nodes are read, which a layer in
    place may have overwritten by then.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, int, int], names: list[str]):
        super().__init__()
        self.model, self.shape, self.names = model, shape, names
        self.exact = getattr(model, "exact", False)
        self.units = units(model)
        self.seen: Values = {}
        self.traced: dict[str, fx.GraphModule] = {}  # a dict, so that it is no part of this module

    def forward(self, x: Tensor) -> Tensor:
        self.seen = {}
        if isinstance(self.model, FloatGraph):
            values = self.model.activations(x)
            self.seen = {name: values[name] for name in self.names}
            return values[self.model.graph.output]
        if isinstance(self.model, QuantGraph):
            return self._integers(self.model, x)
        if not self.traced:
            self.traced["it"] = traced(self.model, self.shape, self.names)
        logits, *found = self.traced["it"](x)
        self.seen = dict(zip(self.names, found, strict=True))
        return logits

    def _integers(self, model: QuantGraph, x: Tensor) -> Tensor:
        values = {INPUT: x}
        for op in model.plan:
            values[op.name] = model.step(op, [values[name] for name in op.inputs])
        self.seen = {name: values[name] * self.units.get(name, 1 / 127) for name in self.names}
        return values[model.plan[-1].name]


def traced(model: nn.Module, shape: tuple[int, int, int], names: list[str]) -> fx.GraphModule:
    """The model as a module, with its very layers, that returns its logits and then the intermediates `names`."""
    walk = Walk(model, shape)
    walk.go()
    nodes: dict[str, fx.Node] = {}
    for node, value in walk.values.items():
        hands_on = node.target in HANDING or (
            node.op == "call_module" and isinstance(walk.modules[str(node.target)], PASSING)
        )
        if isinstance(value, str) and not hands_on:
            nodes[value] = (
                node  # the last to stand for it: the norm, not the convolution that it is folded into
            )
    graph = next(iter(walk.values)).graph
    for node in graph.nodes:
        if node.target is F.dropout:  # traced in evaluation, run in training
            node.kwargs = {**node.kwargs, "training": True}
        if node.op == "output":
            node.args = ((node.args[0], *(nodes[name] for name in names)),)
    graph.lint()
    return fx.GraphModule(model, graph)


def known(names: list[str], found: dict[str, Place], whose: str) -> None:
    """Raise OptionError where a name is none of the places."""
    for name in names:
        if name not in found:
            raise OptionError(f"the {whose} has no layer {name!r}; it has {', '.join(found)}")


def square(x: Tensor) -> Tensor:
    """Vectors [n, C] as maps [n, C, 1, 1], in float32."""
    return x.float() if x.ndim == 4 else x.float()[:, :, None, None]


def sized_alike(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps brought to the smaller number of rows and of columns by averaging."""
    size = [min(p, q) for p, q in zip(a.shape[2:], b.shape[2:], strict=True)]
    return tuple(x if list(x.shape[2:]) == size else F.adaptive_avg_pool2d(x, size) for x in (a, b))  # type: ignore


__all__ = ["Place", "Tapped", "ends", "known", "pair", "places", "sized_alike", "square", "traced", "units"]
