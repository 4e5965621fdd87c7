"""Digits that touch the bars between the cells of a form's field: each bar is told by the others, and cut off."""

from __future__ import annotations

import numpy as np

from netsuke.image.pieces import stat
from netsuke.reader.cells import FAR, POST, POSTS, alike, even

SMALLEST = 20  # pixels of a bar's height
STRAIGHT = 0.5  # of its box that a bar's ink covers, at least
FREE = 2  # bars of a field that nothing touches, at least
INNER = 0.1  # of a bar's height at both ends in which it is not asked
WHOLE = 0.93  # of the rows between in which ink stands at a bar: stems of digits are shorter
LEANS = 1  # pixels to either side, in which a bar may lean
THICKER = 3  # pixels by which ink at a bar is broader than a free one, at most
CRUMB = 3  # pixels: what is smaller is left of a bar


def parted(label: np.ndarray, stats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pieces, `label` int32 [H, W] (changed in place) and `stats` int [n, 5] as `image.pieces` gives them, with bars
    that digits touch as pieces of their own.

    Some bars of a field must stand free; the others are as high as these, and evenly between them.
    """
    _, _, w, h, area = stats.T
    upright = np.flatnonzero((h >= SMALLEST) & (w < POST * h) & (area > STRAIGHT * w * h))
    done: set[int] = set()
    for i in upright.tolist():
        if i in done:
            continue
        row = upright[alike(stats[upright], stats[i])]
        done.update(row.tolist())
        if len(row) >= FREE:
            stats = _freed(label, stats, row)
    return label, stats


def _freed(label: np.ndarray, stats: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The pieces with the bars cut off that stand in a row with free ones; `label` is changed in place."""
    x, y, w, h, _ = stats[row].T
    high, wide = int(np.median(h)), int(w.max())
    top, foot = int(y.max() + INNER * high), int((y + h).min() - INNER * high)
    if foot - top < SMALLEST // 2:
        return stats
    begin, end = max(0, int(x.min() - FAR * high)), min(label.shape[1], int(x.max() + FAR * high))
    ink = np.pad(label[top:foot, begin:end] > 0, ((0, 0), (LEANS, LEANS)))
    near = np.any([ink[:, k : k + end - begin] for k in range(2 * LEANS + 1)], 0)
    edges = np.flatnonzero(np.diff(np.pad((near.mean(0) >= WHOLE).astype(int), 1)))
    runs = [
        (a + begin, b + begin)
        for a, b in edges.reshape(-1, 2).tolist()
        if b - a <= wide + 2 * LEANS + THICKER
    ]
    places = np.array([(a + b) / 2 for a, b in runs])
    free = np.abs(places[:, None] - (x + w / 2)).min(1, initial=np.inf) < wide
    if len(runs) < POSTS or free.all() or not even(places, high):
        return stats
    for a, b in (run for run, own in zip(runs, free.tolist(), strict=True) if not own):
        a, b = max(a, 1), min(b, label.shape[1] - 1)  # what touches it is seen on both sides
        if a < b:
            stats = _cut(label, stats, (a, b), (int(np.median(y)), high))
    return stats


def _cut(label: np.ndarray, stats: np.ndarray, columns: tuple[int, int], rows: tuple[int, int]) -> np.ndarray:
    """The pieces with the bar in these columns, so many rows from the first on, as a new one; not where a stroke
    crosses."""
    import cv2

    (a, b), (top, high) = columns, rows
    part = label[top : top + high, a - 1 : b + 1]
    crossed = (part[:, 0] > 0) & (part[:, -1] > 0)
    bar = (part[:, 1:-1] > 0) & ~crossed[:, None]
    touched = np.setdiff1d(part[:, 1:-1][bar], [0])
    label[top : top + high, a:b][bar] = len(stats) + 1
    new = [stat(bar, a, top)]
    stats = stats.copy()
    for i in touched.tolist():
        x, y, w, h, _ = stats[i - 1].tolist()
        own = label[y : y + h, x : x + w]
        count, inner, boxes, _ = cv2.connectedComponentsWithStats((own == i).view(np.uint8), connectivity=8)
        stats[i - 1, 4] = 0
        for k in range(1, count):
            left, over, wide, tall, area = boxes[k].tolist()
            mine = inner == k
            if min(wide, tall) < CRUMB:
                own[mine] = 0
                continue
            new.append((x + left, y + over, wide, tall, area))
            own[mine] = len(stats) + len(new)
    return np.concatenate([stats, np.array(new, stats.dtype)])
