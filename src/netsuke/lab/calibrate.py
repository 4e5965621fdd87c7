"""How far each activation reaches: what its largest integer, 127, shall stand for.

Ranges are symmetric and start at 0, so only magnitudes count: the same holds for 0..127 and for -127..127.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from netsuke.errors import OptionError
from netsuke.lab.modules import FloatGraph

LEVELS = 127
BINS = 8192  # of a histogram: an integer's step is at least two of them, down to a 32nd of the largest value
KL_BINS = 2048
KEPT = 0.99  # of the values, by the least divergence
FINEST = 32


class Observer(Protocol):
    """Sees the magnitudes of one tensor, batch by batch, and then says how far it reaches."""

    def add(self, values: Tensor) -> None: ...

    def reach(self) -> float: ...


class Percentile:
    """The largest over the batches of each batch's percentile of |value|; at 100 the largest value."""

    def __init__(self, percentile: float):
        self.percentile, self.top = percentile, 0.0

    def add(self, values: Tensor) -> None:
        rank = max(1, math.ceil(values.numel() * self.percentile / 100))
        self.top = max(self.top, values.kthvalue(rank).values.item())

    def reach(self) -> float:
        return self.top


class Histogram:
    """Counts of |value| in bins of one width, which doubles as larger values come: memory does not grow."""

    def __init__(self, choose: Callable[[np.ndarray, float], float]):
        self.choose, self.top, self.counts = choose, 0.0, np.zeros(BINS)

    def add(self, values: Tensor) -> None:
        largest = values.max().item()
        if self.top == 0.0:
            self.top = largest
        if self.top == 0.0:
            return  # nothing but zeros yet: they fall into no range
        while self.top < largest:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2)])
            self.top *= 2
        self.counts += torch.histc(values.float(), BINS, 0.0, self.top).double().numpy()

    def reach(self) -> float:
        return self.choose(self.counts, self.top) if self.top else 0.0


def least_squares(counts: np.ndarray, top: float) -> float:
    """The reach whose rounding and clipping together have the least squared error."""
    centres = (np.arange(len(counts)) + 0.5) * top / len(counts)
    candidates = np.linspace(top / FINEST, top, 256)
    errors = []
    for reach in candidates:
        step = reach / LEVELS
        near = np.minimum(np.floor(centres / step + 0.5), LEVELS) * step
        errors.append(float(counts @ np.square(near - centres)))
    return float(candidates[int(np.argmin(errors))])


def least_divergence(counts: np.ndarray, top: float) -> float:
    """The reach that keeps the distribution: the least Kullback-Leibler divergence (Migacz, 8-bit Inference with
    TensorRT, 2017).

    What is clipped counts as the last bin. Zeros, which any step keeps, count no more than their neighbours: else
    the half of a ReLU's values that is zero hides all others. At most 1 % is clipped: into a bin that holds one
    value, all others would clip without divergence.
    """
    counts = counts.reshape(KL_BINS, -1).sum(1)
    counts[0] = counts[1]
    if not counts.any():
        return top
    enough = int(np.searchsorted(counts.cumsum(), KEPT * counts.sum())) + 1
    best, least = KL_BINS, math.inf
    for bins in range(max(LEVELS + 1, enough), KL_BINS + 1):
        kept = counts[:bins]
        wanted = kept.copy()
        wanted[-1] += counts[bins:].sum()
        divergence = _divergence(wanted, _coarse(kept))
        if divergence < least:
            best, least = bins, divergence
    return top * best / KL_BINS


def _coarse(counts: np.ndarray) -> np.ndarray:
    """Counts as 128 levels tell them apart: the average of a level's bins, but none where there was none."""
    level = np.arange(len(counts)) * (LEVELS + 1) // len(counts)
    total = np.bincount(level, counts, LEVELS + 1)
    filled = np.bincount(level, counts > 0, LEVELS + 1)
    return np.where(counts > 0, (total / np.maximum(filled, 1))[level], 0.0)


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) of two histograms; a value of p that q has lost counts as nearly impossible, not as infinite."""
    if not q.sum():
        return math.inf
    p, q = p / p.sum(), np.maximum(q / q.sum(), 1e-9)
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())


CALIBRATORS: dict[str, Callable[[float], Observer]] = {
    "percentile": Percentile,
    "minmax": lambda percentile: Percentile(100.0),
    "mse": lambda percentile: Histogram(least_squares),
    "kl": lambda percentile: Histogram(least_divergence),
}


@dataclass(frozen=True)
class Calibration:
    """Which calibrator, its percentile where it is that, and whether layers' means are measured for correction."""

    calibrator: str = "percentile"
    percentile: float = 99.99
    bias_correction: bool = False

    def __post_init__(self) -> None:
        if self.calibrator not in CALIBRATORS:
            raise OptionError(f"no calibrator {self.calibrator!r}; there are {', '.join(CALIBRATORS)}")
        if not 50 <= self.percentile <= 100:
            raise OptionError(f"percentile must be in 50..100; got {self.percentile}")


@torch.no_grad()
def measure(
    twin: FloatGraph, batches: Iterable[Tensor], seen: set[str], layers: set[str], calibration: Calibration
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Reach of each tensor in `seen`, in the order of the graph, and mean of each channel of those in `layers`."""
    observers: dict[str, Observer] = {
        op.name: CALIBRATORS[calibration.calibrator](calibration.percentile)
        for op in twin.graph.ops
        if op.name in seen
    }
    totals: dict[str, Tensor] = {}
    count = 0
    for images in batches:
        count += len(images)
        for name, value in twin.activations(images).items():
            if name in observers:
                observers[name].add(value.abs().flatten())
            if name in layers:
                # The average over a map, summed over the images.
                total = value.flatten(2).mean(2).sum(0) if value.ndim > 2 else value.sum(0)
                totals[name] = totals.get(name, 0.0) + total
    reaches = {name: observer.reach() for name, observer in observers.items()}
    return reaches, {name: total / count for name, total in totals.items()}
