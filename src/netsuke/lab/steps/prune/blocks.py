"""Whole layers that can go: the branches of residual sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.graph import Graph, Op, Tensors
from netsuke.lab.channels import LAYERS
from netsuke.lab.modules import FloatGraph
from netsuke.lab.objective import objective
from netsuke.lab.steps.prune.importance import batches
from netsuke.settings import unknown


@dataclass(frozen=True)
class Branch:
    """A sum of two maps that becomes its `shortcut` when `branch`, made by the layers in `body`, goes."""

    sum: str
    shortcut: str
    branch: str
    body: tuple[Op, ...]


def branches(graph: Graph, tensors: Tensors) -> list[Branch]:
    """The branches that can go, first to last: nothing but their sum reads what they make.

    Where both sides of a sum could go, as behind a shortcut that is a convolution itself, the larger one is meant.
    """
    types, found = graph.types(tensors), []
    for op in graph.ops[:-1]:
        if op.kind != "add" or len(types[op.name].shape) != 3 or op.inputs[0] == op.inputs[1]:
            continue
        sides = [_branch(graph, op, *pair) for pair in (op.inputs, op.inputs[::-1])]
        able = [side for side in sides if side]
        if able:
            found.append(max(able, key=lambda side: sum(tensors[o.tensor("weight")].size for o in side.body)))
    return found


def without(graph: Graph, tensors: Tensors, branch: Branch) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph with the sum replaced by its shortcut, and what only the branch needed left out."""
    ops = []
    for op in graph.ops:
        inputs = tuple(branch.shortcut if name == branch.sum else name for name in op.inputs)
        if op.name != branch.sum:
            ops.append(Op(op.kind, op.name, inputs, op.attrs))
    needed = _needed(ops, graph.output)
    smaller = Graph(graph.input_shape, tuple(op for op in ops if op.name in needed))
    return smaller, {name: tensors[name] for name in smaller.roles()}


def _branch(graph: Graph, op: Op, shortcut: str, branch: str) -> Branch | None:
    rest = [
        Op(o.kind, o.name, tuple(shortcut if name == op.name else name for name in o.inputs), o.attrs)
        for o in graph.ops
        if o.name != op.name
    ]
    needed = _needed(rest, graph.output)
    body = tuple(o for o in graph.ops if o.name not in needed and o.name != op.name and o.kind in LAYERS)
    return Branch(op.name, shortcut, branch, body) if body and branch not in needed else None


def _needed(ops: list[Op], output: str) -> set[str]:
    needed = {output}
    for op in reversed(ops):
        if op.name in needed:
            needed.update(op.inputs)
    return needed


# --- scores -----------------------------------------------------------------------------------------

Found = list[Branch]


def _taylor(model: FloatGraph, data: Dataset, found: Found, seed: int) -> list[float]:
    """The mean over images of (activation x gradient)^2 of what a branch adds."""
    total = torch.zeros(len(found), dtype=torch.float64)
    for x, y in batches(data):
        values = model.activations(x)
        made = [values[branch.branch] for branch in found]
        loss = objective(data).loss(values[model.graph.output], y, reduction="sum")
        for i, gradient in enumerate(torch.autograd.grad(loss, made)):
            total[i] += (gradient * made[i].detach()).flatten(1).sum(1).double().square().sum()
    return total.tolist()


@torch.no_grad()
def _activation(model: FloatGraph, data: Dataset, found: Found, seed: int) -> list[float]:
    """The mean size of what a branch adds, relative to its shortcut."""
    sizes = torch.zeros(len(found), 2, dtype=torch.float64)
    for x, _ in batches(data):
        values = model.activations(x)
        for row, branch in zip(sizes, found, strict=True):
            row += torch.stack(
                [values[name].abs().double().sum() for name in (branch.branch, branch.shortcut)]
            )
    return (sizes[:, 0] / sizes[:, 1].clamp(min=1e-12)).tolist()


@torch.no_grad()
def _loss(model: FloatGraph, data: Dataset, found: Found, seed: int) -> list[float]:
    """The loss without the branch."""
    graph, tensors = model.to_graph()
    aim, losses = objective(data), []
    for branch in found:
        trial = FloatGraph(*without(graph, tensors, branch))
        parts = [aim.loss(trial(x), y, reduction="sum").item() for x, y in batches(data)]
        losses.append(sum(parts))
    return losses


def _norm(of: Callable[[Tensor], Tensor]) -> Callable[[FloatGraph, Dataset, Found, int], list[float]]:
    def score(model: FloatGraph, data: Dataset, found: Found, seed: int) -> list[float]:
        _, tensors = model.to_graph()
        each = [
            [of(torch.from_numpy(tensors[op.tensor("weight")])).item() for op in branch.body]
            for branch in found
        ]
        return [sum(values) / len(values) for values in each]

    return score


def _random(model: FloatGraph, data: Dataset, found: Found, seed: int) -> list[float]:
    return np.random.default_rng(seed).random(len(found)).tolist()


IMPORTANCE: dict[str, Callable[[FloatGraph, Dataset, Found, int], list[float]]] = {
    "taylor": _taylor,
    "loss": _loss,
    "activation": _activation,
    "l1": _norm(lambda w: w.abs().mean()),
    "l2": _norm(lambda w: w.square().mean()),
    "random": _random,
}


def drop(model: FloatGraph, data: Dataset, count: int, importance: str, seed: int) -> FloatGraph:
    """Without `count` branches; see `structured.drop_layers`."""
    if importance not in IMPORTANCE:
        raise OptionError(unknown(importance, IMPORTANCE, "importance of layers"))
    graph, tensors = model.to_graph()
    found = branches(graph, tensors)
    if count > 0 and not found:
        raise OptionError("no layer can go: the network has no residual sum; structure 'channels' prunes it")
    order: list[str] = []
    for _ in range(count):
        found = branches(graph, tensors)
        if importance == "loss" or not order:  # the others are ranked once
            price = IMPORTANCE[importance](FloatGraph(graph, tensors), data, found, seed)
            order = [found[i].sum for i in np.argsort(price, kind="stable")]
        left = {branch.sum: branch for branch in found}
        name = next((name for name in order if name in left), None)
        if name is None:  # the last sums went together with another's branch
            break
        graph, tensors = without(graph, tensors, left[name])
    return FloatGraph(graph, tensors)
