"""Cells: upright lines part the numbers of a table or a puzzle, and tie the digits of a form's field together."""

from __future__ import annotations

import numpy as np

from netsuke.image.pieces import usual_height

POST, POSTS, CELL = 0.2, 4, 0.6  # widest bar between cells by its height; so many in a row; narrowest cell
ALIGNED, FAR = 0.06, 15.0  # of their height: how far they are out of line, and apart, at most
SIGN = 0.4  # of a bar's height: as high is a sign in a cell, at least
MOST = 0.5  # of the cells with signs that hold several: they are those of a table
WIDE = 1.9  # of the page's usual height: as wide are cells of a table with a single row
PAIRS = 3  # boxes of a field, at least, that stand apart
UNEVEN = 0.08  # of a cell: how far they are off even spacing, on average
POSTED = 2.6  # of the page's usual height: higher walls are no posts of a single field
ROOMY = 1.25  # of the page's usual height: a cell as wide holds a number of its own; of squared paper they are narrower
# Where walls are looked for, of a piece's height from its top: above it, beside it three times, and below it.
HEIGHTS = np.array([-0.8, 0.25, 0.5, 0.75, 1.8])
ON = 0.35  # of its height: how far a wall that leans may have moved there; the posts of a single field end before


def apart(stats: np.ndarray, walls: np.ndarray | None) -> np.ndarray:
    """Which pieces stand in different cells of `walls` bool [H, W], bool [n, n]: both cells are ROOMY, and their walls
    go on above or below, or they are WIDE."""
    if walls is None or not len(stats) or not walls.any():
        return np.zeros((len(stats), len(stats)), bool)
    x, y, w, h = (stats[:, k, None].astype(float) for k in range(4))
    middle = x + w / 2
    heights = zip(middle[:, 0], y + h * HEIGHTS, strict=True)
    ends = np.array([[_between(walls, x, y) for y in every] for x, every in heights])  # [n, HEIGHTS, 2]
    inside = np.median(ends[:, 1:-1], 1)
    with np.errstate(invalid="ignore"):  # infinity less infinity, where no wall stands
        on = np.abs(ends[:, [0, -1]] - inside[:, None]).min(1) < ON * h
    left, right = inside.T[..., None]
    usual, room = usual_height(h[:, 0]), right - left
    table = (on | np.isinf(inside)).all(1, keepdims=True) | (room > WIDE * usual)
    roomy = (room > ROOMY * usual) & table
    # [n, n]: the middle of the second lies behind the cell of the first, and that of the first before the second's
    beyond = (right < middle.T) & (middle < left.T)
    return (beyond | beyond.T) & roomy & roomy.T


def _between(walls: np.ndarray, x: float, y: float) -> tuple[float, float]:
    """The places of the walls to both sides of a point; infinite where none stands."""
    met = np.flatnonzero(walls[int(y)]) if 0 <= y < len(walls) else np.zeros(0)
    at = int(np.searchsorted(met, x))
    return (float(met[at - 1]) if at else -np.inf), (float(met[at]) if at < len(met) else np.inf)


def posts(stats: np.ndarray, walls: np.ndarray | None) -> np.ndarray:
    """Those of `walls`, bool [H, W], that stand between the cells of a single field, as pieces, int [n, 5]: higher than
    the signs of `stats`, and up to POSTED. Where ink broke one, over a sign's height at most, it is one."""
    import cv2

    if walls is None or not len(stats) or not walls.any():
        return np.zeros((0, 5), int)
    usual = usual_height(stats[:, 3])
    gap = round(usual)
    padded = np.pad(walls.view(np.uint8), ((gap, gap), (0, 0)))  # closing fills up to a border
    whole = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((gap | 1, 3), np.uint8))
    found = cv2.connectedComponentsWithStats(whole, connectivity=8)[2][1:].astype(int)
    found[:, 1] -= gap
    found = found[(found[:, 3] > usual) & (found[:, 3] < POSTED * usual)]
    return found[fences(found, stats)[1]]


def fences(stats: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pieces stand between cells, bool [n]: POSTS upright bars of one height or more in a row, evenly apart, or
    by whole multiples of that; and which of them stand in a field, of whose cells few hold several of `signs`, int
    [m, 5]."""
    x, y, w, h, _ = stats.T.astype(float)
    upright = np.flatnonzero(w < POST * h)
    upright = upright[np.argsort(x[upright], kind="stable")]
    every, single = np.zeros((2, len(stats)), bool)
    for i in upright:
        row = upright[alike(stats[upright], stats[i])]
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
