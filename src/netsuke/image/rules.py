"""Ruled lines, grids and boxes: found as long straight runs, taken out without breaking the strokes that cross them.

Short lines stay, such as the bars between the cells of a form: stems of digits look the same, and what reads tells them
apart better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from netsuke.image.gathered import gathered, gathered_at
from netsuke.image.pieces import pieces
from netsuke.image.slope import moved, rise

RUN = 0.022  # of the image's longer side: shorter runs in one row of pixels are no part of a line
SHORTEST = 16  # pixels of such a run, at least
LONG = 5.0  # runs of a line, at least: the bars of 676 make one of three
BRIDGE = 7  # pixels along a line over which its contrast is averaged: the paper's grain breaks faint ones
FAINT = 0.85  # of what else counts as ink, after that
BLOT = 16  # pixels: what is so thick both ways is no line, and would tie all that end at it,
SURE = 20  # if it is as thick somewhere
FILLED = 0.4  # of its pixels, at least
STEP = 4  # pixels along a line of which one is looked at: a fourth of the shortest run
EDGE = 2  # pixels from both sides of the image: a line that ends there may be short for its thickness
WHOLE = 0.85  # share of a line's columns that runs cover
EVEN = 0.4  # of a line's median contrast: fainter columns of it are gaps
ROUGH = 0.5  # pixels that the middle of a line strays from a parabola, on average
STRAIGHT = 1.0  # pixels beyond half its thickness that a line may stray from a parabola
VOTERS = 200  # pixels that vote for a line
SLOPES = np.linspace(-0.12, 0.12, 33)  # rises of a line by its length
THICKEST = 24  # pixels to either side of a line that are looked at
BROAD = 4  # pixels of a line's runs from which ink is asked how broad it is
DARK = 2.0  # of the floor: ink that is darker counts as if it was not, else it would seem longer
SOFT = 6  # pixels of a line from which its blurred edges are two pixels broad
MORE = 4  # pixels that a line is thicker than its runs, at most
THIN = 0.025  # of a line's length: its thickness, at most; touching digits make bars of a thirtieth
THIN_WHOLE = 0.035  # where it runs from side to side
THIN_CORNERS = 0.045  # where it ends in corners on both sides


@dataclass(frozen=True, eq=False)
class Unruled:
    """`contrast` uint8 [H, W] with the lines' pixels 0, but for those where a stroke crosses; bool [H, W] where
    `upright` lines and where `broad` ones were: what is left beside these is as dark as they; and `blots`, what is too
    thick for strokes, uint8 [H, W] of 0 and 1."""

    contrast: np.ndarray
    upright: np.ndarray
    broad: np.ndarray
    blots: np.ndarray


def without_lines(contrast: np.ndarray, floor: np.ndarray) -> Unruled:
    """Contrast uint8 [H, W] without its lines; `floor` uint8 [H, W] is that up to which a pixel is paper."""
    import cv2

    ink = (contrast > floor).view(np.uint8)
    run = max(SHORTEST, round(RUN * max(ink.shape)))
    blots = _blots(ink, LONG * run)
    parts = contrast, floor, blots
    ways = [_Way.of(parts, run), _Way.of([cv2.transpose(part) for part in parts], run)]
    seen = [way.back(way.runs.runs) for way in ways]
    gone, flat = ways[0].rules(_near(cv2.transpose(seen[1])).view(np.uint8))
    beside, upright = map(cv2.transpose, ways[1].rules(_near(cv2.transpose(seen[0])).view(np.uint8)))
    if not (flat.any() or upright.any()):
        none = np.zeros(gone.shape, bool)
        return Unruled(contrast, none, none, blots)
    gone |= beside
    # crossings: for either line the other is a stroke
    gone |= (_near(flat, 1) & _near(upright, 1)).view(np.uint8)
    broad = np.maximum(flat, upright)
    beside_broad = _near((broad >= BROAD).view(np.uint8), int(broad.max()) // 2 + 1)
    return Unruled(contrast * (1 - gone), upright > 0, beside_broad, blots)


@dataclass(frozen=True, eq=False)
class _Way:
    """An image whose lines are flat: each column is moved, by whole pixels, until what rises by `slope` does not."""

    runs: _Runs
    slope: float
    high: int  # of the image

    @classmethod
    def of(cls, parts: Sequence[np.ndarray], run: int) -> _Way:
        """Of contrast, floor and blots."""
        import cv2

        contrast, floor, blots = parts
        ink, high = (contrast > floor).view(np.uint8), len(contrast)
        slope = rise(cv2.subtract(ink, blots))
        if slope:
            contrast, floor, blots = (moved(part, slope) for part in (contrast, floor, blots))
            ink = (contrast > floor).view(np.uint8)
        return cls(_Runs(ink, contrast, floor, blots, run), slope, high)

    def back(self, part: np.ndarray) -> np.ndarray:
        """What was found there in its place in the image."""
        return moved(part, -self.slope, self.high)

    def rules(self, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which pixels of flat lines go, and the lines with their thickness, uint8 [H, W] of the image; `corners` are
        of the image, too."""
        lines = self.runs.rules(moved(corners, self.slope) > 0)
        return self.back(_outside_strokes(self.runs.ink, lines, 1 if self.slope else 0)), self.back(lines)


def _blots(ink: np.ndarray, long: float) -> np.ndarray:
    """Ink that is thick both ways and as long as lines, uint8 [H, W]: a desk's edge, to which all lines are tied."""
    import cv2

    tiny = max(1, ink.shape[1] // STEP), max(1, ink.shape[0] // STEP)
    solid = cv2.threshold(cv2.resize(ink * 255, tiny, interpolation=cv2.INTER_AREA), 255 * FILLED, 1, 0)[1]
    thick = cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((BLOT // STEP, BLOT // STEP), np.uint8))
    label, stats = pieces(thick)
    sure = cv2.erode(thick, np.ones((SURE // STEP, SURE // STEP), np.uint8))
    core = np.bincount(label[sure > 0], minlength=len(stats) + 1)[1:] > 0
    chosen = np.concatenate([[0], (stats[:, 2:4].max(1) * STEP >= long) & core]).astype(np.uint8)
    coarse = cv2.resize(chosen[label], ink.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return cv2.dilate(coarse, np.ones((3 + 2 * STEP, 3 + 2 * STEP), np.uint8))


@dataclass(frozen=True, eq=False)
class _Lines:
    """Points (y, x) of lines, in the order of y, of each its line's number, `owner`, from 0 to `count` - 1."""

    y: np.ndarray
    x: np.ndarray
    owner: np.ndarray
    count: int

    def of(self, value: np.ndarray) -> np.ndarray:
        """Sums over the points of each line."""
        return np.bincount(self.owner, value, self.count)

    def only(self, chosen: np.ndarray) -> _Lines:
        """Some points, bool [n]."""
        return _Lines(self.y[chosen], self.x[chosen], self.owner[chosen], self.count)

    def these(self, chosen: np.ndarray) -> _Lines:
        """Some lines, bool [count], numbered anew."""
        part = chosen[self.owner]
        number = np.cumsum(chosen) - 1
        return _Lines(self.y[part], self.x[part], number[self.owner[part]], int(chosen.sum()))

    @cached_property
    def points(self) -> np.ndarray:
        """How many each line has."""
        return np.bincount(self.owner, minlength=self.count)

    @cached_property
    def ends(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """The leftmost and the rightmost point of each line; (0, 0) where it has none."""
        order = np.argsort(self.x.astype(np.uint16), kind="stable")  # of short integers by radix
        out = []
        for way in (order[::-1], order):  # the last that is written stays
            y, x = np.zeros(self.count, np.intp), np.zeros(self.count, np.intp)
            y[self.owner[way]], x[self.owner[way]] = self.y[way], self.x[way]
            out.append((y, x))
        return out[0], out[1]

    @property
    def length(self) -> np.ndarray:
        """Pixels from end to end."""
        left, right = self.ends
        return right[1] - left[1] + STEP

    @cached_property
    def columns(self) -> tuple[np.ndarray, np.ndarray]:
        """How many points each line has in each column [count, W / STEP], and the sums of their y."""
        wide = (int(self.x.max(initial=EDGE)) - EDGE) // STEP + 1
        place = self.owner * wide + (self.x - EDGE) // STEP
        sums = [np.bincount(place, weight, self.count * wide) for weight in (None, self.y)]
        return sums[0].reshape(-1, wide), sums[1].reshape(-1, wide)

    @cached_property
    def thickness(self) -> np.ndarray:
        """Pixels across each line; 0 where it has no point."""
        return self.points / np.maximum(np.count_nonzero(self.columns[0], 1), 1)

    def strayed(self) -> np.ndarray:
        """How far each point lies from the parabola of least squares through its line."""
        return np.abs(self.y - _parabolas(self.x, self.y, self.owner, self.count))


class _Runs:
    """Long runs of ink in rows of pixels, and which of them go on from row to row and over gaps."""

    def __init__(self, ink: np.ndarray, contrast: np.ndarray, floor: np.ndarray, blots: np.ndarray, run: int):
        import cv2

        self.run, self.ink, self.contrast = run, ink, contrast
        grey = cv2.min(contrast, cv2.convertScaleAbs(floor, alpha=DARK))
        grey = gathered(cv2.boxFilter(grey, cv2.CV_16U, (BRIDGE, 1), normalize=False))
        faint = floor * np.uint16(round(FAINT * BRIDGE))
        bridged = (grey > faint).view(np.uint8)
        runs = cv2.morphologyEx(bridged, cv2.MORPH_OPEN, np.ones((1, run), np.uint8))
        self.runs = runs = cv2.subtract(runs, blots)
        joined = cv2.dilate(runs, np.ones((3, run // 2), np.uint8))
        count, label = cv2.connectedComponents(joined, connectivity=8)
        looked = np.arange(EDGE, runs.shape[1] - EDGE, STEP)
        some = runs[:, EDGE:-EDGE:STEP] > 0  # thrice as fast as of bytes
        looked[-1:] = runs.shape[1] - 1 - EDGE
        some[:, -1:] = runs[:, looked[-1:]] > 0
        y, k = np.nonzero(some)
        self.pieces = _Lines(y, looked[k], label[y, looked[k]] - 1, count - 1)

    def rules(self, corners: np.ndarray) -> np.ndarray:
        """The flat lines, with their thickness in pixels, uint8 [H, W]: long ones, and those from side to side.

        They may be thicker where both ends lie in `corners`, bool [H, W]: at upright runs.
        """
        import cv2

        last = self.contrast.shape[1] - 1 - EDGE

        def are_rules(lines: _Lines) -> np.ndarray:
            left, right = lines.ends
            whole = (left[1] <= EDGE) & (right[1] >= last)
            share = np.where(corners[left] & corners[right], THIN_CORNERS, np.where(whole, THIN_WHOLE, THIN))
            thin = lines.thickness <= np.maximum(share * lines.length, np.where(whole, 3.5, 0))
            return thin & (whole | (lines.length >= LONG * self.run))

        out: np.ndarray = np.zeros(self.contrast.shape, np.uint8)
        pieces, long = self.pieces, min(LONG * self.run, last - EDGE)
        while True:
            pieces = pieces.these(pieces.length >= long)
            if not pieces.count:
                break
            near = _on_lines(pieces)
            lines = pieces.only(near)
            good = are_rules(lines) & (lines.points > 0)
            good[good] = self._are_whole(lines.these(good))
            taken = good[lines.owner]
            out[lines.y[taken], lines.x[taken]] = self._thick(lines)[lines.owner[taken]]
            pieces = pieces.only(~near).these(good)  # others may have been tied to it by strokes
        return cv2.dilate(out, np.ones((1, 2 * STEP - 1), np.uint8)) * self.runs

    @cached_property
    def summed(self) -> np.ndarray:
        """Contrast along BRIDGE pixels of each row, uint16 [H, W]."""
        import cv2

        return cv2.boxFilter(self.contrast, cv2.CV_16U, (BRIDGE, 1), normalize=False)

    def _thick(self, lines: _Lines) -> np.ndarray:
        """Pixels of ink across each line where nothing crosses it, its blurred edges and all: runs are narrower."""
        runs = np.maximum(1, np.rint(lines.thickness))
        number, down = lines.columns
        owner, column = np.nonzero(number * (runs >= BROAD)[:, None])
        y = np.rint(down[owner, column] / number[owner, column]).astype(np.intp)
        x = np.minimum(column * STEP + EDGE, self.ink.shape[1] - 1)
        across = np.zeros(number.shape, np.intp)
        for way in (-1, 1):
            inked = np.ones(len(y), bool)
            for far in range(THICKEST):
                at = y + way * far
                inked &= (at >= 0) & (at < len(self.ink))
                inked[inked] = self.ink[at[inked], x[inked]] > 0
                across[owner[inked], column[inked]] += 1
        covered = np.count_nonzero(across, 1)
        ordered = np.sort(across, 1)
        middle = ordered[np.arange(lines.count), len(ordered[0]) - 1 - covered // 2]
        # both ways count the middle
        return np.where(covered > 0, np.clip(middle - 1, runs, runs + MORE), runs)

    def _are_whole(self, lines: _Lines) -> np.ndarray:
        """Whether lines have no gaps, are about as dark everywhere and smooth, unlike feet of digits in a row."""
        number, down = lines.columns
        darkest = np.zeros_like(number, np.uint16)
        column = (lines.x - EDGE) // STEP
        np.maximum.at(darkest, (lines.owner, column), gathered_at(self.summed, lines.y, lines.x))
        covered = np.count_nonzero(number, 1)
        middle = darkest.shape[1] - 1 - covered // 2
        median = np.sort(darkest, 1)[np.arange(lines.count), middle][:, None]
        even = np.count_nonzero((darkest >= EVEN * median) & (number > 0), 1) >= WHOLE * lines.length / STEP
        owner, x = np.nonzero(number)
        y = down[owner, x] / number[owner, x]
        rough = _Lines(y, x, owner, lines.count)
        return even & (rough.of(rough.strayed()) <= ROUGH * np.maximum(covered, 1))


def _on_lines(pieces: _Lines) -> np.ndarray:
    """Which points lie on the longest line of their piece, bool [n]; none of a piece without one.

    A straight piece is one line. In another, the slope and place that most points agree on (a Hough transform), then
    a parabola through those: paper bends.
    """
    near = pieces.strayed() <= _tolerance(pieces)[pieces.owner]
    tangled = pieces.of(~near) > 0
    part = tangled[pieces.owner]
    if part.any():
        near[part] = _longest(pieces.these(tangled))
    return near


def _longest(pieces: _Lines) -> np.ndarray:
    """The same for pieces that are not straight."""
    order = np.argsort(pieces.owner, kind="stable")
    cuts = np.searchsorted(pieces.owner[order], np.arange(pieces.count + 1))
    # each column weighs 1: thick ink does not outvote a line
    weight = 1 / pieces.columns[0][pieces.owner, (pieces.x - EDGE) // STEP]
    near = np.zeros(len(order), bool)
    for a, b in pairwise(cuts):
        piece = order[a:b]
        near[piece] = _voted(pieces.y[piece], pieces.x[piece], weight[piece])
    for _ in range(4):
        lines = pieces.only(near)
        near = np.abs(
            pieces.y - _parabolas(lines.x, lines.y, lines.owner, lines.count, pieces)
        ) <= _tolerance(lines)[pieces.owner]  # fmt: skip
        near &= (lines.points >= SHORTEST // STEP)[pieces.owner]
    return near


def _tolerance(lines: _Lines) -> np.ndarray:
    """Pixels by which the points of each line may stray."""
    return lines.thickness / 2 + STRAIGHT


def _voted(y: np.ndarray, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Which points lie on the line that most agree on, by weight, bool [n]."""
    few = slice(None, None, 1 + len(x) // VOTERS)
    place = np.rint(y[few] - SLOPES[:, None] * (x[few] - x[0])).astype(np.intp)
    low = int(place.min()) - 1
    place -= low
    size = int(place.max()) + 2
    place += size * np.arange(len(SLOPES))[:, None]
    votes = np.bincount(place.ravel(), np.tile(weight[few], len(SLOPES)), size * len(SLOPES))
    votes[1:-1] = votes[:-2] + votes[1:-1] + votes[2:]  # a line is three pixels thick
    k, row = divmod(int(votes.argmax()), size)
    return np.abs(y - SLOPES[k] * (x - x[0]) - row - low) <= 2


def _parabolas(
    x: np.ndarray, y: np.ndarray, owner: np.ndarray, count: int, at: _Lines | None = None
) -> np.ndarray:
    """Of each line the parabola of least squares through its points, at these or at the points `at`."""
    number = np.maximum(np.bincount(owner, minlength=count), 1)
    middle = np.bincount(owner, x, count) / number
    t = x - middle[owner]
    scale = np.maximum(np.sqrt(3 * np.bincount(owner, t * t, count) / number), 1.0)
    height = np.bincount(owner, y, count) / number  # small numbers, for the sake of precision
    t, y = t / scale[owner], y - height[owner]
    powers = [np.ones_like(t), t, t * t]
    powers += [powers[2] * t, powers[2] * powers[2]]
    sums = [np.bincount(owner, power, count) for power in powers]
    normal = np.stack([np.stack([sums[i + k] for k in range(3)], -1) for i in range(3)], -1)
    right = np.stack([np.bincount(owner, power * y, count) for power in powers[:3]], -1)
    part = np.linalg.solve(normal + 1e-6 * np.eye(3), right[..., None])[..., 0]
    if at is not None:
        owner, t = at.owner, (at.x - middle[at.owner]) / scale[at.owner]
    a, b, c = part.T
    return a[owner] + (b[owner] + c[owner] * t) * t + height[owner]


def _near(lines: np.ndarray, reach: int = 5) -> np.ndarray:
    """Where a line is at most `reach` pixels away, bool [H, W]."""
    import cv2

    return cv2.dilate(lines, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0


def _outside_strokes(ink: np.ndarray, lines: np.ndarray, more: int) -> np.ndarray:
    """Which pixels of flat lines to take, uint8 [H, W]: where ink is no thicker than the line by much.

    `lines` uint8 [H, W] holds the thickness of each line in pixels; it may be thicker by `more`.
    """
    import cv2

    gone: np.ndarray = np.zeros(ink.shape, np.uint8)
    for thick in range(1, int(cv2.minMaxLoc(lines)[1]) + 1):
        own = cv2.inRange(lines, thick, thick)
        if not cv2.countNonZero(own):
            continue
        edges = 1 + more + (thick >= SOFT)
        near = cv2.dilate(own, np.ones((1 + 2 * edges, 1), np.uint8))
        window = np.ones((thick + 2 + more, 1), np.uint8)
        thicker = cv2.erode(ink, window, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        gone |= near & (ink ^ cv2.dilate(thicker, window))
    return gone
