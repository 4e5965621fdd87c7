"""Widths of weights that differ from layer to layer: what each costs, and the best within a byte budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netsuke import packing
from netsuke.data import Dataset, Split
from netsuke.errors import OptionError
from netsuke.graph import Graph, Op
from netsuke.lab.inference import accuracy, tensors
from netsuke.lab.integers import Widths, in_steps, shares, steps
from netsuke.lab.lower import lower
from netsuke.lab.modules import FloatGraph
from netsuke.lab.objective import objective
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.quantizer import LAYERS, quantized
from netsuke.lab.quantlayers import is_pruned

WIDTHS = tuple(range(1, 9))
SAMPLE = 1000
FALL = 0.02  # of accuracy, from which on `blame` speaks

Arrays = dict[str, np.ndarray]
Change = Callable[[Op, Tensor, int], Tensor]  # a layer's weight as it is at a width


@dataclass(frozen=True)
class LayerLosses:
    """What changes when one layer alone takes a width: [layer][bits], means over `n` images.

    `base` is the float network's cross entropy and `increase` how much it grows, which on few images is partly luck;
    `divergence` is the Kullback-Leibler divergence of the answers from the float network's, which has no luck in it.
    """

    base: float
    increase: dict[str, dict[int, float]]
    divergence: dict[str, dict[int, float]]
    n: int


def sample(data: Dataset, count: int = SAMPLE) -> Split:
    """Images to judge widths on: of the validation split, or of the training split where there is none."""
    split = data.val if len(data.val) else data.require("train").train
    return split.take(np.linspace(0, len(split) - 1, min(count, len(split))).astype(int))


def rounded_weight(weight: Tensor, bits: int, channels: int) -> Tensor:
    """What the integers of `bits` bits that post-training quantisation gives stand for."""
    step = steps(weight, bits, shares(weight, bits, channels, True))
    return in_steps(weight, bits, step) * step.reshape(-1, *[1] * (weight.ndim - 1))


@torch.no_grad()
def layer_losses(
    model: nn.Module,
    data: Dataset,
    widths: Sequence[int] = WIDTHS,
    *,
    layers: Mapping[str, Sequence[int]] | None = None,
    change: Change | None = None,
    count: int = SAMPLE,
) -> LayerLosses:
    """How sensitive each convolution and dense layer is: loss on `count` validation images, never test images.

    Activations stay float, so that only the weights are judged. `layers` asks for other widths of some layers.
    `change` says what a width does to a weight; the default rounds it as `quantize` does.
    """
    graph, weights = lower(model, data.image_shape)
    twin = FloatGraph(graph, weights)
    asked = {op.name: tuple((layers or {}).get(op.name, widths)) for op in graph.ops if op.kind in LAYERS}

    def rounds(op: Op, weight: Tensor, bits: int) -> Tensor:
        return rounded_weight(weight, bits, 1 if op.name == graph.output else len(weight))

    changed: dict[str, dict[int, Tensor]] = {}
    for op in graph.ops:
        if op.name in asked:
            real = torch.from_numpy(weights[op.tensor("weight")])
            changed[op.name] = {bits: (change or rounds)(op, real, bits) for bits in asked[op.name]}
    images, labels = tensors(sample(data, count))
    shown = objective(data).shown
    increase: dict[str, dict[int, float]] = {name: dict.fromkeys(those, 0.0) for name, those in asked.items()}
    divergence = {name: dict(row) for name, row in increase.items()}
    batch = max(1, min(200, (1 << 26) // sum(t.elements for t in graph.types(weights).values())))
    base, n = 0.0, len(images)
    for i in range(0, n, batch):
        values = twin.activations(images[i : i + batch].float() / 255)
        answer, label = F.log_softmax(shown(values[graph.output]), 1), labels[i : i + batch]
        loss = F.nll_loss(answer, label, reduction="sum").item()
        base += loss / n
        for name, variants in changed.items():
            for bits, weight in variants.items():
                out = F.log_softmax(shown(twin.again(values, {f"{name}.weight": weight})), 1)
                increase[name][bits] += (F.nll_loss(out, label, reduction="sum").item() - loss) / n
                divergence[name][bits] += F.kl_div(out, answer, reduction="sum", log_target=True).item() / n
    return LayerLosses(base, increase, divergence, n)


def layer_bytes(
    graph: Graph, weights: Arrays, images: Tensor, widths: Widths, candidates: Sequence[int], worst: bool
) -> tuple[dict[str, dict[int, int]], int]:
    """Stored bytes of each layer at each width, and of all else; `images` [n, C, H, W] in 0..1 calibrate.

    With `worst`, biases count at the width they may reach in training.
    """
    found: dict[str, dict[int, int]] = {op.name: {} for op in graph.ops if op.kind in LAYERS}
    others = 0
    for bits in candidates:
        uniform = replace(widths, bits=bits, layers={}, keep_zeros=False)
        integer, arrays = quantized(graph, weights, images, uniform).to_graph()
        roles, others = integer.roles(), 0
        for row in packing.stored(integer, arrays):
            name, role = roles[row.tensor]
            size = row.size_bytes
            if worst and role == "bias":
                size = max(size, row.count * widths.bias_bits // 8 + (widths.bias_bits == 8))
            if name in found:
                found[name][bits] = found[name].get(bits, 0) + size
            else:
                others += size
    return found, others


def within(
    graph: Graph,
    weights: Arrays,
    data: Dataset,
    max_bytes: int,
    widths: Widths,
    build: Callable[[Widths], QuantGraph],
    images: Tensor,
    *,
    trains: bool = False,
) -> QuantGraph:
    """What `build` makes of the widths that lose least in at most `max_bytes`.

    A layer takes 1 to `widths.bits` bits, or what `widths.layers` says. Sizes are counted on the calibration
    `images`, then checked on the result, whose biases may have moved by a byte; with `trains`, biases count at
    their full width, so that training cannot break the budget.
    """
    candidates = {op.name: _candidates(op, weights, widths) for op in graph.ops if op.kind in LAYERS}
    every = sorted({bits for those in candidates.values() for bits in those})
    sizes, others = layer_bytes(graph, weights, images, widths, every, trains)
    losses = layer_losses(FloatGraph(graph, weights), data, layers=candidates).divergence
    options = {
        name: {bits: (sizes[name][bits], losses[name][bits]) for bits in those}
        for name, those in candidates.items()
    }
    budget = max_bytes - others
    while True:
        chosen = cheapest(options, budget, others)
        twin = build(replace(widths, layers={escape(name): bits for name, bits in chosen.items()}))
        excess = packing.size_bytes(*twin.to_graph()) - max_bytes
        if excess <= 0:
            return twin
        budget -= excess


def _candidates(op: Op, weights: Arrays, widths: Widths) -> tuple[int, ...]:
    """Widths that a layer may take: a pruned one needs a zero, which one bit has not."""
    if own := widths.own(op.name):
        return (own,)
    pruned = widths.keep_zeros and is_pruned(torch.from_numpy(weights[op.tensor("weight")]))
    return tuple(range(2 if pruned else 1, widths.bits + 1))


def cheapest(
    options: Mapping[str, Mapping[int, tuple[int, float]]], budget: int, others: int = 0
) -> dict[str, int]:
    """The width of each layer, of those in `options` with their (bytes, loss), with the least sum of losses.

    Exact: a dynamic programme over the layers keeps every partial choice that no other beats in both bytes and
    loss. Raises OptionError where even the smallest widths take more than `budget` bytes.
    """
    least = [min(size for size, _ in those.values()) for those in options.values()]
    if sum(least) > budget:
        raise OptionError(
            f"max_bytes must be at least {sum(least) + others} for this network; got {budget + others}"
        )
    total, loss, back = np.zeros(1, np.int64), np.zeros(1), []
    for i, those in enumerate(options.values()):
        rows = np.array(list(those.values()), np.float64)
        size = (total[:, None] + rows[:, 0].astype(np.int64)).reshape(-1)
        now = (loss[:, None] + rows[:, 1]).reshape(-1)
        order = np.lexsort((now, size))
        order = order[size[order] <= budget - sum(least[i + 1 :])]
        before = np.minimum.accumulate(np.concatenate([[np.inf], now[order]]))[:-1]
        order = order[now[order] < before]
        total, loss = size[order], now[order]
        back.append((order // len(rows), order % len(rows)))
    chosen, at = {}, len(total) - 1
    for name, (parents, picks) in zip(reversed(list(options)), reversed(back), strict=True):
        chosen[name] = list(options[name])[picks[at]]
        at = parents[at]
    return {name: chosen[name] for name in options}


def blame(
    model: nn.Module, twin: nn.Module, data: Dataset, *, fall: float = FALL, count: int = SAMPLE
) -> str:
    """One line that names the layers to which a quantised `twin` of `model` owes its loss; "" if it lost little.

    It speaks where accuracy on `count` validation images fell by more than `fall`.
    """
    split = sample(data, count)
    (before, loss), (after, rounded) = accuracy(model, split), accuracy(twin, split)
    if before - after <= fall:
        return ""
    bits = {op.name: (op.attrs["bits"],) for op in lower(twin, data.image_shape)[0].ops if "bits" in op.attrs}
    losses = layer_losses(model, data, layers=bits, count=count).increase
    alone = {name: (row[bits[name][0]], bits[name][0]) for name, row in losses.items()}
    text = f"accuracy fell from {before:.1%} to {after:.1%} on {len(split)} images of validation"
    if sum(max(0.0, grown) for grown, _ in alone.values()) < 0.5 * (rounded - loss):
        return f"{text}, less by any one layer's weights than by activations: calibrate otherwise, or train"
    worst = sorted(alone.items(), key=lambda item: -item[1][0])[:3]
    named = ", ".join(f"{name} at {b} bit{'s' * (b > 1)} (loss {grown:+.2g})" for name, (grown, b) in worst)
    return f"{text}; most by {named}: give them more bits, or train"
