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
ROUGH = 0.5  # pixels that the middle of a line strays from a parabola, on average
STRAIGHT = 1.0  # pixels beyond half its thickness that a line may stray from a parabola
VOTERS = 200  # pixels that vote for a line
SLOPES = np.linspace(-0.12, 0.12, 33)  # rises of a line by its length
THIN = 0.025  # of a line's length: its thickness, at most; touching digits make bars of a thirtieth
THIN_WHOLE = 0.035  # where it runs from side to side
THIN_CORNERS = 0.045  # where it ends in corners on both sides
ALIKE = 0.25  # by how much, as a share, lines of one frame differ in thickness


def without_lines(contrast: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Contrast float32 [H, W] with the lines' pixels 0, but for those where a stroke crosses."""
    ink = (contrast > floor).astype(np.uint8)
    run = max(SHORTEST, round(RUN * max(ink.shape)))
    along, down = _Runs(contrast, floor, run), _Runs(contrast.T, floor.T, run)
    flat, upright = along.rules(_near(down.runs.T)), down.rules(_near(along.runs.T)).T
    if flat.any():
        upright = np.maximum(upright, down.framed(flat.T).T)
    if upright.any():
        flat = np.maximum(flat, along.framed(upright))
    if not (flat.any() or upright.any()):
        return contrast
    gone = _outside_strokes(ink, flat) | _outside_strokes(ink.T, upright.T).T
    gone |= _near(flat, 1) & _near(upright, 1)  # crossings: for either line the other is a stroke
    return np.where(gone, 0, contrast)


class _Runs:
    """Long runs of ink in rows of pixels, and which of them go on from row to row and over gaps."""

    def __init__(self, contrast: np.ndarray, floor: np.ndarray, run: int):
        import cv2

        self.contrast, self.run = cv2.blur(np.ascontiguousarray(contrast), (BRIDGE, 1)), run
        ink = (self.contrast > FAINT * floor).astype(np.uint8)
        self.runs = runs = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((1, run), np.uint8))
        joined = cv2.dilate(runs, np.ones((3, run // 2), np.uint8))
        count, label = cv2.connectedComponents(joined, connectivity=8)
        pixels = np.argwhere(runs)
        owner = label[pixels[:, 0], pixels[:, 1]]
        order = np.argsort(owner, kind="stable")
        cuts = np.searchsorted(owner[order], np.arange(1, count + 1))
        self.pieces = [pixels[order[a:b]] for a, b in pairwise(cuts)]  # of each piece (y, x), int [n, 2]

    def rules(self, corners: np.ndarray) -> np.ndarray:
        """The flat lines: long ones, and those from one side of the image to the other.

        They may be thicker where both ends lie in `corners`, bool [H, W]: at upright runs.
        """
        last = self.contrast.shape[1] - 1 - EDGE

        def is_rule(line: np.ndarray) -> bool:
            whole = line[:, 1].min() <= EDGE and line[:, 1].max() >= last
            length = int(np.ptp(line[:, 1])) + 1
            if not whole and length < LONG * self.run:
                return False
            share = THIN_CORNERS if _ends_in(line, corners) else THIN_WHOLE if whole else THIN
            return _thickness(line) <= max(share * length, 3.5 if whole else 0)

        return self._chosen(min(LONG * self.run, last - EDGE), is_rule)

    def framed(self, across: np.ndarray) -> np.ndarray:
        """The flat lines that end on both sides at lines `across`: of these a single run is enough.

        They must be as thick and as dark as those, since a pen, too, may go from line to line.
        """
        import cv2

        across = np.ascontiguousarray(across)
        frame, window = _near(across), np.ones((11, 11), np.uint8)
        thick = cv2.dilate(across, window)
        dark = cv2.dilate(np.where(across > 0, self.contrast, 0), window)

        def is_rule(line: np.ndarray) -> bool:
            if not _ends_in(line, frame):
                return False
            ends = tuple(line[[line[:, 1].argmin(), line[:, 1].argmax()]].T)
            like = thick[ends].mean(), dark[ends].mean()
            own = _thickness(line), float(np.median(self.contrast[line[:, 0], line[:, 1]]))
            return (
                abs(own[0] - like[0]) <= 1 + ALIKE * like[0]
                and (1 - 2 * ALIKE) * like[1] <= own[1] <= 1.2 * like[1]
            )

        return self._chosen(self.run, is_rule, lambda piece: bool(frame[piece[:, 0], piece[:, 1]].any()))

    def _chosen(
        self,
        long: float,
        is_rule: Callable[[np.ndarray], bool],
        may_be: Callable[[np.ndarray], bool] = lambda piece: True,
    ) -> np.ndarray:
        """Thickness in pixels where a line is, uint8 [H, W]: of the lines among the pieces of at least this length."""
        out: np.ndarray = np.zeros(self.contrast.shape, np.uint8)
        for piece in self.pieces:
            if np.ptp(piece[:, 1]) + 1 < long or not may_be(piece):
                continue
            while len(near := _line(piece)):
                line = piece[near]
                if not (is_rule(line) and self._is_whole(line)):
                    break
                out[line[:, 0], line[:, 1]] = max(1, round(_thickness(line)))
                piece = piece[~near]  # others may have been tied to it by strokes
        return out

    def _is_whole(self, line: np.ndarray) -> bool:
        """Whether a line has no gaps, is about as dark everywhere and smooth, unlike feet of digits in a row."""
        column = line[:, 1] - line[:, 1].min()
        darkest = np.zeros(int(column.max()) + 1, np.float32)
        np.maximum.at(darkest, column, self.contrast[line[:, 0], line[:, 1]])
        if (darkest >= EVEN * np.median(darkest[darkest > 0])).mean() < WHOLE:
            return False
        count = np.bincount(column)
        at = np.flatnonzero(count)
        middle = np.bincount(column, line[:, 0])[at] / count[at]
        return float(np.abs(middle - _parabola(at, middle, at)).mean()) <= ROUGH


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
        near = np.abs(y - _parabola(x[near], y[near], x)) <= _thickness(part[near]) / 2 + STRAIGHT
    return near


def _parabola(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The parabola of least squares through some points, at the places `at`."""
    middle, scale = x.mean(), max(float(np.ptp(x)), 1.0)
    some, all_ = (np.vander((v - middle) / scale, 3) for v in (x, at))
    return all_ @ np.linalg.solve(some.T @ some + 1e-6 * np.eye(3), some.T @ y)


def _near(lines: np.ndarray, reach: int = 5) -> np.ndarray:
    """Where a line is at most `reach` pixels away, bool [H, W]."""
    import cv2

    return cv2.dilate(np.ascontiguousarray(lines), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0


def _ends_in(line: np.ndarray, place: np.ndarray) -> bool:
    """Whether both ends of a line (y, x; int [n, 2]) lie in a place, bool [H, W]."""
    ends = line[[line[:, 1].argmin(), line[:, 1].argmax()]]
    return bool(place[ends[:, 0], ends[:, 1]].all())


def _columns(part: np.ndarray) -> int:
    """How many columns some pixels lie in."""
    return int(np.count_nonzero(np.bincount(part[:, 1])))


def _thickness(line: np.ndarray) -> float:
    """Pixels of a line (y, x; int [n, 2]) across."""
    return len(line) / _columns(line)


def _outside_strokes(ink: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Which pixels of flat lines to take, bool [H, W]: where ink is no thicker than the line by much.

    `lines` uint8 [H, W] holds the thickness of each line in pixels.
    """
    import cv2

    ink, lines = np.ascontiguousarray(ink), np.ascontiguousarray(lines)
    gone: np.ndarray = np.zeros(ink.shape, bool)
    for thick in np.unique(lines[lines > 0]):
        near = (
            cv2.dilate((lines == thick).astype(np.uint8), np.ones((3, 1), np.uint8)) & ink
        )  # and its blurred edges
        gone |= near > cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((int(thick) + 2, 1), np.uint8))
    return gone
