"""The weights of a network that can be pruned one by one, and the masks on them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from netsuke.errors import UnsupportedLayer
from netsuke.lab.forms import Codebook, Mask, form_of, release, set_mask
from netsuke.lab.modules import FloatGraph, key
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.quantlayers import QuantLayer, QuantLogits


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The convolutions and dense layers, by the names of their ops, each with its `weight` [O, ...].

    Raises UnsupportedLayer for weights that cannot be zero one by one: binary, or of shared values.
    """
    if isinstance(model, FloatGraph):
        ops = [op.name for op in model.graph.ops if op.kind in ("conv2d", "dense")]
        found: dict[str, nn.Module] = {name: model.layers[key(name)] for name in ops}
    elif isinstance(model, QuantGraph):
        parts = {op.name: model.layers[key(op.name)] for op in model.plan if key(op.name) in model.layers}
        found = {name: part for name, part in parts.items() if isinstance(part, QuantLayer | QuantLogits)}
    else:
        found = {n: part for n, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    for name, layer in found.items():
        if getattr(layer, "bits", 8) == 1:
            raise UnsupportedLayer(f"{name}: binary weights are never 0; prune before, or quantise to 2 bits")
        if form_of(layer, Codebook):
            raise UnsupportedLayer(f"{name} shares its values; prune before they are shared")
    if not found:
        raise UnsupportedLayer("nothing to prune: the network has no convolution and no dense layer")
    return found


def original(layer: nn.Module) -> nn.Parameter:
    """The parameter behind a layer's weight, whatever its form."""
    if parametrize.is_parametrized(layer, "weight"):
        return layer.parametrizations["weight"].original  # type: ignore
    return layer.weight  # type: ignore


def gone(layer: nn.Module) -> Tensor:
    """Where a layer's weight is pruned already.

    A weight of exactly 0 counts, except in a layer of nothing but zeros, which has not started to learn.
    """
    mask = form_of(layer, Mask)
    if isinstance(mask, Mask):
        return mask.mask == 0
    zero: Tensor = layer.weight.detach() == 0  # type: ignore
    return zero & ~zero.all()


@torch.no_grad()
def apply(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Prune for good, in place. What goes becomes +0, not the −0 that a product with a mask can give."""
    found = layers(model)
    for name, mask in masks.items():
        release(found[name])
        weight = original(found[name])
        weight.copy_(weight.masked_fill(mask == 0, 0.0))
        set_mask(found[name], mask)


def remask(model: nn.Module) -> None:
    """Put the zeros among the weights under masks, in place, so that training keeps them."""
    for name, layer in layers(model).items():
        zeros = gone(layer)
        if zeros.any():
            apply(model, {name: 1.0 - zeros.float()})
