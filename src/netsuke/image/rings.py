"""Rings around numbers, drawn by hand or stamped over them: told from the digits that touch them, and left out.

An ellipse on which much of a piece lies is found by chance (RANSAC, Fischler and Bolles, 1981); near it the ring is the
smooth closed path along which most ink lies, by dynamic programming over its radius from angle to angle.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from netsuke.image.pieces import pieces, usual_height

NESTED = 3  # rings in each other, at most
FEW = 4  # pieces of a page that tell how large its signs are, at least
SIGN = 7  # pixels of height, and of ink: less is no sign
SMALLEST = 24  # pixels of a ring's shorter side
LARGE, STAMP = 1.25, 2.0  # of the page's usual height: as high is a ring; and one that only touches what stands outside
ARC = 0.85  # of a ring's height: a piece of one that lines were cut out of
LONGEST = 3.5  # of its shorter side: a ring's longer side
FILLED = 0.5  # of its box that a piece with a ring covers, at most
ROUND = 0.75  # of the angles around a round piece's middle to which it has ink near its box
SQUARE = 0.9  # of its longer side: of a shorter one a piece's ring may be no circle
POINTS, TRIALS, BEST = 200, 120, 6  # of a piece, and ellipses tried on it, and those that are looked at again
WIDEST = 1.6  # of a piece: its ellipse
SECTORS = 24  # in which an ellipse is asked for ink
CLOSE = 0.1  # of its radius: how far a point of an ellipse lies from it
SEEN = 0.65  # of these that have some
HALF = 0.5  # of the angles to which a ring lies in the image, and has ink that is no stroke's that crosses it
ANGLES = 72
RADII = np.linspace(0.7, 1.3, 49)  # of the ellipse, between which a ring runs
STEEP = 2  # steps of RADII from one angle to the next, at most
WHOLE = 0.84  # of the angles to which a ring has ink
ROUGH, SMOOTH = 0.0105, 0.008  # of its radius by which it changes from one angle to the next, on average
FREE = 0.7  # of the angles that no stroke crosses, where few other pieces tell how large digits are
THICK = 0.3  # of a ring's shorter radius, at most
EDGE = 1.0  # pixels of a ring's blurred edge
BEYOND = 1.5  # pixels by which ink goes on to one side of the ring, where a stroke leaves it
HELD = 0.35  # of a ring's height: as high is what it is drawn around,
INNER = 0.5  # and lies within so much of it
OUTSIDE = 0.65  # of a stamp's height: what it touches is lower
LEFT = 0.12  # of its shorter radius: what lies as near to a ring, all of it, is its own


class _Ellipse(NamedTuple):
    """Its middle and half axes, along x and y, in pixels of the image."""

    x: float
    y: float
    wide: float
    high: float

    def polar(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points as angle from 0 to ANGLES and radius, where 1 is the ellipse."""
        x, y = (x - self.x) / self.wide, (y - self.y) / self.high
        return np.arctan2(y, x) * (ANGLES / 2 / np.pi) % ANGLES, np.hypot(x, y)

    def place(self, angle: np.ndarray, radius: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """The inverse: x and y."""
        angle = angle * (2 * np.pi / ANGLES)
        return self.x + radius * self.wide * np.cos(angle), self.y + radius * self.high * np.sin(angle)


class _Ring(NamedTuple):
    """Where a ring runs in the polar view of an ellipse: of each angle its radius, and between which radii ink is its
    own (nowhere where a stroke crosses it); and its thickness in pixels."""

    ellipse: _Ellipse
    radius: np.ndarray
    inner: np.ndarray
    outer: np.ndarray
    thick: float

    def off(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How far outside the ring points lie, in pixels; which are its own; and their radius as a share of its."""
        angle, radius = self.ellipse.polar(x, y)
        path = np.interp(angle, np.arange(ANGLES + 1), np.append(self.radius, self.radius[0]))
        pixels = np.hypot(x - self.ellipse.x, y - self.ellipse.y) / np.maximum(radius, 1e-6)
        near = np.rint(angle).astype(int) % ANGLES
        edge = EDGE / np.maximum(pixels, 1e-6)
        own = (radius >= self.inner[near] - edge) & (radius <= self.outer[near] + edge)
        return (radius - path) * pixels, own, radius / path


def without_rings(ink: np.ndarray) -> np.ndarray:
    """A page's ink, uint8 [H, W], without the rings that are drawn around ink; strokes that cross them stay."""
    for _ in range(NESTED):
        found = _rings(ink)
        if not found:
            break
        ink = ink.copy()
        for mask, (left, top) in found:
            ink[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = 0
    return ink


def _rings(ink: np.ndarray) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """The pixels of rings, bool [h, w] each, and their corners (x, y); of several in each other one."""
    label, stats = pieces(ink)
    signs = np.flatnonzero((stats[:, 3] >= SIGN) & (stats[:, 4] >= SIGN)).tolist()
    likely = {i: part for i in signs if _is_likely(part := stats[i].tolist(), 0)}
    around = [i for i, part in likely.items() if _is_round(_points(label, part, i + 1), part)]
    others, found = np.setdiff1d(signs, around), []
    for i, part in likely.items():
        told = others if len(others) >= FEW else np.setdiff1d(signs, i)
        usual = usual_height(stats[told, 3]) if len(told) else 0.0
        if _is_likely(part, ARC * LARGE * usual):
            ring = _ring(label, part, i + 1, usual, sure=len(others) >= FEW)
            found += [ring] if ring else []
    return found


def _is_likely(part: list[int], least: float) -> bool:
    _, _, w, h, area = part
    return h >= least and min(w, h) >= SMALLEST and area < FILLED * w * h


def _points(label: np.ndarray, part: list[int], number: int) -> np.ndarray:
    """Some of a piece's pixels, float [n, 2], x and y."""
    left, top, w, h, area = part
    y, x = np.nonzero(label[top : top + h, left : left + w] == number)
    few = slice(None, None, 1 + area // POINTS)
    return np.stack([x[few] + left, y[few] + top], 1) + 0.5


def _is_round(points: np.ndarray, part: list[int]) -> bool:
    """Whether ink lies all around the middle of a piece's box: a cheap look."""
    off = 2 * (points - part[:2]) / part[2:4] - 1
    angle = np.arctan2(*off[np.hypot(*off.T) > 0.7].T)
    return len(np.unique(np.rint(angle * (12 / np.pi)) % 24)) >= ROUND * 24


def _ring(
    label: np.ndarray, part: list[int], number: int, usual: float, *, sure: bool
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """The ring of a piece: which pixels, bool [h, w], and its corner; None where it has none."""
    points, (_, _, w, h, _) = _points(label, part, number), part
    aspects = [1.0, *([w / h] if SQUARE * max(w, h) > min(w, h) > max(w, h) / LONGEST else [])]
    found = [_ellipse(points, aspect, max(SMALLEST, LARGE * usual), label.shape) for aspect in aspects]
    seen, best = max((one for one in found if one), default=(0.0, None))
    if best is None or seen < SEEN:
        return None
    reach = RADII[-1] * np.array([best.wide, best.high]) + 2
    left, top = np.maximum(np.array([best.x, best.y]) - reach, 0).astype(int).tolist()
    right, foot = (np.array([best.x, best.y]) + reach).astype(int).tolist()
    ink = label[top:foot, left:right] > 0
    ring = _along(ink, (left, top), best, label.shape, sure=sure)
    mask = None if ring is None else _mask(ink, (left, top), ring, usual, sure=sure)
    return None if mask is None else (mask, (left, top))


def _shown(place: tuple[np.ndarray, np.ndarray], size: tuple[int, ...]) -> np.ndarray:
    """Which points lie in an image of that size."""
    x, y = place
    return (x >= 0) & (y >= 0) & (x < size[1]) & (y < size[0])


def _ellipse(
    points: np.ndarray, aspect: float, least: float, size: tuple[int, ...]
) -> tuple[float, _Ellipse] | None:
    """That of an aspect, through three of the points float [n, 2], to most of whose angles other points lie on it; and
    to which share of those that lie in an image of that size."""
    rng = np.random.default_rng(len(points))
    flat = points / (aspect, 1.0)
    a, b, c = flat[rng.integers(len(flat), size=(3, TRIALS))]
    b, c = b - a, c - a
    cross = 2 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    bb, cc = (b * b).sum(1), (c * c).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.stack([c[:, 1] * bb - b[:, 1] * cc, b[:, 0] * cc - c[:, 0] * bb], 1) / cross[:, None]
    radius = np.hypot(*off.T)
    good = (2 * radius >= least) & (2 * radius * aspect >= SMALLEST)
    good &= 2 * radius < WIDEST * np.ptp(flat, 0).max()
    middle, radius = (a + off)[good], radius[good]
    far = np.hypot(flat[:, 0] - middle[:, :1], flat[:, 1] - middle[:, 1:])
    close = np.abs(far - radius[:, None]) < CLOSE * radius[:, None]
    best = np.argsort(-close.sum(1) / np.sqrt(radius), kind="stable")[:BEST]
    if not len(best):
        return None
    own = flat - middle[best, None]
    angle = (np.arctan2(own[..., 1], own[..., 0]) * (SECTORS / 2 / np.pi)).astype(int) % SECTORS
    place = angle + SECTORS * np.arange(len(best))[:, None]
    hit = np.bincount(place[close[best]], minlength=SECTORS * len(best)).reshape(-1, SECTORS) > 0
    turn = (np.arange(SECTORS) + 0.5) * (2 * np.pi / SECTORS)
    x, y = (middle[best, :, None] + radius[best, None, None] * [np.cos(turn), np.sin(turn)]).swapaxes(0, 1)
    shown = _shown((x * aspect, y), size)
    seen = np.where(shown.mean(1) > HALF, (hit & shown).sum(1) / np.maximum(shown.sum(1), 1), 0.0)
    k = int(seen.argmax())
    (x, y), r = middle[best[k]].tolist(), float(radius[best[k]])
    return float(seen[k]), _Ellipse(x * aspect, y, r * aspect, r)


def _along(
    ink: np.ndarray, corner: tuple[int, int], ellipse: _Ellipse, size: tuple[int, ...], *, sure: bool
) -> _Ring | None:
    """The ring near an ellipse in `ink` bool [h, w] whose corner lies there in an image of that size; None where it has
    gaps. It must be a better one where it is not `sure` that it is larger than signs are."""
    angles = np.arange(ANGLES)
    polar = _sampled(ink, ellipse.place(angles[:, None], RADII), corner)  # [ANGLES, RADII]
    path = _path(polar)
    inked = polar[angles, path]
    shown = _shown(ellipse.place(angles, RADII[path]), size)
    rough = np.abs(np.diff(RADII[path], append=RADII[path[0]])).mean()
    if shown.mean() < HALF or inked[shown].mean() < WHOLE or rough > (ROUGH if sure else SMOOTH):
        return None
    x, y = ellipse.place(angles, 1.0)
    step = (RADII[1] - RADII[0]) * np.hypot(x - ellipse.x, y - ellipse.y)  # pixels
    lower, upper = _run(polar, path)
    thick = float(np.median(((upper - lower) * step)[inked]))
    if thick > THICK * min(ellipse.wide, ellipse.high):
        return None
    reach = thick / 2 + BEYOND
    inwards, outwards = (path - lower) * step > reach, (upper - path) * step > reach
    wide = 1 + int(thick / (2 * np.pi * min(ellipse.wide, ellipse.high) / ANGLES))
    crossed = (inwards & _spread(outwards, wide)) | (outwards & _spread(inwards, wide))
    own = inked & ~crossed
    if own[shown].mean() < (HALF if sure else FREE):
        return None
    half, width = thick / 2 / step, RADII[1] - RADII[0]
    inner = np.where(inwards, path - half, lower) * width + RADII[0]
    outer = np.where(outwards, path + half, upper - 1) * width + RADII[0]
    return _Ring(ellipse, RADII[path], np.where(own, inner, np.inf), np.where(own, outer, -np.inf), thick)


def _sampled(
    ink: np.ndarray, place: tuple[np.ndarray, np.ndarray], corner: tuple[int, int]
) -> np.ndarray:
    """Pixels at points; none beyond the image."""
    h, w = ink.shape
    column, row = (np.floor(p).astype(int) - c for p, c in zip(place, corner, strict=True))
    within = (column >= 0) & (row >= 0) & (column < w) & (row < h)
    return within & ink[np.where(within, row, 0), np.where(within, column, 0)]


def _path(polar: np.ndarray) -> np.ndarray:
    """The closed path through bool [ANGLES, RADII] along which most is set, as an index of each angle."""
    gain = polar.astype(np.float32)
    gain[:, 1:-1] = 0.5 * gain[:, 1:-1] + 0.25 * (gain[:, :-2] + gain[:, 2:])  # the middle of a stroke
    gain -= 0.05 * np.abs(RADII - 1)
    count, wide = gain.shape
    totals = np.full((2 * count, wide + 2 * STEEP), -np.inf, np.float32)
    totals[0, STEEP:-STEEP] = gain[0]
    for k in range(1, 2 * count):  # twice around: in the middle it does not matter where it begins and ends
        best = totals[k - 1, :wide]
        for step in range(1, 2 * STEEP + 1):
            best = np.maximum(best, totals[k - 1, step : step + wide])
        np.add(best, gain[k % count], out=totals[k, STEEP:-STEEP])
    at, path = int(totals[-1].argmax()), np.zeros(count, int)
    for k in range(2 * count - 1, count // 2 - 1, -1):
        if k < count + count // 2:
            path[k % count] = at - STEEP
        near = totals[k - 1, at - STEEP : at + STEEP + 1]
        at += int(near.argmax()) - STEEP
        at = min(max(at, STEEP), wide + STEEP - 1)
    return path


def _run(polar: np.ndarray, path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between which radii ink lies at the path, from and to (exclusive), of each angle."""
    wide = polar.shape[1]
    columns = np.arange(wide)
    lower = np.where(~polar & (columns <= path[:, None]), columns, -1).max(1) + 1
    upper = np.where(~polar & (columns >= path[:, None]), columns, wide).min(1)
    return lower, upper


def _spread(angles: np.ndarray, by: int) -> np.ndarray:
    """Bool [ANGLES], set up to `by` angles further to both sides."""
    return np.any([np.roll(angles, k) for k in range(-by, by + 1)], 0)


def _mask(
    ink: np.ndarray, corner: tuple[int, int], ring: _Ring, usual: float, *, sure: bool
) -> np.ndarray | None:
    """The ring's pixels, bool [h, w]; None where it is drawn around nothing."""
    import cv2

    y, x = np.nonzero(ink)
    off, own, share = ring.off(x + corner[0] + 0.5, y + corner[1] + 0.5)
    edge = ring.thick / 2 + EDGE
    mask, within, core, outside = np.zeros((4, *ink.shape), np.uint8)
    mask[y, x], within[y, x], outside[y, x], core[y, x] = own, off < -edge, off > edge, share < INNER
    held, beside = _highest(within, core), _highest(outside, outside)
    high = 2 * ring.ellipse.high
    drawn = held >= HELD * high
    stamped = sure and high > STAMP * usual and HALF * usual < max(held, beside) < OUTSIDE * high
    if not (drawn or stamped):
        return None
    rest = (ink & ~(mask > 0)).view(np.uint8)
    count, label = cv2.connectedComponents(rest, connectivity=8)
    far = np.zeros(count)
    np.maximum.at(far, label[y, x], np.abs(off))
    near = far <= max(ring.thick + EDGE, LEFT * min(ring.ellipse.wide, ring.ellipse.high))
    near[0] = False
    taken: np.ndarray = (mask > 0) | near[label]
    return taken


def _highest(part: np.ndarray, core: np.ndarray) -> int:
    """Height of the highest piece of a mask, uint8 [h, w], that has pixels of another."""
    import cv2

    count, label, boxes, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
    own = np.bincount(label[core > 0], minlength=count) > 0
    own[0] = False
    return int(boxes[own, 3].max(initial=0))
