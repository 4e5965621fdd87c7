"""Ruled lines, grids and boxes: found as long straight runs, taken out without breaking the strokes that cross them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

RUN = 0.022  # of the image's longer side: shorter runs in one row of pixels are no part of a line
SHORTEST = 16  # pixels of such a run, at least
LONG = 3.5  # runs of a line, at least
BRIDGE = 7  # pixels along a line over which its contrast is averaged: the paper's grain breaks faint ones
FAINT = 0.7  # of what else counts as ink, after that
EDGE = 2  # pixels from both sides of the image: a line that ends there may be short for its thickness
WHOLE = 0.85  # share of a line's columns that runs cover
EVEN = 0.4  # of a line's median contrast: fainter columns of it are gaps
STRAIGHT = 1.0  # pixels beyond half its thickness that a line may stray from a parabola
VOTERS = 200  # pixels that vote for a line
SLOPES = np.linspace(-0.12, 0.12, 33)  # rises of a line by its length
THIN = 0.025  # of a line's length: its thickness, at most; touching digits make bars of a thirtieth
THIN_WHOLE = 0.035  # where it runs from side to side
THIN_FRAME = 0.08  # where it ends at lines across


def without_lines(contrast: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Contrast float32 [H, W] with the lines' pixels 0, but for those where a stroke crosses."""
    ink = (contrast > floor).astype(np.uint8)
    run = max(SHORTEST, round(RUN * max(ink.shape)))
    along, down = _Runs(contrast, floor, run), _Runs(contrast.T, floor.T, run)
    flat, upright = along.rules(), down.rules().T
    if flat.any():
        upright |= down.framed(flat.T).T
    if upright.any():
        flat |= along.framed(upright)
    if not (flat.any() or upright.any()):
        return contrast
    gone = _outside_strokes(ink, flat) | _outside_strokes(ink.T, upright.T).T
    return np.where(gone, 0, contrast)


class _Runs:
    """Long runs of ink in rows of pixels, and which of them go on from row to row and over gaps."""

    def __init__(self, contrast: np.ndarray, floor: np.ndarray, run: int):
        import cv2

        self.contrast, self.run = cv2.blur(np.ascontiguousarray(contrast), (BRIDGE, 1)), run
        ink = (self.contrast > FAINT * floor).astype(np.uint8)
        runs = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((1, run), np.uint8))
        joined = cv2.dilate(runs, np.ones((3, run // 2), np.uint8))
        count, label = cv2.connectedComponents(joined, connectivity=8)
        pixels = np.argwhere(runs)
        owner = label[pixels[:, 0], pixels[:, 1]]
        order = np.argsort(owner, kind="stable")
        cuts = np.searchsorted(owner[order], np.arange(1, count + 1))
        self.pieces = [pixels[order[a:b]] for a, b in pairwise(cuts)]  # of each piece (y, x), int [n, 2]

    def rules(self) -> np.ndarray:
        """Pixels of the flat lines, bool [H, W]: long ones, and those from one side of the image to the other."""
        last = self.contrast.shape[1] - 1 - EDGE

        def is_rule(line: np.ndarray) -> bool:
            whole = line[:, 1].min() <= EDGE and line[:, 1].max() >= last
            length = int(np.ptp(line[:, 1])) + 1
            thin = max(THIN_WHOLE * length, 3.5) if whole else THIN * length
            return (whole or length >= LONG * self.run) and _thickness(line) <= thin

        return self._chosen(min(LONG * self.run, last - EDGE), is_rule)

    def framed(self, across: np.ndarray) -> np.ndarray:
        """Pixels of the flat lines that end on both sides at lines `across`: of these a single run is enough."""
        import cv2

        frame = cv2.dilate(np.ascontiguousarray(across, np.uint8), np.ones((7, 7), np.uint8)) > 0

        def is_rule(line: np.ndarray) -> bool:
            ends = line[[line[:, 1].argmin(), line[:, 1].argmax()]]
            thin = max(THIN_FRAME * np.ptp(line[:, 1]), 3.5)
            return bool(frame[ends[:, 0], ends[:, 1]].all()) and _thickness(line) <= thin

        return self._chosen(self.run, is_rule, lambda piece: bool(frame[piece[:, 0], piece[:, 1]].any()))

    def _chosen(
        self,
        long: float,
        is_rule: Callable[[np.ndarray], bool],
        may_be: Callable[[np.ndarray], bool] = lambda piece: True,
    ) -> np.ndarray:
        """Pixels of the lines among the pieces of at least this length."""
        out: np.ndarray = np.zeros(self.contrast.shape, bool)
        for piece in self.pieces:
            if np.ptp(piece[:, 1]) + 1 < long or not may_be(piece):
                continue
            while len(near := _line(piece)):
                line = piece[near]
                if not (is_rule(line) and self._is_whole(line)):
                    break
                out[line[:, 0], line[:, 1]] = True
                piece = piece[~near]  # others may have been tied to it by strokes
        return out

    def _is_whole(self, line: np.ndarray) -> bool:
        """Whether a line has no gaps and is about as dark everywhere, unlike feet of digits in a row."""
        first = int(line[:, 1].min())
        darkest = np.zeros(int(np.ptp(line[:, 1])) + 1, np.float32)
        np.maximum.at(darkest, line[:, 1] - first, self.contrast[line[:, 0], line[:, 1]])
        return bool((darkest >= EVEN * np.median(darkest[darkest > 0])).mean() >= WHOLE)


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
    powers = np.stack([np.ones_like(x), x, x * x]) / np.array([[1], [scale := max(np.ptp(x), 1)], [scale**2]])
    for _ in range(2):
        if near.sum() < SHORTEST:
            return np.zeros(0, bool)
        some = powers[:, near]
        bend = np.linalg.solve(some @ some.T + 1e-6 * np.eye(3), some @ y[near])
        near = np.abs(y - bend @ powers) <= _thickness(part[near]) / 2 + STRAIGHT
    return near


def _columns(part: np.ndarray) -> int:
    """How many columns some pixels lie in."""
    return int(np.count_nonzero(np.bincount(part[:, 1])))


def _thickness(line: np.ndarray) -> float:
    """Pixels of a line (y, x; int [n, 2]) across."""
    return len(line) / _columns(line)


def _outside_strokes(ink: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Which pixels of flat lines to take: columns in which ink is no thicker than the line by much."""
    import cv2

    if not lines.any():
        return lines
    thick = _across(lines)
    near = (
        cv2.dilate(np.ascontiguousarray(lines, np.uint8), np.ones((3, 1), np.uint8)) > 0
    )  # its blurred edges
    near &= ink > 0
    long = cv2.morphologyEx(np.ascontiguousarray(ink), cv2.MORPH_OPEN, np.ones((thick + 2, 1), np.uint8)) > 0
    return near & ~long


def _across(lines: np.ndarray) -> int:
    """Pixels of the lines across, the median over their columns."""
    columns = lines.sum(0)
    starts = (lines[1:] & ~lines[:-1]).sum(0) + lines[0]
    return max(1, round(float(np.median(columns[starts > 0] / starts[starts > 0]))))
