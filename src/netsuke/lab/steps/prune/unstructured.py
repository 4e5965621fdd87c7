"""Pruning single weights, alone or N of every M: what goes becomes 0 and stays in its place."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.lab.forms import Mask, release
from netsuke.lab.modules import FloatGraph
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.steps.prune.masks import Masks, Selection
from netsuke.lab.steps.prune.moving import Moved, Moving, Soft, harden, soften
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
from netsuke.lab.steps.prune.scores import scores
from netsuke.lab.steps.prune.weights import apply, gone, layers, original, remask

G = TypeVar("G", bound=nn.Module)


def unstructured(
    model: nn.Module, data: Dataset, options: Prune, trainer: Trainer
) -> FloatGraph | QuantGraph:
    """A copy of `model` with masks on its weights; see `prune`."""
    if options.rewind in ("init", "early"):
        return _lottery(model, data, options, trainer)
    if isinstance(model, QuantGraph):
        return _pruned(copy.deepcopy(model), data, options, trainer).eval()
    return folded(_pruned(with_norms(float_graph(model, data), data, options), data, options, trainer))


def _pruned(network: G, data: Dataset, options: Prune, trainer: Trainer) -> G:
    """`network` itself where there is nothing to train, else what came out of training."""
    _check(network, data, options)
    if options.moving:
        return _while_training(network, data, options, trainer)
    for number, t in shares(options):
        apply(network, _chosen(network, data, options, t))
        if options.training.epochs:
            network = trainer(network, f"round-{number}", amount=_share(options, t))
    return network


def _share(options: Prune, t: float) -> float:
    pattern = options.pattern
    return 1 - pattern[0] / pattern[1] if pattern else amount_at(options, t)


def _selection(
    network: nn.Module, data: Dataset, options: Prune, t: float = 1.0
) -> tuple[list[str], Selection]:
    """The layers that are pruned, and how."""
    every = list(layers(network))
    left = skipped(options, every)
    names = [name for name in every if name not in left]
    if not names:
        raise OptionError(
            f"skip {', '.join(options.skip)} leaves no layer to prune; there are {', '.join(every)}"
        )
    own = {name: amount_at(options, t, amount) for name, amount in own_amounts(options, names).items()}
    classes = len(data.classes)
    return names, Selection(amount_at(options, t), options.scope, own, options.pattern, classes)


def _check(network: nn.Module, data: Dataset, options: Prune) -> None:
    """Raise OptionError for an amount that the last round could not reach, before anything trains."""
    names, selection = _selection(network, data, options)
    found = layers(network)
    selection.masks({name: original(found[name]).detach() for name in names})


def _chosen(network: nn.Module, data: Dataset, options: Prune, t: float) -> Masks:
    names, selection = _selection(network, data, options, t)
    ranked = scores(network, data, options.measure, options.seed)
    masks = selection.masks({name: ranked[name] for name in names})
    # With a smaller amount than is pruned already, what is gone stays gone.
    return {name: mask * ~gone(layers(network)[name]) for name, mask in masks.items()}


def _while_training(network: G, data: Dataset, options: Prune, trainer: Trainer) -> G:
    names, selection = _selection(network, data, options)
    form = Moved if options.measure == "movement" else Soft if options.soft else Mask
    soften(network, names, form)
    # Not each epoch: what is hidden learns without seeing its effect, and within an epoch it overshoots.
    moving = Moving(selection, tuple(names), options.schedule, options.training.epochs, each_epoch=False)
    network = trainer(network, "pruning", amount=_share(options, 1), masks=moving)
    harden(network, names)
    return network


def _lottery(model: nn.Module, data: Dataset, options: Prune, trainer: Trainer) -> FloatGraph:
    """Train, prune, rewind, and again: on the module itself, whose batch norms a fresh network needs to train."""
    if isinstance(model, FloatGraph | QuantGraph):
        raise OptionError(
            f"rewind {options.rewind!r} needs the network before its training, and a finished one has lost it: start "
            "from build(...) or in a recipe from the model's name; rewind 'rate' works on a finished one"
        )
    _check(model, data, options)
    start = copy.deepcopy(model)
    if options.rewind == "early":
        start = trainer(start, "early", amount=0.0, epochs=options.early)
    network = trainer(start, "dense", amount=0.0)
    for number, t in shares(options):
        masks = _chosen(network, data, options, t)
        network = copy.deepcopy(start)
        apply(network, masks)
        network = trainer(network, f"round-{number}", amount=_share(options, t))
    return _lowered(network, data)


def _lowered(module: nn.Module, data: Dataset) -> FloatGraph:
    """The float graph of a pruned module, its zeros under masks again."""
    plain = copy.deepcopy(module)
    for layer in layers(plain).values():
        release(layer)
    graph = float_graph(plain, data)
    remask(graph)
    return graph.eval()
