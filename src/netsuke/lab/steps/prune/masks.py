"""Which weights stay: from scores to masks, over the network, within each layer, or N of every M."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from netsuke.errors import OptionError

Masks = dict[str, Tensor]


@dataclass(frozen=True)
class Selection:
    """How many weights go. `own` are amounts of single layers; `pattern` is (N, M), and then amounts play no part.

    Where scores are compared over the whole network, each layer keeps its `floor` strongest weights: a layer of
    small weights would otherwise die as a whole, and the network with it (Tanaka et al., Pruning neural networks
    without any data, 2020).
    """

    amount: float
    scope: str = "global"
    own: Mapping[str, float] = field(default_factory=dict)
    pattern: tuple[int, int] | None = None
    floor: int = 1

    def masks(self, scores: Mapping[str, Tensor]) -> Masks:
        """1 for what stays, where scores are high; among equals the first stay, so that the count is exact.

        Raises OptionError where fewer weights would stay than there are layers.
        """
        if self.pattern:
            return {name: grouped(score, *self.pattern) for name, score in scores.items()}
        found: Masks = {}
        for name, score in scores.items():
            if self.scope == "layer" or name in self.own:
                keep = kept(score.numel(), self.own.get(name, self.amount))
                found[name] = strongest(score, max(1, keep))
        found |= self._pooled({name: score for name, score in scores.items() if name not in found})
        return {name: found[name] for name in scores}

    def _pooled(self, scores: Mapping[str, Tensor]) -> Masks:
        if not scores:
            return {}
        keep = kept(sum(score.numel() for score in scores.values()), self.amount)
        if keep < len(scores):
            raise OptionError(
                f"amount {self.amount:g} leaves {keep} weights to {len(scores)} layers; each needs one"
            )
        floor = min(self.floor, keep // len(scores))
        raised = [score.masked_fill(strongest(score, floor).bool(), torch.inf) for score in scores.values()]
        mask = strongest(torch.cat([score.flatten() for score in raised]), keep)
        parts = mask.split([score.numel() for score in raised])
        return {name: part.view_as(score) for (name, score), part in zip(scores.items(), parts, strict=True)}


def kept(count: int, amount: float) -> int:
    return count - round(amount * count)


def strongest(scores: Tensor, keep: int) -> Tensor:
    """A mask of the `keep` largest; the first ones among equals."""
    order = scores.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(scores.numel(), device=scores.device)
    mask[order[:keep]] = 1
    return mask.view_as(scores)


def grouped(scores: Tensor, n: int, m: int) -> Tensor:
    """A mask of the `n` largest of every `m` neighbours among the weights of an output (Mishra et al., 2021).

    Neighbours in the order they are stored, I*r*c of a convolution [O, I, r, c]: what a kernel reads one after
    the other, and there are enough of them where a layer has one input channel. The last group of an output may
    be short, and keeps up to `n` too.
    """
    rows = scores.flatten(1)
    spare = -rows.shape[1] % m
    groups = F.pad(rows, (0, spare), value=-torch.inf).unflatten(1, (-1, m))
    order = groups.argsort(dim=2, descending=True, stable=True)
    mask = torch.zeros_like(groups).scatter_(2, order[:, :, :n], 1.0)
    return mask.flatten(1)[:, : rows.shape[1]].reshape(scores.shape)
