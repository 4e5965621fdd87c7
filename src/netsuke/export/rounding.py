"""The contract's requantisation as a staircase, and runtimes that round their own way beside it.

The contract gives `floor(acc * m / 2**s + 1/2)`, cut to 0..127 or -127..127; a runtime multiplies by a scale of its
own type and rounds by its own rule. Both are step functions that never fall as acc grows. So they agree on all of
lowest..highest if and only if they agree at both ends of each of the contract's at most 255 plateaus: a proof for
every input, whatever m and s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from netsuke.graph import Type

MARGIN = 2.0**-12  # where no step is near, a scale stays near m / 2^s


@dataclass(frozen=True)
class Stairs:
    """The steps of each of O channels: `sums` are the ends of the plateaus, `levels` what the contract makes of them.

    Any scale between `floor` and `ceiling`, float64 [O], has every step where it must be, but for rounding errors.
    """

    sums: np.ndarray  # int64 [O, k]
    levels: np.ndarray
    floor: np.ndarray
    ceiling: np.ndarray
    low: int  # the lowest level

    def misses(self, form: Callable[[np.ndarray], np.ndarray], near: np.ndarray) -> np.ndarray:
        """How far from `near` [O] the nearest sum lies that the form takes to another level; inf where none is."""
        wrong = np.clip(form(self.sums), self.low, 127) != self.levels
        distance: np.ndarray = np.where(wrong, np.abs(self.sums - near[:, None]), np.inf).min(1)
        return distance

    @property
    def middle(self) -> np.ndarray:
        """The scale furthest from every step, float64 [O]; 0 for channels whose multiplier is 0."""
        return (self.floor + self.ceiling) / 2

    def agrees(self, form: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Whether a runtime's `form`, from sums [O, k] to levels not yet cut, keeps every step: bool [O]."""
        agrees: np.ndarray = (np.clip(form(self.sums), self.low, 127) == self.levels).all(1)
        return agrees


def stairs(
    lowest: np.ndarray,
    highest: np.ndarray,
    multiplier: np.ndarray,
    shift: np.ndarray,
    *,
    signed: bool,
    gain: int = 1,
    offset: int = 0,
) -> Stairs:
    """`lowest` and `highest` bound each channel's accumulator; `multiplier` and `shift` are the contract's m and s.

    The runtime gets `gain * acc + offset` where the contract has acc, and so a scale `gain` times smaller: an offset
    below `gain` lifts what would be a tie. `Stairs.sums` are what the runtime gets.
    """
    low = -127 if signed else 0
    m, s = multiplier.astype(np.int64)[:, None], shift.astype(np.int64)[:, None]
    first, last = lowest.astype(np.int64)[:, None], highest.astype(np.int64)[:, None]
    edge = np.arange(low, 127) + 0.5
    step = -(-(np.int64(2 * edge) << s) // (2 * np.maximum(m, 1)))  # the smallest sum above the edge
    reached = (step <= last) & (step > first)
    above, below = gain * step + offset, gain * (step - 1) + offset
    # A scale must lift `above` to the edge, and must not lift `below` to it.
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.where(
            edge > 0, np.where(above > 0, edge / above, np.inf), np.where(below < 0, edge / below, np.inf)
        )
        most = np.where(
            edge > 0, np.where(below > 0, edge / below, np.inf), np.where(above < 0, edge / above, np.inf)
        )
    exact = (m / np.exp2(s))[:, 0] / gain
    floor = np.where(reached, least, 0).max(1, initial=0)
    ceiling = np.where(reached, most, np.inf).min(1, initial=np.inf)
    sums = np.clip(np.concatenate([step, step - 1, first, last], 1), first, last)
    levels = np.clip((sums * m + ((np.int64(1) << s) >> 1)) >> s, low, 127)
    lower, upper = np.maximum(floor, exact * (1 - MARGIN)), np.minimum(ceiling, exact * (1 + MARGIN))
    lower = np.where(np.isfinite(lower), lower, exact)  # where no scale will do
    dead = exact == 0
    return Stairs(gain * sums + offset, levels, np.where(dead, 0, lower), np.where(dead, 0, upper), low)


def reach(weight: np.ndarray, bias: np.ndarray, x: Type) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest accumulator of each output channel, int64."""
    flat = weight.reshape(len(weight), -1).astype(np.int64)
    plus, minus = np.maximum(flat, 0).sum(1), np.maximum(-flat, 0).sum(1)
    return bias + plus * x.lo - minus * x.hi, bias + plus * x.hi - minus * x.lo
