"""Low-rank factorisation: a layer becomes a row of smaller ones that together do about the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.graph import Graph, Op
from netsuke.lab.forms import Mask, set_mask
from netsuke.lab.inference import tensors as torch_tensors
from netsuke.lab.lower import lower
from netsuke.lab.lowrank import Factors, Frame, Layer, Ranks, cost
from netsuke.lab.modules import FloatGraph, key
from netsuke.lab.ranks import METHODS, cheapest, shared_out, ways
from netsuke.lab.steps.train import Progress, Teacher, Training, train

COSTS = ("parameters", "macs", "bytes")

__all__ = ["Decision", "Factorise", "decide", "factorise"]


@dataclass(frozen=True)
class Factorise:
    """Options: how convolutions are factorised, and how far. Dense layers and 1x1 convolutions take an SVD.

    `method`: tucker, channel, spatial, depthwise, cp, or auto, which takes for each layer what is cheapest among
    the first three. Each layer keeps the share `energy` of its squared norm at the least `of` parameters, macs or
    bytes (of float32). With `amount`, that share of the network's cost is to go instead, or with `budget` so much
    may stay; the ranks are then shared out among the layers by the energy that each buys for its cost.
    `aware` measures energy on the outputs of `samples` training images where the method can: dense layers, 1x1
    convolutions and channel, which auto then takes. `layers` are patterns on the names of ops; left out, all.
    `training` fine-tunes what comes out, with epochs over 0.
    """

    method: str = "auto"
    energy: float = 0.9
    amount: float = 0.0
    budget: int = 0
    of: str = "parameters"
    aware: bool = False
    samples: int = 512
    layers: tuple[str, ...] = ()
    training: Training = field(default_factory=lambda: Training(epochs=0))

    def __post_init__(self) -> None:
        tables: dict[str, Iterable[str]] = {"method": ("auto", *METHODS), "of": COSTS}
        for name, known in tables.items():
            if getattr(self, name) not in known:
                raise OptionError(f"no {name} {getattr(self, name)!r}; there are {', '.join(known)}")
        if not 0 < self.energy <= 1:
            raise OptionError(f"energy must be above 0 and at most 1; got {self.energy}")
        if not 0 <= self.amount < 1:
            raise OptionError(f"amount must be in 0..1, 1 excluded; got {self.amount}")
        if self.budget < 0 or self.samples < 1:
            raise OptionError("budget must be at least 0 and samples at least 1")
        if self.amount and self.budget:
            raise OptionError("take amount or budget, not both")


@dataclass(frozen=True)
class Decision:
    """What becomes of one layer: its method and ranks, "" and () where it stays and `note` says why.

    `before` and `after` count what the options count; `kept` is the share of its energy that is left.
    """

    layer: str
    method: str
    ranks: Ranks
    before: int
    after: int
    kept: float
    note: str = ""


def factorise(
    model: nn.Module,
    data: Dataset,
    options: Factorise | None = None,
    *,
    teacher: Teacher | None = None,
    work: Path | None = None,
    history: list[dict[str, float]] | None = None,
    progress: Progress | None = None,
    report: list[Decision] | None = None,
    **changes: Any,
) -> FloatGraph:
    """A FloatGraph whose layers are factorised where that saves; `model` is untouched.

    Op names stay, those of the added layers end in _a, _b, ... Grouped and depthwise convolutions stay as they
    are. Pruned weights of the layers that stay are masked in fine-tuning; in factorised ones zeros are lost.
    `report` receives a Decision a layer. Raises OptionError where a budget cannot be met, or a pattern matches
    nothing.
    """
    chosen = replace(options or Factorise(), **changes)
    graph, weights = lower(model, data.image_shape)
    found = _chosen(graph, weights, data, chosen)
    if report is not None:
        report += [decision for decision, _ in found]
    result = FloatGraph(*_rewritten(graph, weights, found))
    if any(isinstance(module, Mask) for module in model.modules()):
        _masked(result, {decision.layer for decision, factors in found if factors})
    if not chosen.training.epochs:
        return result.eval()
    trained = train(
        result, data, chosen.training, teacher=teacher, work=work, history=history, progress=progress
    )
    assert isinstance(trained, FloatGraph)
    return trained


def _masked(model: FloatGraph, split: set[str]) -> None:
    """Keep the zeros of the layers that were not factorised."""
    for op in model.graph.ops:
        layer: Any = dict(model.layers).get(key(op.name))
        if hasattr(layer, "weight") and op.name not in split and not bool(layer.weight.all()):
            set_mask(layer, layer.weight != 0)


def decide(model: nn.Module, data: Dataset, options: Factorise) -> list[Decision]:
    """What `factorise` would do, a Decision a layer, without doing it."""
    graph, weights = lower(model, data.image_shape)
    return [decision for decision, _ in _chosen(graph, weights, data, options)]


# --- which layers, and which ranks --------------------------------------------------------------------

Chosen = list[tuple[Decision, Factors | None]]


def _chosen(graph: Graph, weights: dict[str, np.ndarray], data: Dataset, o: Factorise) -> Chosen:
    layers = _layers(graph, weights, data, o)
    found = {
        name: ways(layer, o.method, o.of, 0.0 if o.amount or o.budget else o.energy)
        for name, layer in layers.items()
        if layer.frame.groups == 1
    }
    before = {name: cost([layer.frame], layer.size, o.of) for name, layer in layers.items()}
    if o.amount or o.budget:
        total = _total(graph, weights, o.of)
        limit = o.budget or int(total * (1 - o.amount))
        taken = shared_out(found, limit, total - sum(before[name] for name in found), o.of)
    else:
        taken = {name: cheapest(choices, o.energy) for name, choices in found.items()}
    decided: Chosen = []
    for name, layer in layers.items():
        if name not in taken:
            note = f"a convolution of {layer.frame.groups} groups"
            decided.append((Decision(name, "", (), before[name], before[name], 1.0, note), None))
            continue
        way = taken[name]
        note = "" if way.factors else f"factorising it would not save {o.of}"
        decided.append(
            (Decision(name, way.method, way.ranks, before[name], way.cost, way.kept, note), way.factors)
        )
    return decided


def _layers(graph: Graph, weights: dict[str, np.ndarray], data: Dataset, o: Factorise) -> dict[str, Layer]:
    """Convolutions and dense layers by name, as far as the patterns match."""
    names = [op.name for op in graph.ops if op.kind in ("conv2d", "dense")]
    for pattern in o.layers:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise OptionError(f"{pattern!r} matches no layer; there are {', '.join(names)}")
    names = [name for name in names if not o.layers or any(fnmatchcase(name, p) for p in o.layers)]
    types = graph.types(weights)
    moments = _moments(graph, weights, data, o.samples, names) if o.aware else {}
    found = {}
    for op in graph.ops:
        if op.name in names:
            weight, bias = weights[op.tensor("weight")], weights[op.tensor("bias")]
            rows, columns = types[op.inputs[0]].shape[1:] or (1, 1)
            found[op.name] = Layer(
                weight.reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1))),
                bias,
                _frame(op, weight),
                (rows, columns),
                *moments.get(op.name, ()),
            )
    return found


def _frame(op: Op, weight: np.ndarray) -> Frame:
    if op.kind == "dense":
        return Frame((*weight.shape, 1, 1))
    a = op.attrs
    return Frame(weight.shape, tuple(a["stride"]), tuple(a["padding"]), a["groups"])


@torch.no_grad()
def _moments(
    graph: Graph, weights: dict[str, np.ndarray], data: Dataset, samples: int, names: list[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and covariance of the outputs of the layers `names`, over images and pixels."""
    data.require("train")
    images, _ = torch_tensors(data.train)
    images = images[:: max(1, len(images) // samples)][:samples]
    twin = FloatGraph(graph, weights)
    sums: dict[str, list[Tensor]] = {}
    counts: dict[str, int] = {}
    for part in images.split(64):
        values = twin.activations(part.float() / 255)
        for name in names:
            flat = values[name].transpose(0, 1).flatten(1).double()  # [channels, images and pixels]
            new = [flat.sum(1), flat @ flat.T]
            sums[name] = [a + b for a, b in zip(sums[name], new, strict=True)] if name in sums else new
            counts[name] = counts.get(name, 0) + flat.shape[1]
    found = {}
    for name, (total, square) in sums.items():
        mean = total / counts[name]
        found[name] = (mean.numpy(), (square / counts[name] - torch.outer(mean, mean)).numpy())
    return found


def _total(graph: Graph, weights: dict[str, np.ndarray], of: str) -> int:
    """What the whole network costs."""
    if of != "macs":
        return sum(array.size for array in weights.values()) * (4 if of == "bytes" else 1)
    types = graph.types(weights)
    found = [(op, weights.get(op.tensor("weight"))) for op in graph.ops]
    return sum(w.size * prod(types[op.name].shape[1:]) for op, w in found if w is not None)


# --- the new graph ------------------------------------------------------------------------------------


def _rewritten(
    graph: Graph, weights: dict[str, np.ndarray], found: Chosen
) -> tuple[Graph, dict[str, np.ndarray]]:
    chosen = {decision.layer: (decision.ranks, factors) for decision, factors in found if factors}
    taken = {op.name for op in graph.ops}
    ops: list[Op] = []
    tensors = dict(weights)
    for op in graph.ops:
        if op.name not in chosen:
            ops.append(op)
            continue
        ranks, factors = chosen[op.name]
        frames, arrays = factors.frames(ranks), factors.weights(ranks)
        x = op.inputs[0]
        for i, (frame, array) in enumerate(zip(frames, arrays, strict=True)):
            last = i == len(frames) - 1
            name = op.name if last else _free(f"{op.name}_{'abc'[i]}", taken)
            new = Op(op.kind, name, (x,), _attrs(frame) if op.kind == "conv2d" else {})
            array = array if op.kind == "conv2d" else array[:, :, 0, 0]
            bias = factors.bias(ranks) if last else np.zeros(len(array))
            tensors[new.tensor("weight")] = np.ascontiguousarray(array, np.float32)
            tensors[new.tensor("bias")] = np.ascontiguousarray(bias, np.float32)
            ops.append(new)
            taken.add(name)
            x = name
    return Graph(graph.input_shape, tuple(ops)), tensors


def _attrs(frame: Frame) -> dict[str, Any]:
    return {"stride": list(frame.stride), "padding": list(frame.padding), "groups": frame.groups}


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
