"""Drawings among a page's pieces of ink: frames, stamps, bars, slashes and what is left of lines. They are no signs."""

from __future__ import annotations

import numpy as np

from netsuke.image.pieces import usual_height

SLENDER = 0.35  # of its height: the widest upright stroke
PATH = 2.5  # heights: how long the strokes of most signs are
OUTSIZED = 2.5  # of the page's usual height: larger both ways and hollow is a stamp or a frame, if signs stand within
ALIKE = 0.4  # height of the smaller of two neighbours as a share of the larger
BAR = 7  # widths of what is a bar
LONGEST = 1.8  # of the median height of the page's signs: a longer bar is none of them
HAIR, FEW = 0.5, 6  # of the width of strokes that is none, and of how many signs that is told
LEANING = 0.28, 1.0  # widths of a slash, by its height
SLIM = 0.5  # of its box that its ink covers, at most
BENT = 0.1  # of its width by which it strays from straight, at most
TALLER, NEXT = 1.25, 1.6  # its height by that of what stands beside it; how far off that is, at most
VAST = 4.5  # of it: so large it is one in any case
PLAIN = 0.4  # of the usual height of what holds nothing: lower is no sign
TOWERING = 4.0  # of it: higher and hollow is what is left of a frame, whatever its width
HELD = 0.3  # of a frame's height: what it holds is as high, at least
FULL = 0.4  # of a frame's box that its ink covers, at most
RIM, ASTRAY = 0.15, 0.1  # of a frame's shorter side: how far in its ink lies, but for such a share
GAPS = 0.08  # of a frame's height: where it is broken
SOLID = 0.8  # of a piece's box that its ink covers: remains of lines are as full as that, and signs are not
HOLLOW = 0.2  # of a piece's box that its ink covers


def within(stats: np.ndarray) -> np.ndarray:
    """Which pieces lie in the box of which: bool [n holders, n]."""
    x, y, w, h = stats[:, :4].T.astype(float)
    return (x > x[:, None]) & (x + w < (x + w)[:, None]) & (y > y[:, None]) & (y + h < (y + h)[:, None])


def keep_enclosed(within: np.ndarray, stats: np.ndarray, large: np.ndarray, label: np.ndarray) -> None:
    """Clears `within` where a hollow piece is no frame of one that is as large as what frames hold: its ink is open
    towards it, and not all along the sides of its box."""
    import cv2

    for i in np.flatnonzero(within.any(1)):
        x, y, w, h, area = (int(v) for v in stats[large[i]])
        held = np.flatnonzero(within[i] & (stats[large, 3] > HELD * h))
        if not len(held) or area >= FULL * w * h:
            continue
        ink = (label[y : y + h, x : x + w] == large[i] + 1).astype(np.uint8)
        rim = max(1, round(RIM * min(w, h)))
        if int(ink[rim:-rim, rim:-rim].sum()) < ASTRAY * area:
            continue
        gap = 1 + round(GAPS * h)
        ink = np.pad(ink, gap)
        ink = cv2.morphologyEx(ink, cv2.MORPH_CLOSE, np.ones((gap, gap), np.uint8))
        cv2.floodFill(ink, None, (0, 0), 2)
        x0, y0, wide, high = stats[large[held], :4].T
        within[i, held] = ink[y0 + high // 2 - y + gap, x0 + wide // 2 - x + gap] != 2


def frames(stats: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Which pieces are drawn around others, as boxes are and digits never: bool [n]."""
    _, _, w, h, area = stats.T.astype(float)
    held = within & (h > HELD * h[:, None])
    return held.any(1) & (area < FULL * w * h)


def bars(stats: np.ndarray) -> np.ndarray:
    """Which pieces are remains of lines: far longer than wide, and than the signs of the page: bool [n]."""
    if not len(stats):
        return np.zeros(0, bool)
    longer, other = stats[:, 2:4].max(1), stats[:, 2:4].min(1)
    return (longer > BAR * other) & (longer > LONGEST * np.median(stats[:, 3]))


def hairs(stats: np.ndarray) -> np.ndarray:
    """Which pieces are what is left of a sheet's edge or of a grid: upright, straight and far thinner than the page's
    thinner strokes: bool [n]."""
    _, _, w, h, area = stats.T.astype(float)
    signs = (w > SLENDER * h) & (w < 2 * h)
    if signs.sum() < FEW:
        return np.zeros(len(stats), bool)
    stroke = np.percentile(area[signs] / (PATH * h[signs]), 25)
    return (w <= SLENDER * h) & (area < HAIR * stroke * h)


def slashes(stats: np.ndarray, label: np.ndarray, large: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Which pieces part two numbers, as in a score: straight strokes that lean to the right, taller than what stands on
    both their sides in the same cell: bool [n]."""
    x, y, w, h, area = stats.T.astype(float)
    out = np.zeros(len(stats), bool)
    likely = (w > LEANING[0] * h) & (w < LEANING[1] * h) & (area < SLIM * w * h)
    for i in np.flatnonzero(likely):
        middle = x[i] + w[i] / 2
        off = np.maximum(x - middle, middle - (x + w))  # how far beside it
        level = (y < y[i] + h[i]) & (y + h > y[i]) & (h > ALIKE * h[i])
        near = level & (np.abs(x + w / 2 - middle) < NEXT * h[i]) & (off > -0.5 * w[i])
        near &= ~apart[i]
        near[i] = False
        left, right = near & (x + w / 2 < middle), near & (x + w / 2 > middle)
        if not left.any() or not right.any() or h[i] < TALLER * np.median(h[near]):
            continue
        top, side = int(y[i]), int(x[i])
        rows, columns = np.nonzero(label[top : top + int(h[i]), side : side + int(w[i])] == large[i] + 1)
        slope, start = np.polyfit(rows, columns, 1)
        strayed = np.abs(columns - slope * rows - start).mean()
        out[i] = slope < 0 and strayed < BENT * w[i]
    return out


def stamps(stats: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Which pieces are mostly empty, and far larger than the signs of the page, with some within them, or than two
    within them; or higher than any sign: bool [n]."""
    if not len(stats):
        return np.zeros(0, bool)
    _, _, w, h, area = stats.T.astype(float)
    drawn = area < SOLID * w * h
    usual = usual_height(h[drawn] if drawn.any() else h)
    sized, plain = np.minimum(w, h), drawn & ~within.any(1)
    signs = within & (h > PLAIN * usual_height(h[plain])) if plain.any() else within  # specks are none
    held = signs & (OUTSIZED * h < sized[:, None])
    outsized = (sized > OUTSIZED * usual) & (signs.any(1) | (sized > VAST * usual))
    large = outsized | (h > TOWERING * usual) | (held.sum(1) > 1)
    # a crossword's black squares fill much of it
    crossword = (sized > TOWERING * usual) & (held.sum(1) > 1)
    return (large & (area < HOLLOW * w * h)) | (crossword & drawn)
