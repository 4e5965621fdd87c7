"""Digits that touch the box they are written in: the box's four straight sides are told from them, and left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SMALLEST = 20  # pixels of a box's shorter side
FILLED = 0.7  # of a box that its piece covers, at most
NEAR = 0.2  # of a piece's height: how near to its rim a side lies
ALONG = 0.75  # of a side that is seen, at least
CORNER = 0.08  # of a side that is not asked, at both its ends
STRAIGHT = 1.5  # pixels by which a side may stray from a line
THIN = 0.2  # of a box's shorter side: a side's thickness, at most
FREE = 25  # percent of a side at least that nothing touches
THICKER = 2  # pixels by which a side is thicker where nothing touches it, at most
WRITTEN = 0.35  # of a box's height: what is written in it is as high
CRUMB = 3  # pixels: what is smaller is left of a side
BAR = 0.85, 0.25  # of a box's height: a bar between its cells is as high, and narrower


def unboxed(label: np.ndarray, stats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pieces, `label` int32 [H, W] (changed in place) and `stats` int [n, 5] as `image.pieces` gives them, with those
    parted that are boxes with what touches them.

    The box has no ink and no area any more, and what was written in it gets new numbers.
    """
    import cv2

    _, _, w, h, area = stats.T
    hollow = (np.minimum(w, h) >= SMALLEST) & (area < FILLED * w * h)
    new: list[list[int]] = []
    for i in np.flatnonzero(hollow):
        x, y, w, h, _ = stats[i].tolist()
        part = label[y : y + h, x : x + w]
        own = part == i + 1
        frame = _frame(own)
        if frame is None:
            continue
        count, inner, boxes, _ = cv2.connectedComponentsWithStats(
            (own & ~frame).view(np.uint8), connectivity=8
        )
        kept = [k for k in range(1, count) if _is_ink(boxes[k], h)]
        if max((boxes[k, 3] for k in kept), default=0) < WRITTEN * h:
            continue  # nothing touches it: what it holds is of other pieces
        stats[i, 4] = 0
        part[own] = 0
        for k in kept:
            left, top, wide, high, size = boxes[k].tolist()
            new.append([x + left, y + top, wide, high, size])
            part[inner == k] = len(stats) + len(new)
    return label, np.concatenate([stats, np.array(new, stats.dtype).reshape(-1, 5)])


def _is_ink(box: np.ndarray, h: int) -> bool:
    """Whether a piece within a box of height `h` is more than a rest of its sides, and no bar between two cells."""
    _, _, wide, high, _ = box
    return bool(min(wide, high) >= CRUMB and not (high > BAR[0] * h and wide < BAR[1] * h))


def _frame(own: np.ndarray) -> np.ndarray | None:
    """Which pixels of a piece bool [h, w] are the sides of a box; None where it has no four straight sides."""
    bands: list[np.ndarray] = []
    strokes = np.zeros_like(own)
    views = own, own[::-1], own.T, own.T[::-1]  # from above, below, the left and the right
    if not all(map(_is_closed, views)):
        return None
    for k, view in enumerate(views):
        side = _side(view, THIN * min(own.shape))
        if side is None:
            return None
        band, stroke = (part[::-1] if k % 2 else part for part in (side.band, side.stroke))
        band, stroke = (part.T if k > 1 else part for part in (band, stroke))
        bands.append(band)
        strokes |= stroke
    crossed = (bands[0] | bands[1]) & (bands[2] | bands[3])
    frame: np.ndarray = bands[0] | bands[1] | bands[2] | bands[3]
    return own & frame & (crossed | ~strokes)


def _is_closed(own: np.ndarray) -> bool:
    """Whether ink lies near the upper rim of a piece, bool [h, w], all along it: most signs need no longer look."""
    h, w = own.shape
    end = round(CORNER * w)
    return bool(own[: int(np.ceil(NEAR * h)), end : w - end].any(0).mean() >= ALONG)


@dataclass(frozen=True, eq=False)
class _Side:
    """The upper side of a piece: where it runs, and where in it a stroke goes on: bool [h, w] both."""

    band: np.ndarray
    stroke: np.ndarray


def _side(own: np.ndarray, thickest: float) -> _Side | None:
    """The upper side of a piece, bool [h, w]; None where that is no straight line."""
    h, w = own.shape
    inked = own.any(0)
    first = np.where(inked, own.argmax(0), h)
    end = round(CORNER * w)
    asked = np.arange(end, w - end)
    near = asked[first[asked] < NEAR * h]
    if len(near) < ALONG * len(asked):
        return None
    x = np.arange(w)
    line = np.full(w, float(np.median(first[near])))
    for _ in range(3):
        off = np.abs(first[near] - line[near])
        close = near[off <= max(STRAIGHT, off.max() / 2)]
        slope, start = np.polyfit(close, first[close], 1) if len(close) > 2 else (0.0, line[0])
        line = start + slope * x
    on = np.abs(first - line) <= STRAIGHT
    if on[asked].sum() < ALONG * len(asked):
        return None
    deep = np.cumsum(~own, 0)  # how much paper lies above
    run = (own & (deep == np.minimum(first, h))).sum(0)  # from the first ink down
    thick = float(np.percentile(run[on], FREE))
    if thick > thickest:
        return None
    y = np.arange(h)[:, None]
    band = (y >= line - STRAIGHT) & (y <= line + thick + STRAIGHT - 0.5)
    below = (run > thick + THICKER) & (y >= first + round(thick))  # what touches it from within
    return _Side(band, band & (below | ~on))
