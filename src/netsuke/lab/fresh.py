"""A network with new weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from netsuke.errors import OptionError
from netsuke.lab.modules import FloatGraph
from netsuke.lab.quantgraph import QuantGraph


def fresh(model: nn.Module, seed: int) -> nn.Module:
    """A copy of `model` whose weights are drawn anew by `seed`, as torch draws those of its layers.

    A mask of pruned weights stays. Raises OptionError where the weights cannot be drawn: those of a quantised
    network, which is calibrated for the ones it has, and of modules without `reset_parameters`.
    """
    if isinstance(model, QuantGraph):
        raise OptionError(
            "a quantised network has no new weights to start from; start from its float network"
        )
    result = copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = _graph(result) if isinstance(result, FloatGraph) else _layers(result)
    if not drawn:
        raise OptionError(f"{type(model).__name__} has no layers whose weights can be drawn anew")
    return result


def _layers(model: nn.Module) -> int:
    found: list[Any] = [m for m in model.modules() if hasattr(m, "reset_parameters")]
    for module in found:
        module.reset_parameters()
    return len(found)


@torch.no_grad()
def _graph(model: FloatGraph) -> int:
    """Uniform as He et al., 2015, a little narrower, for no batch norms hold the scale."""
    layer: Any
    for layer in model.layers.values():
        if hasattr(layer, "weight"):
            reach = math.sqrt(6 / layer.weight[0].numel()) * 0.9
            drawn = torch.empty_like(layer.weight).uniform_(-reach, reach)
            if parametrize.is_parametrized(layer, "weight"):
                layer.weight = drawn  # a mask stays, and zeroes its part
            else:
                layer.weight.copy_(drawn)
            layer.bias.zero_()
        else:
            layer.slope.fill_(0.25)
    return len(model.layers)
