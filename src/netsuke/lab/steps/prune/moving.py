"""Masks that move while a training runs: soft, movement and gradual pruning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from netsuke.lab.channels import Channels
from netsuke.lab.forms import Mask, form_of, release
from netsuke.lab.integers import ste
from netsuke.lab.modules import FloatGraph
from netsuke.lab.steps.prune.masks import Selection
from netsuke.lab.steps.prune.schedule import SETTLE, reached
from netsuke.lab.steps.prune.weights import apply, gone, layers, original

STRIDE, LOOKS = 20, 10  # masks are chosen every 20 steps, or ten times in a short epoch


class Soft(Mask):
    """What is pruned shows as 0 but learns on, from the gradient at that 0, and may come back.

    Lin et al., Dynamic Model Pruning with Feedback, 2020: He et al.'s soft pruning (2018) with the mask left in
    place between two choices, so that every epoch ends with the network that would be kept.
    """

    def forward(self, weight: Tensor) -> Tensor:
        return ste(weight * self.mask, weight)


class Moved(Mask):
    """Remembers in `scores` how far the loss has pushed each weight from zero, pruned ones too.

    Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning, 2020: the sum over steps of −w · dL/dw', with
    w' the weight under its mask. A pruned weight itself stays as it was.
    """

    def __init__(self, mask: Tensor):
        super().__init__(mask)
        self.scores: Tensor
        self.register_buffer("scores", torch.zeros_like(self.mask))

    def forward(self, weight: Tensor) -> Tensor:
        shown = weight * self.mask
        if shown.requires_grad:
            shown.register_hook(lambda gradient: self._tally(gradient, weight))
        return shown

    def _tally(self, gradient: Tensor, weight: Tensor) -> None:
        self.scores.sub_(gradient.detach() * weight.detach())


@dataclass(frozen=True)
class Moving:
    """Chooses the masks of a network anew while `train` runs: the `Masks` of lab.training.

    All that it goes by lies in the network, so that a checkpoint holds it. The amounts of `selection` are reached by
    `schedule` after SETTLE of the `epochs`. `each_epoch` chooses at the start of an epoch only.
    """

    selection: Selection
    names: tuple[str, ...]
    schedule: str
    epochs: int
    each_epoch: bool

    @property
    def key(self) -> str:
        return repr(self)

    def update(self, model: nn.Module, epoch: int, step: int, steps: int) -> bool:
        if step % (steps if self.each_epoch else max(1, min(STRIDE, steps // LOOKS))):
            return False
        t = (epoch + (1 if self.each_epoch else step / steps)) / self.epochs / SETTLE
        return self.choose(model, self.at(t))

    def settled(self, epoch: int) -> bool:
        return (epoch + 1 - 1 / LOOKS) / self.epochs >= SETTLE

    def at(self, t: float) -> Selection:
        """The selection at that share of the way, which may be beyond 1."""
        own = {name: reached(self.schedule, t, amount) for name, amount in self.selection.own.items()}
        return replace(self.selection, amount=reached(self.schedule, t, self.selection.amount), own=own)

    @torch.no_grad()
    def choose(self, model: nn.Module, selection: Selection) -> bool:
        """Set the masks, in place, by what the network knows; whether it knows enough."""
        found = layers(model)
        scores = {name: _known(found[name]) for name in self.names}
        if not any(score.any() for score in scores.values()):
            return False  # before the first step nothing has moved
        _set(model, selection.masks(scores))
        return True


@dataclass(frozen=True)
class MovingChannels(Moving):
    """Whole channels, with all that stands or falls with them, ranked by the norm of the weights that make them.

    `units` are those of `lab.channels` that each output of the named layers belongs to; `groups` those that are
    pruned together.
    """

    norm: str = "l2"
    units: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    groups: tuple[Tensor, ...] = field(default=(), repr=False)

    @staticmethod
    def over(
        model: FloatGraph, selection: Selection, skipped: Iterable[str], **how: object
    ) -> MovingChannels:
        """For all channels of a network that may go, but for those that a skipped layer makes."""
        channels, skipped = Channels(*model.to_graph()), set(skipped)
        free_groups = [g for g in channels.groups if not skipped & set(g.layers)]
        groups = [torch.from_numpy(g.units) for g in free_groups]
        free = torch.cat([torch.zeros(0, dtype=torch.long), *groups])
        own = selection.own
        amounts = {
            str(i): max(own[name] for name in g.layers if name in own)
            for i, g in enumerate(free_groups)
            if set(g.layers) & set(own)
        }
        units = {op.name: torch.from_numpy(channels.at[op.name]) for op in channels.layers}
        units = {name: at for name, at in units.items() if torch.isin(at, free).any()}
        selection = replace(selection, own=amounts)
        return MovingChannels(selection, tuple(units), units=units, groups=tuple(groups), **how)  # type: ignore

    @torch.no_grad()
    def choose(self, model: nn.Module, selection: Selection) -> bool:
        found = layers(model)
        count = 1 + max(int(at.max()) for at in self.units.values())
        total, rows = torch.zeros(count), torch.zeros(count)
        for name, at in self.units.items():
            weight = original(found[name]).cpu().flatten(1)
            norm = weight.abs().mean(1) if self.norm == "l1" else weight.square().mean(1)
            total.index_add_(0, at, norm / norm.mean())  # layers differ in scale
            rows.index_add_(0, at, torch.ones(len(at)))
        mean = total / rows.clamp(min=1)
        kept = selection.masks({str(i): mean[units] for i, units in enumerate(self.groups)})
        stays = torch.ones(count)
        for i, units in enumerate(self.groups):
            stays[units] = kept[str(i)]
        masks = {name: stays[at] for name, at in self.units.items()}
        _set(model, {n: m.view(-1, *[1] * (original(found[n]).ndim - 1)) for n, m in masks.items()})
        return True


def _known(layer: nn.Module) -> Tensor:
    """What a layer's form tells about each weight."""
    form = form_of(layer, Mask)
    if isinstance(form, Moved):
        return form.scores
    size = original(layer).abs()
    return size if isinstance(form, Soft) else size.masked_fill(gone(layer), -torch.inf)


def _set(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    found = layers(model)
    for name, mask in masks.items():
        form = form_of(found[name], Mask)
        assert isinstance(form, Mask)
        form.mask.copy_(mask)  # in its own shape: a mask of outputs spreads over their weights


def soften(model: nn.Module, names: Iterable[str], form: type[Mask]) -> None:
    """Give layers that form of mask, in place; what is pruned already starts so."""
    found = layers(model)
    for name in names:
        mask = 1.0 - gone(found[name]).float()
        release(found[name])
        parametrize.register_parametrization(found[name], "weight", form(mask))


def harden(model: nn.Module, names: Iterable[str]) -> None:
    """Plain masks for good, in place; what they hide becomes 0."""
    found = layers(model)
    forms = {name: form_of(found[name], Mask) for name in names}
    apply(model, {name: form.mask.clone() for name, form in forms.items() if isinstance(form, Mask)})
