"""Pieces of ink that are signs of two lines, one touching the other from above: each is cut between the lines."""

from __future__ import annotations

import numpy as np

from netsuke.image.pieces import stat, usual_height
from netsuke.reader.lines import tall_enough

# Lengths are shares of the usual height of the page's signs.
TALL, TALLEST = 1.6, 3.2  # height of such a piece
WIDEST = 8.0  # its width: whole numbers may hang together
NEIGHBOUR = 0.5, 1.5  # height of what stands beside it, in a line above or below
ASIDE = 2.5  # how far beside it
APART = 0.8  # the middles of the two lines
ACROSS = 0.25  # by how much a neighbour may reach into the other line
SEARCHED = 0.3  # how far from the middle between the lines the cut may lie
MIDDLE = 0.3  # of the piece's height: it is cut between that and the rest
SIDES = 3  # neighbours at least, of both lines together,
FEW = 2.0  # height of a piece from which two do


def parted(label: np.ndarray, stats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pieces, `label` int32 [H, W] (changed in place) and `stats` int [n, 5] as `image.pieces` gives them, with those
    cut that stand in two lines.

    That is told by their neighbours: all of them stand in the one line or in the other.
    """
    large = tall_enough(stats)
    if len(large) < SIDES:
        return label, stats
    usual = usual_height(stats[large, 3])
    high = stats[large, 3] / usual
    tall = large[(high > TALL) & (high < TALLEST) & (stats[large, 2] < WIDEST * usual)]
    others = stats[large[(high > NEIGHBOUR[0]) & (high < NEIGHBOUR[1])]]
    new: list[tuple[int, int, int, int, int]] = []
    for i in tall:
        x, y, w, h, _ = stats[i].tolist()
        near = others[_beside(others, stats[i], ASIDE * usual)]
        at = _between(near, usual) if len(near) >= SIDES - (h > FEW * usual) else None
        if at is None or not MIDDLE * h < at - y < (1 - MIDDLE) * h:
            continue
        own = label[y : y + h, x : x + w] == i + 1
        reach = round(SEARCHED * usual)
        low = max(1, round(at) - y - reach)
        cut = low + int(own[low : round(at) - y + reach + 1].sum(1).argmin())
        part = label[y + cut : y + h, x : x + w]
        part[own[cut:]] = len(stats) + len(new) + 1
        new.append(stat(own[cut:], x, y + cut))
        stats[i] = stat(own[:cut], x, y)
    return label, np.concatenate([stats, np.array(new, stats.dtype).reshape(-1, 5)])


def _beside(others: np.ndarray, piece: np.ndarray, far: float) -> np.ndarray:
    """Which others stand near a piece, at its height: bool [n]."""
    x, y, w, h, _ = piece
    left, top, wide, high, _ = others.T
    return (left < x + w + far) & (left + wide > x - far) & (top < y + h) & (top + high > y)


def _between(others: np.ndarray, usual: float) -> float | None:
    """Where between two lines is; None where these are not clearly two."""
    _, top, _, high, _ = others[np.argsort(others[:, 1] + others[:, 3] / 2)].T
    middle = top + high / 2
    k = int(np.diff(middle).argmax()) + 1
    if middle[k] - middle[k - 1] < APART * usual:
        return None
    foot, head = (top + high)[:k].max(), top[k:].min()
    return float(foot + head) / 2 if foot - head < ACROSS * usual else None
