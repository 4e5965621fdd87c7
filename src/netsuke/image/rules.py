"""Ruled lines, grids and boxes: found as long straight runs, taken out without breaking the strokes that cross them."""

from __future__ import annotations

import numpy as np

RUN = 0.022  # of the image's longer side: shorter runs in one row of pixels are no part of a line
SHORTEST = 16  # pixels of such a run, at least
LONG = 3.5  # runs of a line, at least
ACROSS = 0.9  # of the image: a line so long may be as thick as three pixels
WHOLE = 0.9  # share of a line's columns that runs cover
STRAIGHT = 1.5  # pixels beyond half its thickness that a line may stray from a parabola
TILT = 0.12  # rise of a line by its length, at most
THIN = 0.025  # of a line's length: its thickness, at most; touching digits make bars of a twentieth


def without_lines(contrast: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Contrast float32 [H, W] with the lines' pixels 0, but for those where a stroke crosses."""
    ink = (contrast > floor).astype(np.uint8)
    run = max(SHORTEST, round(RUN * max(ink.shape)))
    flat, upright = _lines(ink, run), _lines(ink.T, run).T
    if not (flat.any() or upright.any()):
        return contrast
    gone = _outside_strokes(ink, flat) | _outside_strokes(ink.T, upright.T).T
    return np.where(gone, 0, contrast)


def _lines(ink: np.ndarray, run: int) -> np.ndarray:
    """Pixels of the flat lines, bool [H, W]: long runs, in one row or from row to row."""
    import cv2

    ink = np.ascontiguousarray(ink)
    runs = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((1, run), np.uint8))
    out = np.zeros(ink.shape, bool)
    if not runs.any():
        return out
    joined = cv2.dilate(runs, np.ones((3, run // 2), np.uint8))  # over gaps, and from row to row
    _, label, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    for i in range(1, len(stats)):
        x, y, w, h, _ = (int(v) for v in stats[i])
        whole = w - run // 2 >= ACROSS * ink.shape[1]
        if whole or w - run // 2 >= LONG * run:
            window = slice(y, y + h), slice(x, x + w)
            thin = 3 if whole else THIN * (w - run // 2)
            out[window] |= _straight((label[window] == i) & (runs[window] > 0), thin)
    return out


def _straight(part: np.ndarray, thin: float) -> np.ndarray:
    """The pixels of one line among those of some runs, bool [h, w]; none where they are not a line."""
    y, x = np.nonzero(part)
    near = np.ones(len(x), bool)
    middle, length = x.mean(), max(int(np.ptp(x)) + 1, 1)
    for _ in range(3):
        if len(np.unique(x[near])) < WHOLE * length:
            return np.zeros_like(part)
        bend = np.polyfit((x[near] - middle) / length, y[near], 2)
        off = np.abs(y - np.polyval(bend, (x - middle) / length))
        thick = near.sum() / len(np.unique(x[near]))
        near = off <= thick / 2 + STRAIGHT
    if abs(bend[1]) > TILT * length or thick > thin:
        return np.zeros_like(part)
    out = np.zeros_like(part)
    out[y[near], x[near]] = True
    return out


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
