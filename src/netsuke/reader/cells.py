"""Cells: upright lines part the numbers of a table or a puzzle, and tie the digits of a form's field together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.image.pieces import pieces, usual_height

POST, POSTS, CELL = 0.2, 4, 0.6  # widest bar between cells by its height; so many in a row; narrowest cell
ALIGNED, FAR = 0.06, 15.0  # of their height: how far they are out of line, and apart, at most
SIGN = 0.4  # of a bar's height: as high is a sign in a cell, at least
MOST = 0.5  # of the cells with signs that hold several: they are those of a table
WIDE = 1.9  # of the page's usual height: as wide are cells of a table with a single row
PAIRS = 3  # boxes of a field, at least, that stand apart
UNEVEN = 0.08  # of a cell: how far they are off even spacing, on average
POSTED = 2.6  # of the page's usual height: higher walls are no posts of a single field
ROOMY = 1.25  # of the page's usual height: a cell as wide holds a number of its own; of squared paper they are narrower
LARGEST = 10  # lines of a puzzle, at most
APART = 1.5  # cells between two lines, from which they are of two grids
RIM = 0.2  # of a cell: how much more or less lies between a puzzle's last line and the image's edge
GRID, ALIKE = 4, 0.12  # cells to each side of a puzzle, at least; logarithm of its sides' ratio, at most
OFF = 0.3  # of a puzzle's cell: where one is so much wider, a line was not found
AMID, HIGH = (
    0.25,
    0.35,
)  # of a puzzle's cell: how far from its sides, and how high, signs are that stand amid it
WITHIN = np.array([0.25, 0.5, 0.75])  # of a piece's height: where the walls of its cell are looked for
BEYOND = 0.8  # of its height: a wall that goes on reaches as far above or below it; posts of a single field end before


@dataclass(frozen=True, eq=False)
class Walls:
    """Upright lines: bool [H, W] where they are, the number of each pixel's, int32 [H, W], and as `pieces` tells them,
    int [m, 5]."""

    mask: np.ndarray
    label: np.ndarray
    stats: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray | None) -> Walls | None:
        """None where there are none."""
        return cls(mask, *pieces(mask)) if mask is not None and mask.any() else None

    @property
    def ends(self) -> np.ndarray:
        """The first and last row of each line by its number, int [m + 1, 2]; 0 is no line."""
        top, high = self.stats[:, 1], self.stats[:, 3]
        return np.concatenate([[(len(self.mask), 0)], np.stack([top, top + high], 1)])


def apart(stats: np.ndarray, walls: Walls | None) -> tuple[np.ndarray, np.ndarray]:
    """Which pieces stand in different cells of `walls`, bool [n, n]: both cells are ROOMY, and their walls go on above
    or below, or they are WIDE. In a puzzle every cell is. And which stand amid a cell of a puzzle, and are as high as
    signs are there, bool [n]."""
    if walls is None or not len(stats):
        return np.zeros((len(stats), len(stats)), bool), np.zeros(len(stats), bool)
    x, y, w, h = (stats[:, k, None].astype(float) for k in range(4))
    usual, middle = usual_height(h[:, 0]), x + w / 2
    label, ends = walls.label, walls.ends
    heights = zip(middle[:, 0], y + h * WITHIN, strict=True)
    beside = np.array([[_between(label, x, y) for y in every] for x, every in heights])  # [n, WITHIN, 2, 2]
    places = np.median(beside[..., 0], 1)  # [n, 2]
    own = ends[beside[..., 1].astype(int)]  # [n, WITHIN, 2, 2]
    top, foot = own[..., 0].min(1), own[..., 1].max(1)
    on = (top < y - BEYOND * h) | (foot > y + (1 + BEYOND) * h)
    left, right = places.T[..., None]
    room = right - left
    cell = _in_puzzle(label, ends, y + h / 2, middle)
    puzzle = cell > 0
    table = (on | np.isinf(places)).all(1, keepdims=True) | (room > WIDE * usual)
    roomy = puzzle | ((room > ROOMY * usual) & table)
    # [n, n]: the middle of the second lies behind the cell of the first, and that of the first before the second's
    past = (right < middle.T) & (middle < left.T)
    amid = (
        puzzle
        & (np.abs(room - cell) < OFF * cell)
        & (np.minimum(middle - left, right - middle) > AMID * cell)
    )
    amid &= h > HIGH * cell
    return (past | past.T) & roomy & roomy.T, amid[:, 0]


def _in_puzzle(label: np.ndarray, ends: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The cells' width of the square grid, of as many cells to each side, in which points lie, float [n, 1] all three;
    0 where they lie in none. Its lines are evenly apart, and as high as all of them are wide. If they are many, it is
    squared paper.
    """
    out = np.zeros(len(down))
    for i, (y, x) in enumerate(zip(down[:, 0].astype(int), across[:, 0], strict=True)):
        row = label[min(y, len(label) - 1)]
        lines = np.flatnonzero((row[1:] > 0) & (row[1:] != row[:-1])) + 1
        if len(lines) < GRID:
            continue
        cell = float(np.sort(np.diff(lines))[(len(lines) - 1) // 2])
        # a picture cut at the outer lines may lack them
        edges = [
            at for at, last in ((0, lines[0]), (len(row), lines[-1])) if abs(abs(at - last) / cell - 1) < RIM
        ]
        for more in ([], *([edge] for edge in edges), *([edges] if len(edges) > 1 else [])):
            every = np.sort(np.append(lines, more))
            grids = np.split(every, np.flatnonzero(np.diff(every) > APART * cell) + 1)
            own = next((grid for grid in grids if grid[0] < x < grid[-1]), every[:0])
            if GRID < len(own) <= LARGEST and np.abs(np.diff(own) / cell - 1).mean() < UNEVEN:
                top, foot = np.median(ends[row[lines]], 0)
                if abs(np.log((foot - top) / (own[-1] - own[0]))) < ALIKE:
                    out[i] = cell
                    break
    return out[:, None]


def _between(label: np.ndarray, x: float, y: float) -> tuple[tuple[float, int], tuple[float, int]]:
    """The places of the lines to both sides of a point, infinite where none stands, and their numbers."""
    row = label[int(y)] if 0 <= y < len(label) else label[:0].ravel()
    met = np.flatnonzero(row > 0)
    at = int(np.searchsorted(met, x))
    left = (float(met[at - 1]), int(row[met[at - 1]])) if at else (-np.inf, 0)
    right = (float(met[at]), int(row[met[at]])) if at < len(met) else (np.inf, 0)
    return left, right


def posts(stats: np.ndarray, walls: Walls | None) -> np.ndarray:
    """Those of `walls` that stand between the cells of a single field, as pieces, int [n, 5]: higher than the signs of
    `stats`, and up to POSTED. Where ink broke one, over a sign's height at most, it is one."""
    found = np.zeros((0, 5), int)
    if walls is None or not len(stats):
        return found
    usual = usual_height(stats[:, 3])
    if (walls.stats[:, 3] < POSTED * usual).sum() < POSTS:
        return found
    for some in (
        walls.stats,
        _closed(walls.mask, round(usual)),
    ):  # closed, fields below each other may be one
        more = some[(some[:, 3] > usual) & (some[:, 3] < POSTED * usual)]
        more = more[fences(more, stats)[1]]
        found = np.concatenate([found, more[~_covered(more, found)]])
    return found


def _closed(mask: np.ndarray, gap: int) -> np.ndarray:
    """Upright lines without gaps of so many rows, as pieces."""
    import cv2

    padded = np.pad(mask.view(np.uint8), ((gap, gap), (0, 0)))  # closing fills up to a border
    whole = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((gap | 1, 3), np.uint8))
    return pieces(whole)[1] - [0, gap, 0, 0, 0]


def _covered(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which pieces, int [n, 5], share rows and columns with one of others: bool [n]."""
    x, y, w, h, _ = (some[:, k, None] for k in range(5))
    left, top, wide, high, _ = others.T
    return ((left < x + w) & (left + wide > x) & (top < y + h) & (top + high > y)).any(1)


def fences(
    stats: np.ndarray, signs: np.ndarray, apart: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Which pieces stand between cells, bool [n]: POSTS upright bars of one height or more in a row, evenly apart, or
    by whole multiples of that; and which of them stand in a field, of whose cells few hold several of `signs`, int
    [m, 5]. Those that are `apart`, bool [n, n], stand in cells of a table each."""
    x, y, w, h, _ = stats.T.astype(float)
    upright = np.flatnonzero(w < POST * h)
    upright = upright[np.argsort(x[upright], kind="stable")]
    every, single = np.zeros((2, len(stats)), bool)
    for i in upright:
        near = alike(stats[upright], stats[i])
        row = upright[near if apart is None else near & ~apart[i, upright]]
        places = x[row] + w[row] / 2
        every[i] = len(row) >= POSTS and even(places, h[i])
        single[i] = every[i] and _are_single(places, y[i], y[i] + h[i], signs)
    return every, single


def alike(bars: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Which bars, int [n, 5], stand in one's row and are as high: bool [n]."""
    x, y, _, h, _ = bars.T.astype(float)
    off = np.abs(x - one[0])
    level = ALIGNED * (one[3] + off)
    return (np.abs(h - one[3]) < level) & (np.abs(y - one[1]) < level) & (off < FAR * one[3])


def _are_single(places: np.ndarray, top: float, foot: float, signs: np.ndarray) -> bool:
    """Whether most cells between bars at `places` that hold signs hold one."""
    x, y, w, h, _ = signs.T.astype(float)
    own = (y + h / 2 > top) & (y + h / 2 < foot) & (w > POST * h) & (h > SIGN * (foot - top))
    held = np.bincount(np.searchsorted(places, (x + w / 2)[own]), minlength=len(places) + 1)[1:-1]
    return bool((held > 1).sum() <= MOST * (held > 0).sum())


def even(places: np.ndarray, height: float) -> bool:
    """Whether bars of a height stand evenly apart at these places, float [n] from the left, or by pairs as the sides of
    single boxes do; some may be missing."""

    def one(some: np.ndarray) -> bool:
        gaps = np.diff(some)
        cell = np.median(gaps)
        return bool(cell > CELL * height and np.mean(np.abs(gaps / cell - np.rint(gaps / cell))) < UNEVEN)

    return one(places) or (len(places) >= 2 * PAIRS and one(places[::2]) and one(places[1::2]))
