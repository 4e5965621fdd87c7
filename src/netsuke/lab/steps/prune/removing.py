"""Pruning in rounds where channels or whole layers really go; `structured` does the removing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.lab.forms import release
from netsuke.lab.modules import FloatGraph
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.steps.prune import structured
from netsuke.lab.steps.prune.blocks import branches
from netsuke.lab.steps.prune.masks import Selection
from netsuke.lab.steps.prune.moving import MovingChannels, Soft, soften
from netsuke.lab.steps.prune.options import Prune
from netsuke.lab.steps.prune.rounds import (
    Trainer,
    amount_at,
    float_graph,
    folded,
    own_amounts,
    shares,
    skipped,
    with_norms,
)
from netsuke.lab.steps.prune.schedule import further
from netsuke.lab.steps.prune.weights import layers


def removing(model: nn.Module, data: Dataset, options: Prune, trainer: Trainer) -> FloatGraph:
    """A smaller copy of `model`; see `prune`."""
    if isinstance(model, QuantGraph):
        raise OptionError(
            f"structure {options.structure!r} needs the float model; an integer network loses single weights only "
            "(structure none or N:M): prune, then quantise"
        )
    network = float_graph(model, data)
    scales = structured.norms(model, data.image_shape) if options.measure == "bn" else None
    if options.soft:
        network = _soft(network, data, options, trainer)
    start, before, there = network, 0.0, len(branches(*network.to_graph()))
    for number, t in shares(replace(options, rounds=max(1, options.rounds))):
        if options.kind == "layers":
            network = structured.drop_layers(
                network, data, amount=amount_at(options, t), importance=options.measure, seed=options.seed, of=there
            )  # fmt: skip
        else:
            network = _without_channels(network, start, data, options, before, t, scales)
        if options.training.epochs and not options.soft:
            amount = amount_at(options, t)
            network = trainer(with_norms(network, data, options), f"round-{number}", amount=amount)
            scales = structured.norms(network, data.image_shape)
        before = t
    return folded(network)


def _without_channels(
    network: FloatGraph,
    start: FloatGraph,
    data: Dataset,
    options: Prune,
    before: float,
    t: float,
    scales: Mapping[str, Tensor] | None,
) -> FloatGraph:
    """What takes the network from one share of the way to another: each cut is relative to what it finds.

    Cuts by blocks count from the start, or what each takes too much would add up.
    """
    blocks = options.multiple > 1

    def step(amount: float) -> float:
        if blocks:
            return amount_at(options, t, amount)
        return further(amount_at(options, before, amount) if before else 0.0, amount_at(options, t, amount))

    names = list(layers(network))
    ratios = {name: step(own) for name, own in own_amounts(options, names).items()}
    ratios |= dict.fromkeys(skipped(options, names), 0.0)
    target = "channels" if options.target == "auto" else options.target
    return structured.cut(
        network, data,
        amount=step(options.amount), target=target, importance=options.measure, scope=options.scope,
        ratios=ratios or None, seed=options.seed, norms=scales,
        multiple=options.multiple, of=start if blocks else None,
    )  # fmt: skip


def _soft(network: FloatGraph, data: Dataset, options: Prune, trainer: Trainer) -> FloatGraph:
    """He et al., Soft Filter Pruning, 2018: after each epoch the weakest channels are put to 0, and learn on."""
    network = with_norms(network, data, options)
    names = list(layers(network))
    selection = Selection(options.amount, options.scope, own_amounts(options, names))
    moving = MovingChannels.over(
        network, selection, skipped(options, names),
        schedule=options.schedule, epochs=options.training.epochs, each_epoch=True, norm=options.measure,
    )  # fmt: skip
    soften(network, moving.names, Soft)
    network = trainer(network, "pruning", amount=options.amount, masks=moving)
    for name in moving.names:
        release(layers(network)[name])
    return network
