"""The options of a training, and what a teacher is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from netsuke.errors import OptionError
from netsuke.lab.augment import Augment

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p, o: torch.optim.SGD(p, o.lr, momentum=o.momentum, nesterov=o.momentum > 0),
    "adam": lambda p, o: torch.optim.Adam(p, o.lr, betas=(o.momentum, 0.99), fused=True),
    "adamw": lambda p, o: torch.optim.AdamW(p, o.lr, betas=(o.momentum, 0.99), weight_decay=0.0, fused=True),
    "rmsprop": lambda p, o: torch.optim.RMSprop(p, o.lr),
}

# The share of the peak learning rate at `t` in 0..1 of the run.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "step": lambda t: 0.1 ** (int(t >= 0.5) + int(t >= 0.8)),
    "cosine": lambda t: 0.5 * (1 + math.cos(math.pi * t)),
    # Smith & Topin, Super-Convergence, 2018: up for a quarter of the run, then down to nothing.
    "one-cycle": lambda t: (
        0.04 + 0.96 * t / 0.25 if t < 0.25 else 0.5 * (1 + math.cos(math.pi * (t - 0.25) / 0.75))
    ),
}


@dataclass(frozen=True)
class Training:
    """Options of the loop; the defaults suit a small CNN.

    `l2` is weight decay on weights, not on biases and norms: decoupled with adamw, a gradient term otherwise.
    `ema` is the decay of an exponential moving average of the weights that takes their place at the end.
    `patience` stops after so many epochs without a better validation accuracy; with it, or with `best`, the
    weights of the best epoch are kept rather than the last. `freeze_norm` is the share of the run after which
    norms use their running statistics. `threads` 0 takes all there are, but one for images of few pixels.

    `freeze` holds patterns of parameters that stay as they are, with the statistics of their norms; `rates`
    pairs of pattern and factor on the learning rate, the last that matches counts. `unfreeze` lets the last
    layer learn alone and adds the one before it every so many epochs (Howard & Ruder, Universal Language
    Model Fine-tuning, 2018). See `lab.freeze` for what a pattern matches.

    `views` is a number of augmented copies, made once with the teacher's answers and seen in turn, an epoch
    each: for small networks, whose steps cost less than augmenting and asking. 0 augments and asks afresh.
    """

    epochs: int = 10
    batch: int = 128
    optimizer: str = "adam"
    lr: float = 2e-3
    momentum: float = 0.9
    schedule: str = "one-cycle"
    label_smoothing: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    ema: float = 0.0
    clip: float = 0.0
    patience: int = 0
    best: bool = False
    freeze_norm: float = 1.0
    seed: int = 0
    threads: int = 0
    precision: str = "auto"
    augment: Augment = field(default_factory=Augment)
    freeze: tuple[str, ...] = ()
    rates: tuple[tuple[str, float], ...] = ()
    unfreeze: int = 0
    views: int = 0

    def __post_init__(self) -> None:
        tables: dict[str, Iterable[str]] = {
            "optimizer": OPTIMIZERS,
            "schedule": SCHEDULES,
            "precision": ("auto", "float32", "bfloat16"),
        }
        for name, known in tables.items():
            if getattr(self, name) not in known:
                raise OptionError(f"no {name} {getattr(self, name)!r}; there are {', '.join(known)}")
        low = {"epochs": 0, "batch": 1, "lr": 1e-12, "patience": 0, "l1": 0, "l2": 0, "clip": 0, "threads": 0}
        low |= {"unfreeze": 0, "views": 0}
        for name, bound in low.items():
            if not bound <= getattr(self, name) < 1e9:
                raise OptionError(f"{name} must be at least {bound:g}; got {getattr(self, name)}")
        for pattern, factor in self.rates:
            if not 0 < factor < 1e6:
                raise OptionError(
                    f"the rate of {pattern!r} must be above 0; got {factor:g}; freeze takes 0's place"
                )
        if self.threads > 1024:
            raise OptionError(f"threads must be 0 to 1024; got {self.threads}")
        if not 0 <= self.seed < 2**32:
            raise OptionError(f"seed must be 0 to {2**32 - 1}; got {self.seed}")
        if not 0 <= self.freeze_norm <= 1:
            raise OptionError(f"freeze_norm must be in 0..1; got {self.freeze_norm}")
        for name in ("momentum", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(f"{name} must be in 0..1, 1 excluded; got {getattr(self, name)}")


@dataclass(frozen=True)
class Teacher:
    """Whose logits to follow: loss = (1 - hard) * T^2 * KL(teacher, student at T) + hard * cross entropy."""

    model: nn.Module
    temperature: float = 2.0
    hard: float = 0.5

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and 0 <= self.hard <= 1):
            raise OptionError(
                f"distillation needs temperature > 0 and hard in 0..1; got {self.temperature} and {self.hard}"
            )


class Masks(Protocol):
    """Which weights are pruned, where that changes while a model trains. What it goes by lies in the model."""

    @property
    def key(self) -> str:
        """Equal for masks that move alike: a checkpoint belongs to them."""

    def update(self, model: nn.Module, epoch: int, step: int, steps: int) -> bool:
        """Before each of an epoch's `steps`: choose masks anew, in place, or not; whether it was done."""

    def settled(self, epoch: int) -> bool:
        """Whether the model is pruned in full at the end of an epoch, counted from 0, and may be the best."""


# Epochs done since the last call, what to show, and whether a former run did them.
Progress = Callable[[float, str, bool], None]
