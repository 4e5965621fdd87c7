"""Which channels of a float graph stand or fall together: what structured pruning may remove.

Convolutions and dense layers make channels; every other op hands them on, moves them or joins them. So each output
of an op carries, channel by channel, the number of the *unit* it belongs to: moves (concat, slice, shuffle, flatten)
permute these numbers, and joints make two units one, since a sum of channels needs both. A depthwise convolution
joins its output to its input. Removing a unit removes all its channels in all outputs.

Some ops also count. The groups of a grouped convolution must stay equal in size, and a shuffle must bring to each
later slice or group the channels that were there before. Both are equations between numbers of kept channels:

- a *cut* is a place in a channel order that a later slice, group or shuffle relies on; cuts are handed back from the
  readers to the ops before, through a shuffle to the same rank in each of its groups (sums rely on every place);
- a shuffle of g groups keeps the channels on their sides of the cuts if between two cuts each group loses as many,
  because the smaller shuffle again deals them out rank by rank. A rank that a cut divides goes as a whole or stays.
  What lies between two cuts may change its order: whoever reads it is rewritten for the new order.

An equation between two units only makes them one. The others are `Balance`s, which `lab.steps.prune.selection` keeps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from netsuke.graph import INPUT, Graph, Op, Tensors, Type

LAYERS = ("conv2d", "dense")
Equation = dict[int, int]  # units, and how often each is counted where it stays: the sum is 0


@dataclass(frozen=True, eq=False)
class Group:
    """Layers that share units or balances: they are pruned together."""

    layers: tuple[str, ...]
    units: np.ndarray  # those that may go


@dataclass(frozen=True, eq=False)
class Balance:
    """Units of which only certain combinations may go: `equations @ kept` is 0 and stays so.

    `equations` is int [equations, units]; fixed units are among them.
    """

    units: np.ndarray
    equations: np.ndarray


def depthwise(op: Op, channels: int) -> bool:
    """Whether each group of a convolution has one input, of `channels` in all."""
    return op.kind == "conv2d" and op.attrs["groups"] == channels > 1


class Channels:
    """The units of a float graph.

    `at` maps the name of an output to int [channels], the unit of each; `uses` int [outputs, units] counts them, in
    the order of `graph.ops`; `rows` int [units] counts the output channels of layers that a unit stands for, and
    `fixed` bool [units] says which hold image channels or logits and stay.
    """

    def __init__(self, graph: Graph, tensors: Tensors):
        self.graph, self.tensors = graph, tensors
        self.types = graph.types(tensors)
        coupling = _Coupling(graph, self.types)
        equations = coupling.settle()
        names = list(coupling.at)
        roots = [coupling.roots(coupling.at[name]) for name in names]
        kept, inverse = np.unique(np.concatenate(roots), return_inverse=True)
        ends = np.cumsum([len(part) for part in roots])[:-1]
        self.at: dict[str, np.ndarray] = dict(zip(names, np.split(inverse, ends), strict=True))
        self.count = len(kept)
        self.index = {op.name: i for i, op in enumerate(graph.ops)}
        self.uses = np.stack([np.bincount(self.at[op.name], minlength=self.count) for op in graph.ops])
        self.layers = [op for op in graph.ops if op.kind in LAYERS]
        self.rows = self.uses[[self.index[op.name] for op in self.layers]].sum(0)
        self.fixed = np.zeros(self.count, bool)
        self.fixed[[*self.at[INPUT], *self.at[graph.output]]] = True
        self.fixed |= self.rows == 0  # a mean or peak over channels, which is no layer's to give up
        number = {int(root): i for i, root in enumerate(kept)}
        self.balances = self._balances([{number[u]: c for u, c in terms.items()} for terms in equations])
        self.groups = self._groups()

    def members(self, unit: int) -> list[tuple[str, int, np.ndarray]]:
        """What removing a unit cuts out of the weights: (tensor, axis, indices along that axis).

        The inputs of a grouped convolution are counted within their group.
        """
        found = []
        for op in self.layers:
            out = np.flatnonzero(self.at[op.name] == unit)
            arriving = np.flatnonzero(self.at[op.inputs[0]] == unit)
            width = self.tensors[op.tensor("weight")].shape[1]
            if len(out):
                found += [(op.tensor("weight"), 0, out), (op.tensor("bias"), 0, out)]
            if len(arriving) and not depthwise(op, len(self.at[op.inputs[0]])):
                found.append((op.tensor("weight"), 1, np.unique(arriving % width)))
        for op in self.graph.ops:
            if op.kind == "prelu" and unit in self.at[op.name]:
                found.append((op.tensor("slope"), 0, np.flatnonzero(self.at[op.name] == unit)))
        return found

    def _balances(self, equations: list[Equation]) -> list[Balance]:
        joined = _Sets(self.count)
        for terms in equations:
            joined.join(terms)
        parts: dict[int, list[dict[int, int]]] = {}
        for terms in equations:
            parts.setdefault(joined.find(next(iter(terms))), []).append(terms)
        found = []
        for root, members in parts.items():
            units = np.array([u for u in range(self.count) if joined.find(u) == root])
            place = {int(u): i for i, u in enumerate(units)}
            table = np.zeros((len(members), len(units)), int)
            for row, terms in zip(table, members, strict=True):
                row[[place[u] for u in terms]] = list(terms.values())
            found.append(Balance(units, table))
        return found

    def _groups(self) -> list[Group]:
        joined = _Sets(self.count)
        for op in self.layers:
            joined.join([u for u in self.at[op.name] if not self.fixed[u]])
        for balance in self.balances:
            joined.join([u for u in balance.units if not self.fixed[u]])
        found: dict[int, list[int]] = {}
        for unit in np.flatnonzero(~self.fixed).tolist():
            found.setdefault(joined.find(unit), []).append(unit)
        return [
            Group(
                tuple(op.name for op in self.layers if np.isin(self.at[op.name], units).any()),
                np.array(units),
            )
            for units in found.values()
        ]


def groups(graph: Graph, tensors: Tensors) -> list[Group]:
    """The groups of layers whose channels are pruned together, first to last."""
    return Channels(graph, tensors).groups


class _Sets:
    """Disjoint sets of whole numbers, joined as one goes (Tarjan, 1975)."""

    def __init__(self, count: int):
        self.parent = list(range(count))

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, members: Iterable[int]) -> None:
        roots = [self.find(int(i)) for i in members]
        for root in roots[1:]:
            self.parent[self.find(root)] = self.find(roots[0])


class _Coupling(_Sets):
    """Numbers the channels of every output, joins what must stand together, notes what must be equal."""

    def __init__(self, graph: Graph, types: dict[str, Type]):
        super().__init__(0)
        self.types = types
        self.at = {INPUT: self.fresh(graph.input_shape[0])}
        self.equal: list[tuple[np.ndarray, np.ndarray]] = []
        self.cuts = _cuts(graph, types)
        for op in graph.ops:
            self.at[op.name] = self.channels(op)

    def fresh(self, count: int) -> np.ndarray:
        first = len(self.parent)
        self.parent += range(first, first + count)
        return np.arange(first, first + count)

    def roots(self, units: np.ndarray) -> np.ndarray:
        return np.array([self.find(int(u)) for u in units])

    def pair(self, a: np.ndarray, b: np.ndarray) -> None:
        for both in zip(a, b, strict=True):
            self.join(both)

    def balance(self, parts: Sequence[np.ndarray]) -> None:
        """Each part keeps as many channels as the first."""
        self.equal += [(part, parts[0]) for part in parts[1:]]

    def channels(self, op: Op) -> np.ndarray:
        x, shape = self.at[op.inputs[0]], self.types[op.name].shape
        if op.kind == "conv2d":
            return self.convolved(op, x, shape[0])
        if op.kind in ("dense", "channelmean", "channelmax"):
            return self.fresh(shape[0])
        if op.kind == "flatten":
            return np.repeat(x, shape[0] // len(x))
        if op.kind == "concat":
            return np.concatenate([self.at[name] for name in op.inputs])
        if op.kind == "slice":
            return x[op.attrs["start"] : op.attrs["stop"]]
        if op.kind == "shuffle":
            return self.shuffled(op, x)
        if coupled(op, self.types):
            self.pair(x, self.at[op.inputs[1]])
        return x

    def convolved(self, op: Op, x: np.ndarray, count: int) -> np.ndarray:
        out, parts = self.fresh(count), op.attrs["groups"]
        if depthwise(op, len(x)):
            self.pair(np.repeat(x, count // len(x)), out)
        elif parts > 1:
            self.balance(np.split(x, parts))
            self.balance(np.split(out, parts))
        return out

    def shuffled(self, op: Op, x: np.ndarray) -> np.ndarray:
        parts = x.reshape(op.attrs["groups"], -1)
        ranks = {side for cut in self.cuts[op.name] for side in _ranks(cut, len(parts))}
        for low, high in pairwise(sorted(ranks | {0, parts.shape[1]})):
            self.balance([part[low:high] for part in parts])
        return parts.T.reshape(-1)

    def settle(self) -> list[Equation]:
        """The equations that are left once those between two units have made them one."""
        left: list[Equation] = []
        changed = True
        while changed:
            changed = False
            left = []
            for a, b in self.equal:
                terms = Counter(self.roots(a).tolist())
                terms.subtract(self.roots(b).tolist())
                terms = Counter({unit: count for unit, count in terms.items() if count})
                if len(terms) == 2 and not sum(terms.values()):
                    self.join(terms)
                    changed = True
                elif terms:
                    left.append(dict(terms))
        return left


def coupled(op: Op, types: dict[str, Type]) -> bool:
    """Whether an op of two inputs joins them channel by channel; a gate of pixels does not."""
    if op.kind not in ("add", "mul"):
        return False
    return types[op.inputs[0]].shape[0] == types[op.inputs[1]].shape[0]


def _ranks(place: int, groups: int) -> set[int]:
    """The ranks that a shuffle of so many groups begins and ends around a place in its output."""
    return {place // groups, -(-place // groups)}


def _cuts(graph: Graph, types: dict[str, Type]) -> dict[str, set[int]]:
    """For every output the places in its order that something behind it relies on.

    Only a shuffle changes the order of what is kept, so without one there are none.
    """
    cuts: dict[str, set[int]] = {name: set() for name in types}
    if not any(op.kind == "shuffle" for op in graph.ops):
        return cuts
    for op in reversed(graph.ops):
        offset = 0
        for name in op.inputs:
            size = types[name].shape[0]
            cuts[name] |= _handed(op, name, cuts[op.name], size, offset, types)
            offset += size
    return cuts


def _handed(op: Op, name: str, cuts: set[int], size: int, offset: int, types: dict[str, Type]) -> set[int]:
    """The cuts that an op asks of an input of so many channels, which start at `offset` in a concat."""
    if op.kind in ("dense", "channelmean", "channelmax"):
        return set()
    if coupled(op, types):
        return set(range(size + 1))
    if op.kind == "mul":
        return cuts if name == op.inputs[0] else set()
    if op.kind == "concat":
        return {cut - offset for cut in cuts if offset <= cut <= offset + size}
    if op.kind == "slice":
        start = op.attrs["start"]
        return {cut + start for cut in cuts} | {start, op.attrs["stop"]}
    if op.kind == "shuffle":
        count = op.attrs["groups"]
        each = size // count
        ranks = {side for cut in cuts | {0, size} for side in _ranks(cut, count)}
        return {g * each + rank for g in range(count) for rank in ranks}
    if op.kind == "conv2d" and not depthwise(op, size):
        return set(range(0, size, size // op.attrs["groups"])) if op.attrs["groups"] > 1 else set()
    each = max(1, types[op.name].shape[0] // size)  # values of a flattened map, outputs of a depthwise group
    return {cut // each for cut in cuts} | {-(-cut // each) for cut in cuts}
