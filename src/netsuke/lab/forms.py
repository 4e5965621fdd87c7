"""The forms a weight can take while it trains: with a mask of what is pruned, or as indices into shared values.

Each is a parametrisation of torch (`torch.nn.utils.parametrize`), so whoever reads `layer.weight` gets the weight
in its form, copies and checkpoints included, and gradients reach what is free to learn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Mask(nn.Module):
    """Zeroes what is pruned: `mask` has the weight's shape, 1 where it stays."""

    def __init__(self, mask: Tensor):
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask.float())

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight  # what lies behind the mask may come back


class Codebook(nn.Module):
    """Weights that share values: `index` (int64, the weight's shape) points into the trainable values [K].

    A value that starts as 0 stands for what is pruned, and stays 0.
    """

    def __init__(self, index: Tensor, values: Tensor):
        super().__init__()
        self.index: Tensor
        self.register_buffer("index", index.long())
        self.free: Tensor
        self.register_buffer("free", (values != 0).float())
        self.start = values.clone()

    def forward(self, values: Tensor) -> Tensor:
        return (values * self.free)[self.index]

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self.start.to(weight)


def form_of(layer: nn.Module, kind: type[nn.Module], role: str = "weight") -> nn.Module | None:
    """The parametrisation of that kind on a layer's weight, if it has one."""
    if not parametrize.is_parametrized(layer, role):
        return None
    return next((form for form in layer.parametrizations[role] if isinstance(form, kind)), None)  # type: ignore


@torch.no_grad()
def set_mask(layer: nn.Module, mask: Tensor, role: str = "weight") -> None:
    """Prune a layer's weight, in place: 1 stays, 0 goes. A mask that is there already is replaced."""
    form = form_of(layer, Mask, role)
    if isinstance(form, Mask):
        form.mask.copy_(mask)
    else:
        weight = getattr(layer, role)
        parametrize.register_parametrization(layer, role, Mask(mask.to(weight.device)))


@torch.no_grad()
def follow(copy: nn.Module, model: nn.Module) -> None:
    """Give a copy of `model` the masks that `model` has now, in place."""
    for mine, theirs in zip(copy.modules(), model.modules(), strict=True):
        if isinstance(mine, Mask) and isinstance(theirs, Mask):
            mine.mask.copy_(theirs.mask)


@torch.no_grad()
def share(layer: nn.Module, index: Tensor, values: Tensor, role: str = "weight") -> None:
    """Let a layer's weight become `values[index]`, in place; the values train on, and a mask goes into the index."""
    release(layer, role)
    parametrize.register_parametrization(layer, role, Codebook(index, values), unsafe=True)


def release(layer: nn.Module, role: str = "weight") -> None:
    """Back to a plain parameter with the value it now has, in place."""
    if parametrize.is_parametrized(layer, role):
        # Copies share the class that torch made for the layer, and removing takes the property off the class.
        shared = type(layer)
        layer.__class__ = type(shared.__name__, shared.__bases__, dict(shared.__dict__))
        parametrize.remove_parametrizations(layer, role, leave_parametrized=True)
