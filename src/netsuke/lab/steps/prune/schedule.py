"""How the share removed grows: over the rounds of an iterative pruning, or over the run of a training."""

from __future__ import annotations

import math
from collections.abc import Callable

# The share removed at `t` in 0..1, where it is to be `amount` at 1.
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "one-shot": lambda t, amount: amount,
    "linear": lambda t, amount: amount * t,
    # Zhu & Gupta, To prune, or not to prune, 2017: fast while much is redundant, slow towards the end.
    "polynomial": lambda t, amount: amount * (1 - (1 - t) ** 3),
    "cosine": lambda t, amount: amount * (1 - math.cos(math.pi * t)) / 2,
    # Frankle & Carbin, The Lottery Ticket Hypothesis, 2019: the same share of what is left, each time.
    "geometric": lambda t, amount: 1 - (1 - amount) ** t,
}

SETTLE = 0.75  # share of a training after which a growing amount is all reached: the rest of it recovers


def reached(schedule: str, t: float, amount: float) -> float:
    """The share removed at `t`, which may be beyond 1."""
    return amount if t >= 1 else SCHEDULES[schedule](max(t, 0.0), amount)


def further(before: float, after: float) -> float:
    """The share of what `before` has left that takes it to `after`: cuts that really remove are relative."""
    return (after - before) / (1 - before)
