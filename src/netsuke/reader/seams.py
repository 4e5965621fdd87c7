"""Where touching digits may part: the cheapest paths through ink, from the top of a piece to its bottom.

A path moves down a row at a time, straight or aslant, and pays for the ink it crosses: a shortest-path segmentation
(Wang and Jean, 1993) that finds the gaps, the concavities and the thin joints by one rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ASLANT = 0.15  # price of a step aside, in rows of solid ink
DEEP = 3.0  # strokes that a cut may cross at most
APART = 0.12  # of the digits' height: nearer cuts are one
PART = 0.05  # least width of a part as a share of the digits' height


@dataclass(frozen=True, eq=False)
class Cut:
    """A path: the first column right of it in each row, and how many strokes it crosses."""

    columns: np.ndarray
    strokes: float


def cuts(ink: np.ndarray, height: float, most: int) -> list[Cut]:
    """Up to `most` cuts of a piece, ink uint8 [h, w], from the left; `height` is that of a digit in pixels."""
    import cv2

    h, w = ink.shape
    solid = (ink > 96).astype(np.uint8)
    if w < 4 or not solid.any():
        return []
    inside = cv2.distanceTransform(np.pad(solid, 1), cv2.DIST_L2, 3)
    stroke = max(
        1.0, 4 * float(inside[inside > 0].mean()) - 1
    )  # a stroke's mean distance to its edge is a quarter of its width
    price = ink.astype(np.float32) / 255
    down, up = _swept(price), _swept(price[::-1])[::-1]
    middle = h // 2
    through = (down + up - price)[middle]
    chosen: list[int] = []
    margin = max(2, round(PART * height))
    for x in np.argsort(through, kind="stable"):
        if through[x] > DEEP * stroke or len(chosen) == most:
            break
        if margin <= x < w - margin and all(abs(x - other) >= APART * height for other in chosen):
            chosen.append(int(x))
    out = []
    for x in sorted(chosen):
        columns = np.concatenate([_traced(down, middle, x)[::-1], _traced(up[::-1], h - 1 - middle, x)[1:]])
        out.append(Cut(columns, float(through[x]) / stroke))
    return out


def _swept(price: np.ndarray) -> np.ndarray:
    """The least price of a path from the top row to each pixel, that pixel's own included."""
    total = price.copy()
    padded = np.full(price.shape[1] + 2, np.inf, np.float32)
    for y in range(1, len(price)):
        padded[1:-1] = total[y - 1]
        total[y] += np.minimum(padded[1:-1], np.minimum(padded[:-2], padded[2:]) + ASLANT)
    return total


def _traced(total: np.ndarray, row: int, column: int) -> np.ndarray:
    """Columns of the path that `_swept` found to this pixel, from `row` to the top."""
    columns = np.empty(row + 1, int)
    columns[0] = column
    for step in range(1, row + 1):
        above = total[row - step]
        low, high = max(column - 1, 0), min(column + 2, len(above))
        near = above[low:high] + ASLANT * (np.arange(low, high) != column)
        column = low + int(near.argmin())
        columns[step] = column
    return columns
