"""Where touching digits may part: the cheapest paths through ink, from the top of a piece to its bottom.

A path moves down a row at a time, straight or aslant, and pays for the ink it crosses: a shortest-path segmentation
(Wang and Jean, 1993) that finds the gaps, the concavities and the thin joints by one rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

ASLANT = 0.15  # price of a step aside, in rows of solid ink
DEEP = 3.0  # strokes that a cut may cross at most
APART = 0.12  # of the digits' height: nearer cuts are one
OWN = 0.3  # of the way to the next mark is of the one before
PART = 0.25  # length of the shortest stroke that is a part, as a share of the digits' height


@dataclass(frozen=True, eq=False)
class Cut:
    """A path: the first column right of it in each row, and how many strokes it crosses."""

    columns: np.ndarray
    strokes: float


def cuts(ink: np.ndarray, height: float, most: int, marks: Iterable[float] = ()) -> list[Cut]:
    """Up to `most` cuts of a piece, ink uint8 [h, w], from the left; `height` is that of a digit in pixels.

    Between any two neighbours of `marks`, columns where something else knows of a sign, there is one more if need be.
    """
    if ink.shape[1] < 4:
        return []
    stroke = _stroke(ink)
    price = ink.astype(np.float32) / 255
    middle = len(price) // 2
    ends = _swept(_halves(price, middle))
    through = ends[-1].sum(0) - price[middle]
    tried = np.flatnonzero(through <= DEEP * stroke)
    between = [_between(a, b, ink.shape[1]) for a, b in pairwise(marks)]
    between = [part for part in between if len(part)]
    best = np.array([part[through[part].argmin()] for part in between], np.intp)
    columns = np.concatenate([tried, best])
    if not len(columns):
        return []
    above, below = _traced(ends, columns)
    paths = np.concatenate([above[middle::-1], below[1 : len(price) - middle]])  # [h, n]
    beside = np.concatenate([np.zeros((len(price), 1)), np.cumsum(price, 1)], 1)
    left = np.take_along_axis(beside, paths, 1).sum(0)  # ink left of each path
    total, least = float(beside[:, -1].sum()), PART * height * stroke
    free = (least <= left) & (left <= total - least)
    free[len(tried) :] = False
    chosen: list[int] = []
    for k in np.argsort(through[columns], kind="stable"):
        if len(chosen) == most:
            break
        if free[k]:
            chosen.append(int(k))
            free &= (np.abs(columns - columns[k]) >= APART * height) & (np.abs(left - left[k]) >= least)
    for k, part in enumerate(between, len(tried)):
        if not any(part[0] <= columns[other] <= part[-1] for other in chosen):
            chosen.append(k)
    return [
        Cut(paths[:, k], float(through[columns[k]]) / stroke)
        for k in sorted(chosen, key=lambda k: columns[k])
    ]


def _between(a: float, b: float, width: int) -> np.ndarray:
    """The columns between two marks that are of neither."""
    own = OWN * (b - a)
    return np.arange(max(1, round(a + own)), min(round(b - own) + 1, width))


def sides(cuts: list[Cut], width: int) -> np.ndarray:
    """How many cuts lie left of each pixel, int [h, w]."""
    return np.sum([np.arange(width) >= cut.columns[:, None] for cut in cuts], axis=0)


def _stroke(ink: np.ndarray) -> float:
    """Width of the strokes in pixels: the mean distance to their edge is a quarter of it."""
    import cv2

    inside = cv2.distanceTransform(np.pad((ink > 96).astype(np.uint8), 1), cv2.DIST_L2, 3)
    count = np.count_nonzero(inside)
    return max(1.0, 4 * float(inside.sum()) / count - 1) if count else 1.0


def _halves(price: np.ndarray, middle: int) -> np.ndarray:
    """The rows from the top to the middle and from the bottom to it, [n, 2, w]; nothing before the shorter."""
    upper, lower = price[: middle + 1], price[middle:][::-1]
    out = np.zeros((max(len(upper), len(lower)), 2, price.shape[1]), np.float32)
    out[-len(upper) :, 0], out[-len(lower) :, 1] = upper, lower
    return out


def _swept(price: np.ndarray) -> np.ndarray:
    """The least prices of paths from the first row to each pixel, that pixel's own included, of prices [n, 2, w]."""
    total = price.copy()
    for above, own in pairwise(total):
        least = above.copy()
        np.minimum(least[:, 1:], above[:, :-1] + ASLANT, out=least[:, 1:])
        np.minimum(least[:, :-1], above[:, 1:] + ASLANT, out=least[:, :-1])
        own += least
    return total


def _traced(total: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Columns [2, n, k] of the paths that `_swept` found to k pixels of the last rows, from there to the first."""
    columns = np.stack([columns, columns])
    out = np.empty((2, len(total), columns.shape[1]), np.intp)
    out[:, 0] = columns
    last, half = total.shape[2] - 1, np.array([[0], [1]])
    for step, above in enumerate(total[-2::-1], 1):
        left, right = np.maximum(columns - 1, 0), np.minimum(columns + 1, last)
        straight, low, high = above[half, columns], above[half, left] + ASLANT, above[half, right] + ASLANT
        columns = np.where(
            low < straight, np.where(high < low, right, left), np.where(high < straight, right, columns)
        )
        out[:, step] = columns
    return out
