"""Axes: values to pixels, with ticks a reader can name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from netsuke.measure.page import figures

DIGITS = (tuple(range(1, 10)), (1, 2, 3, 5, 7), (1, 2, 5), (1,))  # of ticks in a decade, from dense to sparse


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on pixels `start` to `end`, by `forward` (log or identity)."""

    forward: Callable[[float], float]
    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]

    def __call__(self, value: float) -> float:
        share = (self.forward(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def spaced(self, pixels: float) -> Axis:
        """The same axis without ticks that stand nearer than `pixels` to the one kept before."""
        kept: list[tuple[float, str]] = []
        for value, label in self.ticks:
            if not kept or abs(self(value) - self(kept[-1][0])) >= pixels:
                kept.append((value, label))
        return replace(self, ticks=tuple(kept))


def log_axis(values: Sequence[float], start: float, end: float, *, most: int = 7, pad: float = 0.06) -> Axis:
    """A logarithmic axis for positive values."""
    low, high = _padded(math.log10(min(values)), math.log10(max(values)), pad)
    ticks = tuple((tick, figures.short(tick)) for tick in log_ticks(low, high, most))
    return Axis(math.log10, low, high, start, end, ticks)


def error_axis(accuracies: Sequence[float], floor: float, start: float, end: float, *, most: int = 7) -> Axis:
    """Accuracy, logarithmic in the error: each equal step removes the same share of what is still wrong.

    An accuracy of 1 is drawn at the error `floor`, for a logarithm has no zero.
    """

    def forward(accuracy: float) -> float:
        return -math.log10(min(1.0, max(floor, 1 - accuracy)))

    seen = [forward(accuracy) for accuracy in accuracies]
    low, high = _padded(min(seen), max(seen), 0.08)
    low = max(low, -0.03)  # nothing is worse than accuracy 0
    errors = [error for error in log_ticks(-high, -low, most) if floor * 1.5 < error <= 1]
    ticks = [(1 - error, f"{100 - 100 * error:.7g}") for error in errors]
    if max(seen) >= forward(1):
        ticks.insert(0, (1.0, "100"))
    return Axis(forward, low, high, start, end, tuple(ticks))


def linear_axis(low: float, high: float, start: float, end: float, *, most: int = 7) -> Axis:
    """A plain axis of whole numbers, as epochs are."""
    if low == high:
        low, high = low - 1, high + 1
    step = max(1.0, _nice((high - low) / most))
    first = math.ceil(low / step)
    ticks = [step * k for k in range(first, math.floor(high / step) + 1)]
    return Axis(lambda value: value, low, high, start, end, tuple((t, f"{t:g}") for t in ticks))


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At most about `most` ticks from 10**low to 10**high, round ones first."""
    for digits in DIGITS:
        ticks = [
            float(f"{digit}e{decade}")
            for decade in range(math.floor(low), math.ceil(high) + 1)
            for digit in digits
            if low <= math.log10(digit) + decade <= high
        ]
        if len(ticks) <= 2 and digits is DIGITS[0]:
            return _linear_ticks(10**low, 10**high)
        if len(ticks) <= most:
            return ticks
    every = math.ceil(len(ticks) / most)
    return ticks[::every]


def _linear_ticks(low: float, high: float) -> list[float]:
    step = _nice((high - low) / 5)
    return [float(f"{step * k:.12g}") for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _nice(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(step))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= step * (1 - 1e-9))


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    if high - low < 0.02:  # one value, or equal ones: a range around them
        low, high = low - 0.1, high + 0.1
    return low - share * (high - low), high + share * (high - low)
