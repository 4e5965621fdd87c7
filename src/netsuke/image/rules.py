"""Ruled lines, grids and boxes: found as long straight runs, taken out without breaking the strokes that cross them."""

from __future__ import annotations

import numpy as np

RUN = 0.022  # of the image's longer side: shorter runs in one row of pixels are no part of a line
SHORTEST = 16  # pixels of such a run, at least
LONG = 3.5  # runs of a line, at least
BRIDGE = (
    7  # pixels along a line over which its contrast is averaged: faint ones are broken by the paper's grain
)
FAINT = 0.7  # of what else counts as ink, after that
EDGE = 2  # pixels from both sides of the image: a line that ends there may be short for its thickness
WHOLE = 0.85  # share of a line's columns that runs cover
STRAIGHT = 1.0  # pixels beyond half its thickness that a line may stray from a parabola
VOTERS = 500  # pixels that vote for a line
SLOPES = np.linspace(-0.12, 0.12, 33)  # rises of a line by its length
THIN = 0.025  # of a line's length: its thickness, at most; touching digits make bars of a thirtieth
THIN_WHOLE = 0.035  # where it runs from side to side
THIN_FRAME = 0.08  # where it ends at lines across


def without_lines(contrast: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Contrast float32 [H, W] with the lines' pixels 0, but for those where a stroke crosses."""
    import cv2

    ink = (contrast > floor).astype(np.uint8)
    along = (cv2.blur(contrast, (BRIDGE, 1)) > FAINT * floor).astype(np.uint8)
    down = (cv2.blur(contrast, (1, BRIDGE)) > FAINT * floor).astype(np.uint8).T
    run = max(SHORTEST, round(RUN * max(ink.shape)))
    flat, upright = _lines(along, run), _lines(down, run).T
    if flat.any():
        upright |= _lines(down, run, flat.T).T
    if upright.any():
        flat |= _lines(along, run, upright)
    if not (flat.any() or upright.any()):
        return contrast
    gone = _outside_strokes(ink, flat) | _outside_strokes(ink.T, upright.T).T
    return np.where(gone, 0, contrast)


def _lines(ink: np.ndarray, run: int, across: np.ndarray | None = None) -> np.ndarray:
    """Pixels of the flat lines, bool [H, W]: long runs, in one row or from row to row.

    Where `across` is given, only those that end at such lines on both sides: of these a single run is enough.
    """
    import cv2

    ink = np.ascontiguousarray(ink)
    runs = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((1, run), np.uint8))
    out = np.zeros(ink.shape, bool)
    if not runs.any():
        return out
    joined = cv2.dilate(runs, np.ones((3, run // 2), np.uint8))  # over gaps, and from row to row
    _, label, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    frame = None if across is None else cv2.dilate(across.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    long = run if across is not None else min(LONG * run, ink.shape[1] - 2 * EDGE)
    for i in range(1, len(stats)):
        x, y, w, h, _ = (int(v) for v in stats[i])
        if w - run // 2 < long:
            continue
        if (
            frame is not None
            and np.count_nonzero(frame[y : y + h, x : x + w] & (label[y : y + h, x : x + w] == i)) < 2
        ):
            continue
        part = np.argwhere((label[y : y + h, x : x + w] == i) & (runs[y : y + h, x : x + w] > 0))
        part += np.array([y, x])
        while len(line := _line(part)):
            found = part[line]
            first, last = found[found[:, 1].argmin()], found[found[:, 1].argmax()]
            whole = first[1] <= EDGE and last[1] >= ink.shape[1] - 1 - EDGE
            if frame is not None:
                whole = bool(frame[tuple(first)] and frame[tuple(last)])
            if not _is_rule(found, np.inf if frame is not None else LONG * run, whole):
                break
            out[part[line, 0], part[line, 1]] = True
            part = part[~line]  # others may have been tied to it by strokes
    return out


def _line(part: np.ndarray) -> np.ndarray:
    """Which of some pixels (y, x; int [n, 2]) lie on their longest line, bool [n]; none where there is none.

    The slope and place that most pixels agree on (a Hough transform), then a parabola through those: paper bends.
    """
    if len(part) < SHORTEST:
        return np.zeros(0, bool)
    y, x = part.T.astype(float)
    x -= x.mean()
    few = slice(None, None, 1 + len(x) // VOTERS)
    place = np.round(y[few] - SLOPES[:, None] * x[few]).astype(np.int64)
    low = int(place.min()) - 1
    place -= low
    size = int(place.max()) + 2
    votes = np.bincount(
        (place + size * np.arange(len(SLOPES))[:, None]).ravel(), minlength=size * len(SLOPES)
    )
    votes[1:-1] = votes[:-2] + votes[1:-1] + votes[2:]  # a line is three pixels thick
    k, row = divmod(int(votes.argmax()), size)
    near = np.abs(y - SLOPES[k] * x - row - low) <= 2
    for _ in range(2):
        if near.sum() < SHORTEST:
            return np.zeros(0, bool)
        bend = np.polyfit(x[near], y[near], 2)
        near = np.abs(y - np.polyval(bend, x)) <= near.sum() / _columns(part[near]) / 2 + STRAIGHT
    return near


def _columns(part: np.ndarray) -> int:
    """How many columns some pixels lie in."""
    return int(np.count_nonzero(np.bincount(part[:, 1])))


def _is_rule(line: np.ndarray, long: float, whole: bool) -> bool:
    """Whether pixels on a line are long enough, or a whole line, and gapless and thin."""
    columns, length = _columns(line), int(np.ptp(line[:, 1])) + 1
    thin = length * ((THIN_WHOLE if long < np.inf else THIN_FRAME) if whole else THIN)
    thin = max(thin, 3.5 if whole else 0)
    return (whole or length >= long) and columns >= WHOLE * length and len(line) / columns <= thin


def _outside_strokes(ink: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Which pixels of flat lines to take: columns in which ink is no thicker than the line by much."""
    import cv2

    if not lines.any():
        return lines
    thick = _thickness(lines)
    near = (
        cv2.dilate(np.ascontiguousarray(lines, np.uint8), np.ones((3, 1), np.uint8)) > 0
    )  # its blurred edges
    near &= ink > 0
    long = cv2.morphologyEx(np.ascontiguousarray(ink), cv2.MORPH_OPEN, np.ones((thick + 2, 1), np.uint8)) > 0
    return near & ~long


def _thickness(lines: np.ndarray) -> int:
    """Pixels of the lines across, the median over their columns."""
    columns = lines.sum(0)
    starts = (lines[1:] & ~lines[:-1]).sum(0) + lines[0]
    return max(1, round(float(np.median(columns[starts > 0] / starts[starts > 0]))))
