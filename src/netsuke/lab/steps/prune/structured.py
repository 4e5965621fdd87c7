"""Structured pruning: channels and whole layers really go, and the graph gets smaller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import numpy as np
from torch import Tensor

from netsuke.data import Dataset
from netsuke.errors import OptionError, UnsupportedLayer
from netsuke.graph import Graph
from netsuke.lab.channels import Channels, Group
from netsuke.lab.forms import Codebook, form_of
from netsuke.lab.modules import FloatGraph
from netsuke.lab.normed import restored, statistics
from netsuke.lab.removal import masked_like, remove, survivors
from netsuke.lab.steps.prune.blocks import branches, drop
from netsuke.lab.steps.prune.greedy import TARGETS, Selection, figure, savings
from netsuke.lab.steps.prune.importance import Case, arriving_means, norms, readers, scores
from netsuke.settings import unknown

__all__ = ["cut", "drop_layers", "norms"]

SCOPES = ("global", "layer")


def cut(
    model: FloatGraph,
    data: Dataset,
    *,
    amount: float,
    target: str = "channels",
    importance: str = "taylor",
    scope: str = "global",
    ratios: Mapping[str, float] | None = None,
    seed: int = 0,
    norms: Mapping[str, Tensor] | None = None,
    compensate: bool = True,
    bits: int = 32,
    by_cost: bool = False,
    multiple: int = 1,
    of: FloatGraph | None = None,
) -> FloatGraph:
    """A network without its least important channels; `model` is untouched.

    `amount` is the share removed of the `target`, which falls short of it by less than the last unit of channels:
    "channels", "parameters", "macs" or "bytes" (weights at `bits`, the rest at 32). `scope` "global" ranks over the
    whole network, "layer" takes the same share of each group of coupled layers. `ratios` maps patterns of layer names
    to shares of their own channels, 0 to leave them alone; the last that matches counts, and `amount` of the channels
    of the others goes. `importance` is one of taylor, l1, l2, bn, activation, median, random; bn takes the scales
    from `norms` of this module. With `by_cost` importance counts per saving in the target.

    `multiple` leaves each layer a number of channels that is a multiple of it, or all it had; a layer of fewer stays
    as it is. Channels then go in blocks, and the target may be passed by up to one. Where `model` is what earlier
    cuts left `of` a network, the amounts are shares of that one.

    With `compensate` what stays gives on average what it gave: each convolution's rows and biases are scaled so that
    its maps have the means and deviations of before, from the first layer to the last, and for layers without a
    deviation to keep the mean of a removed channel is added to the biases of its readers.
    Raises OptionError where the amount cannot be reached, UnsupportedLayer for layers with shared values.
    """
    _check(amount, target, scope, ratios or {})
    if multiple < 1:
        raise OptionError(f"multiple must be at least 1, such as 8; got {multiple}")
    graph, tensors = _plain(model)
    channels = Channels(graph, tensors)
    folded = FloatGraph(graph, tensors)  # norms of the network's own count, as in what is left of it
    price = scores(Case(channels, folded, data, seed, norms), importance)
    price = ranked(channels, price) if scope == "layer" else evened(channels, price)
    weight = savings(channels, target, bits) if by_cost else None
    selection = Selection(channels, price, weight, multiple)
    whole = Channels(*_plain(of)) if of else channels
    start = figure(whole, target, bits)(whole.uses.sum(1))
    cost = figure(channels, target, bits)
    _take(selection, amount, lambda kept: cost(kept) / start, target, ratios or {}, whole)
    gone = np.flatnonzero(selection.gone)
    if not compensate or not len(gone):
        return masked_like(FloatGraph(*remove(graph, tensors, gone, channels)), model)
    channels.tensors = compensated(channels, selection.gone, arriving_means(channels, folded, data))
    smaller = masked_like(FloatGraph(*remove(graph, channels.tensors, gone, channels)), model)
    left = survivors(channels, gone)
    wanted = {name: (m[left[name]], d[left[name]]) for name, (m, d) in statistics(folded, data).items()}
    return restored(smaller, wanted, data)


def drop_layers(
    model: FloatGraph,
    data: Dataset,
    *,
    amount: float,
    importance: str = "taylor",
    seed: int = 0,
    compensate: bool = True,
    of: int | None = None,
) -> FloatGraph:
    """A network without the least important residual branches: x + f(x) becomes x. `model` is untouched.

    `amount` is the share of such branches, at least one; with `of`, of so many, those counted that went before.
    `importance` is taylor, loss (what the loss is without the branch, measured anew after each), activation (of the
    branch relative to its shortcut), l1, l2 or random. `compensate` is that of `cut`.
    Raises OptionError where the network has no such branch.
    """
    _check(amount, "channels", "global", {})
    there = len(branches(*_plain(model)))
    total = there if of is None else of
    goal = max(1, round(amount * total)) if amount else 0
    count = goal - (total - there)
    smaller = masked_like(drop(model, data, count, importance, seed), model)
    if not compensate or count <= 0:
        return smaller
    return restored(smaller, statistics(FloatGraph(*_plain(model)), data), data)


def evened(channels: Channels, price: np.ndarray) -> np.ndarray:
    """Importance in units of the mean channel of its group: what a layer's size and place make of it says nothing."""
    even = np.zeros(channels.count)
    for group in channels.groups:
        rows = np.maximum(channels.rows[group.units], 1)
        even[group.units] = price[group.units] * rows.sum() / max(float(price[group.units].sum()), 1e-30)
    return even


def ranked(channels: Channels, price: np.ndarray) -> np.ndarray:
    """Each unit's place in its own group, as a share of the group, times its channels."""
    places = np.zeros(channels.count)
    for group in channels.groups:
        rows = np.maximum(channels.rows[group.units], 1)
        order = np.argsort(price[group.units] / rows, kind="stable")
        places[group.units[order]] = np.cumsum(rows[order]) / rows.sum()
    return places * np.maximum(channels.rows, 1)


def compensated(
    channels: Channels, gone: np.ndarray, means: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The weights with what the channels that go give on average moved into the biases of their readers."""
    tensors = dict(channels.tensors)
    for op in readers(channels):
        lost = np.where(gone[channels.at[op.inputs[0]]], means[op.name], 0.0)
        weight = channels.tensors[op.tensor("weight")].astype(np.float64)
        columns = weight.reshape(*weight.shape[:2], -1).sum(2)
        parts = lost.reshape(op.attrs.get("groups", 1), -1)  # the inputs that each group of outputs reads
        rows = np.repeat(parts, len(weight) // len(parts), 0)
        bias = channels.tensors[op.tensor("bias")]
        tensors[op.tensor("bias")] = (bias + (columns * rows).sum(1)).astype(np.float32)
    return tensors


def _check(amount: float, target: str, scope: str, ratios: Mapping[str, float]) -> None:
    for name, share in {"amount": amount, **ratios}.items():
        if not 0 <= share < 1:
            raise OptionError(f"{name} is the share removed, in 0..1, 1 excluded; got {share}")
    if target not in TARGETS:
        raise OptionError(unknown(target, TARGETS, "target"))
    if scope not in SCOPES:
        raise OptionError(unknown(scope, SCOPES, "scope"))


def _take(
    selection: Selection,
    amount: float,
    cost: Callable[[np.ndarray], float],
    target: str,
    ratios: Mapping[str, float],
    whole: Channels,
) -> None:
    """The groups with a share of their own first, then the others until the target holds.

    `cost` is the share of the target that is left by the numbers of kept channels; shares are of the `whole`.
    """
    channels = selection.channels
    own = _own(channels, ratios)
    for index, share in own.items():
        group = channels.groups[index]
        selection.take(
            group.units,
            lambda kept, g=group, s=share: _share(selection, [g], whole) <= 1 - s + 1e-9,  # type: ignore
        )
    others = [group for index, group in enumerate(channels.groups) if index not in own]
    if not others or not amount:
        return
    left = (lambda kept: _share(selection, others, whole)) if target == "channels" else cost
    units = np.concatenate([group.units for group in others])
    # Importance to first order says little once most of a layer is gone: without this the widest one ends as a
    # bottleneck of a channel, which no training mends. Where the target asks for more, more goes.
    for share in ((1 - amount) ** 2, 0.0):
        selection.floor = _floor(channels, whole, share)
        selection.take(units, lambda kept: left(kept) <= 1 - amount + 1e-9)
    least = left(selection.kept)
    if least > 1 - amount + 1e-9:
        raise OptionError(
            f"amount {amount:g} of the {target} cannot go: {1 - least:.3g} is the most here, "
            "for every layer keeps a channel, and grouped convolutions and shuffles their balance"
            + (f"; multiple {selection.multiple} keeps blocks whole" if selection.multiple > 1 else "")
        )


def _floor(channels: Channels, whole: Channels, share: float) -> np.ndarray:
    """A share of the channels that each output had in the whole network, at least one; int [outputs]."""
    names = [op.name for op in channels.graph.ops]
    counts = np.array([whole.uses[whole.index[name]].sum() if name in whole.index else 1 for name in names])
    return np.maximum(1, np.ceil(counts * share - 1e-9)).astype(int)


def _share(selection: Selection, groups: list[Group], whole: Channels) -> float:
    """The share of the channels of these groups, as they were in the whole, that is left."""
    units = np.concatenate([group.units for group in groups])
    left = selection.channels.rows[units][~selection.gone[units]].sum()
    names = [name for group in groups for name in group.layers]
    return float(left / max(1, sum((~whole.fixed[whole.at[name]]).sum() for name in names)))


def _own(channels: Channels, ratios: Mapping[str, float]) -> dict[int, float]:
    """The number of each group with a layer that a pattern matches, and its share."""
    found: dict[int, float] = {}
    for pattern, share in ratios.items():
        if not any(fnmatchcase(op.name, pattern) for op in channels.layers):
            raise OptionError(unknown(pattern, [op.name for op in channels.layers], "layer"))
        found |= {i: share for i, group in enumerate(channels.groups) if _matches(group, pattern)}
    return found


def _matches(group: Group, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in group.layers)


def _plain(model: FloatGraph) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph and the values its weights stand for."""
    for name, layer in model.layers.items():
        if form_of(layer, Codebook):
            raise UnsupportedLayer(f"{name} shares its values; prune before they are shared")
    return model.to_graph()
