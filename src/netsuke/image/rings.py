"""Rings around numbers, drawn by hand or stamped over them: told from the digits that touch them, and left out.

An ellipse on which much of a piece lies is found by chance (RANSAC, Fischler and Bolles, 1981); near it the ring is the
smooth closed path along which most ink lies, by dynamic programming over its radius from angle to angle.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from netsuke.image.pieces import pieces, usual_height

NESTED = 3  # rings in each other, at most
MOST = 1000  # pieces of a page that may be rings: more are texture
FEW = 4  # pieces of a page that tell how large its signs are, at least
SIGN = 7  # pixels of height, and of ink: less is no sign
SMALLEST = 24  # pixels of a ring's shorter side
LARGE = 1.25  # of the page's usual height: as high is a ring,
STAMP = 2.0  # and one that only touches what stands outside
TALL = 1.6  # of it: as high a piece is looked at even if it is not round
ARC = 0.85  # of a ring's height: a piece of one that lines were cut out of
LONGEST = 3.5  # of its shorter side: a ring's longer side
FILLED = 0.5  # of its box that a piece with a ring covers, at most
ROUND, OUT = 0.75, 0.7  # of the sectors around a round piece's middle that have ink; so far out, of its box
SQUARE = 0.9  # of its longer side: of a shorter one a piece's ring may be no circle
POINTS, VOTERS = 128, 64  # of a piece, that are looked at, and that choose between ellipses
TRIALS, BEST = 250, 10  # ellipses tried on a piece, and those that all its points are asked for
WIDEST = 1.6  # of a piece: its ellipse, at most
CHANGED = 1.6  # times: by how much an ellipse fitted again may be smaller or larger
SECTORS = 24  # in which an ellipse is asked for ink
CLOSE = 0.1  # of its radius: how far a point of an ellipse lies from it
SEEN = 0.65  # of these that have some, at least
VISIBLE = 0.5  # of the angles to which a ring lies in the image, at least,
OWN = 0.5  # and has ink that is no stroke's that crosses it
ANGLES = 72
RADII = np.linspace(0.7, 1.3, 49)  # of the ellipse, between which a ring runs
STEEP = 2  # steps of RADII from one angle to the next, at most,
BEND = 0.1  # and what each costs: a place on ink gains 1,
ASTRAY = 0.05  # and one as far from the ellipse as that is large loses so much
WHOLE = 0.84  # of the angles to which a ring has ink
ROUGH, SMOOTH = 0.006, 0.004  # of its radius by which it changes from one angle to the next, on average
THICK, THIN = 0.4, 0.25  # of a ring's shorter radius, at most
EDGE = 1.0  # pixels of a ring's blurred edge
BEYOND = 1.5  # pixels by which ink goes on to one side of the ring, where a stroke leaves it
HELD = 0.35  # of a ring's height: as high is what it is drawn around,
INNER = 0.5  # and lies within so much of it
STRAIGHT, SLIM = 0.4, 0.06  # of a ring's thickness, and of its length: how far a slash strays from straight,
SPANNED = 0.7  # and of the ring's radius: where it ends
TOUCHING = 0.5  # of the page's usual height: as high is what a stamp touches, and as far out it goes
OTHER = 0.65, 1.15  # of a stamp's height: what it touches is lower, or a larger ring
LEFT = 0.12  # of its shorter radius: what lies as near to a ring, all of it, is its own


class _Ellipse(NamedTuple):
    """Its middle, float [2], x and y in pixels of the image, and what takes a circle to it, float [2, 2]."""

    middle: np.ndarray
    shape: np.ndarray

    @property
    def high(self) -> float:
        """Pixels from its top to its foot."""
        return 2 * float(np.hypot(*self.shape[1]))

    @property
    def narrow(self) -> float:
        """Its shorter radius in pixels."""
        return float(np.linalg.svd(self.shape, compute_uv=False)[-1])

    def polar(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points float [..., 2] as angle from 0 to ANGLES and radius, where 1 is the ellipse."""
        x, y = np.moveaxis((points - self.middle) @ np.linalg.inv(self.shape).T, -1, 0)
        return np.arctan2(y, x) * (ANGLES / 2 / np.pi) % ANGLES, np.hypot(x, y)

    def place(self, angle: np.ndarray, radius: np.ndarray | float) -> np.ndarray:
        """The inverse: points float [..., 2]."""
        angle = angle * (2 * np.pi / ANGLES)
        return self.middle + np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1) @ self.shape.T


class _Ring(NamedTuple):
    """Where a ring runs in the polar view of an ellipse: of each angle its radius, and between which radii ink is its
    own (nowhere where a stroke crosses it); and its thickness in pixels."""

    ellipse: _Ellipse
    radius: np.ndarray
    inner: np.ndarray
    outer: np.ndarray
    thick: float

    def off(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How far outside the ring points float [n, 2] lie, in pixels; which are its own; and their radius as a share
        of its."""
        angle, radius = self.ellipse.polar(points)
        path = np.interp(angle, np.arange(ANGLES + 1), np.append(self.radius, self.radius[0]))
        pixels = np.hypot(*(points - self.ellipse.middle).T) / np.maximum(radius, 1e-6)
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
    signs = np.flatnonzero((stats[:, 3] >= SIGN) & (stats[:, 4] >= SIGN))
    likely = {i: part for i in signs.tolist() if _is_likely(part := stats[i].tolist(), 0)}
    if not 0 < len(likely) <= MOST:
        return []
    every = usual_height(stats[signs, 3])  # where rings are many, it is theirs
    around = [
        i for i, part in likely.items() if part[3] >= every and _is_round(_points(label, part, i + 1), part)
    ]
    others, found = np.setdiff1d(signs, around), []
    known = len(others) >= FEW
    usual = usual_height(stats[others, 3]) if known else 0.0
    for i, part in likely.items():
        if not known:
            rest = np.setdiff1d(signs, i)
            usual = usual_height(stats[rest, 3]) if len(rest) else 0.0
        if _is_likely(part, (ARC * LARGE if i in around else TALL) * usual):
            ring = _ring(label, part, i + 1, usual, known=known)
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
    angle = np.arctan2(*off[np.hypot(*off.T) > OUT].T)
    return len(np.unique(np.rint(angle * (SECTORS / 2 / np.pi)) % SECTORS)) >= ROUND * SECTORS


def _ring(
    label: np.ndarray, part: list[int], number: int, usual: float, *, known: bool
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """The ring of a piece: which pixels, bool [h, w], and its corner; None where it has none."""
    points = _points(label, part, number)
    found = [_ellipse(points, shape, max(SMALLEST, LARGE * usual), label.shape) for shape in _shapes(points)]
    worth, best = max((one for one in found if one), key=lambda one: one[0], default=(0.0, None))
    if best is None or not worth:
        return None
    reach = RADII[-1] * np.hypot(*best.shape.T) + 2
    left, top = np.maximum(best.middle - reach, 0).astype(int).tolist()
    right, foot = (best.middle + reach).astype(int).tolist()
    ink = label[top:foot, left:right] > 0
    ring = _along(ink, (left, top), best, label.shape, known=known)
    mask = None if ring is None else _mask(ink, (left, top), ring, usual, known=known)
    return None if mask is None else (mask, (left, top))


def _shapes(points: np.ndarray) -> list[np.ndarray]:
    """What may take a circle to the ring of a piece, float [2, 2] each: nothing, or what makes it as long and as wide
    as its points float [n, 2] are spread."""
    spread, axes = np.linalg.eigh(np.cov(points.T))
    narrow = float(np.sqrt(max(spread[0], 0) / spread[1])) if spread[1] > 0 else 0.0
    if not 1 / LONGEST < narrow < SQUARE:
        return [np.eye(2)]
    return [np.eye(2), axes @ np.diag([narrow, 1.0]) @ axes.T]


def _shown(points: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Which points float [..., 2] lie in an image of that size."""
    x, y = np.moveaxis(points, -1, 0)
    shown: np.ndarray = (x >= 0) & (y >= 0) & (x < size[1]) & (y < size[0])
    return shown


def _ellipse(
    points: np.ndarray, shape: np.ndarray, least: float, size: tuple[int, ...]
) -> tuple[float, _Ellipse] | None:
    """That of a shape, through three of the points float [n, 2], on which most others lie, and to most of its angles;
    and the sum of both shares, 0 where the angles are too few. Of them those count that lie in an image of that size.
    """
    rng = np.random.default_rng(len(points))
    flat = points @ np.linalg.inv(shape).T
    a, b, c = flat[rng.integers(len(flat), size=(3, TRIALS))]
    b, c = b - a, c - a
    cross = 2 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    bb, cc = (b * b).sum(1), (c * c).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.stack([c[:, 1] * bb - b[:, 1] * cc, b[:, 0] * cc - c[:, 0] * bb], 1) / cross[:, None]
    radius = np.hypot(*off.T)
    high = 2 * radius * np.hypot(*shape[1])
    good = (high >= least) & (2 * radius < WIDEST * np.ptp(flat, 0).max())
    middle, radius = (a + off)[good], radius[good]
    few = flat[:: -(-len(flat) // VOTERS)]
    votes = _close(few, middle, radius).sum(1)
    best = np.argsort(-votes / np.sqrt(radius), kind="stable")[:BEST]
    if not len(best):
        return None
    middle, radius = middle[best], radius[best]
    close = _close(flat, middle, radius)
    x, y = (flat - middle[:, None]).T  # [n, BEST]
    sector = np.floor(np.arctan2(y, x) * (SECTORS / 2 / np.pi)).astype(int) % SECTORS
    place = sector.T + SECTORS * np.arange(len(best))[:, None]
    hit = np.bincount(place[close], minlength=SECTORS * len(best)).reshape(-1, SECTORS) > 0
    turn = (np.arange(SECTORS) + 0.5) * (2 * np.pi / SECTORS)
    rim = middle[:, None] + radius[:, None, None] * np.stack([np.cos(turn), np.sin(turn)], -1)
    shown = _shown(rim @ shape.T, size)
    seen = np.where(shown.mean(1) > VISIBLE, (hit & shown).sum(1) / np.maximum(shown.sum(1), 1), 0.0)
    worth = np.where(seen < SEEN, 0.0, seen + close.mean(1))
    k = int(worth.argmax())
    return float(worth[k]), _Ellipse(shape @ middle[k], radius[k] * shape)


def _close(points: np.ndarray, middle: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Which points float [n, 2] lie near which circles, of middles [m, 2]: bool [m, n]."""
    x, y = (points[:, k] - middle[:, k, None] for k in (0, 1))
    far = x * x + y * y  # without roots, which would take the most of a page's time
    least, most = ((1 + off) ** 2 * radius[:, None] ** 2 for off in (-CLOSE, CLOSE))
    return (far > least) & (far < most)


def _along(
    ink: np.ndarray, corner: tuple[int, int], ellipse: _Ellipse, size: tuple[int, ...], *, known: bool
) -> _Ring | None:
    """The ring near an ellipse in `ink` bool [h, w] whose corner lies there in an image of that size; None where it has
    gaps. It must be a better one where it is not `known`, by other pieces, how large signs are."""
    angles = np.arange(ANGLES)
    for again in range(2):
        polar = _sampled(ink, ellipse.place(angles[:, None], RADII), corner)  # [ANGLES, RADII]
        path = _path(polar)
        inked = polar[angles, path]
        if inked.mean() < OWN:
            return None
        if not again:
            ellipse = _through(ellipse.place(angles[inked], RADII[path[inked]]), ellipse)
    shown = _shown(ellipse.place(angles, RADII[path]), size)
    rough = np.abs(np.diff(RADII[path], append=RADII[path[0]])).mean()
    if shown.mean() < VISIBLE or inked[shown].mean() < WHOLE or rough > (ROUGH if known else SMOOTH):
        return None
    step = (RADII[1] - RADII[0]) * np.hypot(*(ellipse.place(angles, 1.0) - ellipse.middle).T)  # pixels
    lower, upper = _run(polar, path)
    thick = float(np.median(((upper - lower) * step)[inked]))
    if thick > (THICK if known else THIN) * ellipse.narrow:
        return None
    reach = thick / 2 + BEYOND
    inwards, outwards = (path - lower) * step > reach, (upper - 1 - path) * step > reach
    wide = 1 + int(thick / (2 * np.pi * ellipse.narrow / ANGLES))
    crossed = (inwards & _spread(outwards, wide)) | (outwards & _spread(inwards, wide))
    own = inked & ~crossed
    if (own if thick > THIN * ellipse.narrow else own[shown]).mean() < OWN:
        return None  # at the image's edge touching digits make broad ones
    half, width = thick / 2 / step, RADII[1] - RADII[0]
    inner = np.where(inwards, path - half, lower) * width + RADII[0]
    outer = np.where(outwards, path + half, upper - 1) * width + RADII[0]
    return _Ring(ellipse, RADII[path], np.where(own, inner, np.inf), np.where(own, outer, -np.inf), thick)


def _through(points: np.ndarray, other: _Ellipse) -> _Ellipse:
    """The ellipse of least squares through points float [n, 2] (Fitzgibbon et al., 1999); the other one if it is none
    or far from that."""
    import cv2

    middle, sides, degrees = cv2.fitEllipseDirect(points.astype(np.float32))
    wide, high = np.array(sides) / 2
    ratio = other.narrow / np.array([wide, high]).clip(1e-6).min()
    if not 1 / CHANGED < ratio < CHANGED or not np.isfinite(middle).all():
        return other
    turn = np.deg2rad(degrees)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return _Ellipse(np.array(middle), axes @ np.diag([wide, high]) @ axes.T)


def _sampled(ink: np.ndarray, points: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
    """Pixels at points float [..., 2]; none beyond the image."""
    h, w = ink.shape
    column, row = np.moveaxis(np.floor(points).astype(int) - corner, -1, 0)
    within = (column >= 0) & (row >= 0) & (column < w) & (row < h)
    return within & ink[np.where(within, row, 0), np.where(within, column, 0)]


def _path(polar: np.ndarray) -> np.ndarray:
    """The closed path through bool [ANGLES, RADII] along which most is set, as an index of each angle."""
    gain = polar.astype(np.float32)
    gain[:, 1:-1] = 0.5 * gain[:, 1:-1] + 0.25 * (gain[:, :-2] + gain[:, 2:])  # the middle of a stroke
    gain -= ASTRAY * np.abs(RADII - 1)
    count, wide = gain.shape
    totals = np.full((2 * count, wide + 2 * STEEP), -np.inf, np.float32)
    totals[0, STEEP:-STEEP] = gain[0]
    for k in range(1, 2 * count):  # twice around: in the middle it does not matter where it begins and ends
        best = totals[k - 1, STEEP:-STEEP]
        for step in range(1, STEEP + 1):
            beside = np.maximum(totals[k - 1, STEEP - step :][:wide], totals[k - 1, STEEP + step :][:wide])
            best = np.maximum(best, beside - BEND * step)
        np.add(best, gain[k % count], out=totals[k, STEEP:-STEEP])
    at, path = int(totals[-1].argmax()), np.zeros(count, int)  # places in `totals`, STEEP more than in RADII
    # back from the end; of the two rounds that in the middle is kept
    for k in range(2 * count - 1, count // 2 - 1, -1):
        if k < count + count // 2:
            path[k % count] = at - STEEP
        near = totals[k - 1, at - STEEP : at + STEEP + 1] - BEND * np.abs(np.arange(-STEEP, STEEP + 1))
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
    ink: np.ndarray, corner: tuple[int, int], ring: _Ring, usual: float, *, known: bool
) -> np.ndarray | None:
    """The ring's pixels, bool [h, w]; None where it is drawn around nothing."""
    import cv2

    y, x = np.nonzero(ink)
    points = np.stack([x, y], 1) + corner + 0.5
    off, own, share = ring.off(points)
    edge = ring.thick / 2 + EDGE
    mask, within, core, outside, far = np.zeros((5, *ink.shape), np.uint8)
    mask[y, x], within[y, x], core[y, x] = own, off < -edge, share < INNER
    outside[y, x], far[y, x] = off > edge, off > TOUCHING * usual
    inner = _reaching(within, core)
    held, beside = _height(inner), _height(_reaching(outside, far))
    high = ring.ellipse.high
    slashed = high < STAMP * usual and _is_crossed(ring, points[inner[y, x]])
    drawn = held >= HELD * high and not slashed
    stamped = known and high > STAMP * usual and max(held, beside) > TOUCHING * usual
    if not drawn and (not stamped or OTHER[0] * high < beside < OTHER[1] * high):
        return None
    rest = (ink & ~(mask > 0)).view(np.uint8)
    count, label = cv2.connectedComponents(rest, connectivity=8)
    strayed = np.zeros(count)
    np.maximum.at(strayed, label[y, x], np.abs(off))
    near = strayed <= max(ring.thick + EDGE, LEFT * ring.ellipse.narrow)
    near[0] = False
    taken: np.ndarray = (mask > 0) | near[label]
    return taken


def _is_crossed(ring: _Ring, points: np.ndarray) -> bool:
    """Whether what lies within a ring, points float [n, 2], is a straight stroke from side to side, as within a 0 with
    a slash."""
    radius = ring.ellipse.polar(points)[1]
    core = points[radius < SPANNED]  # where it meets the ring it is broader
    if len(core) < 2:
        return False
    spread, axes = np.linalg.eigh(np.cov(core.T))
    along = (points - core.mean(0)) @ axes[:, 1]
    ends = radius[[int(along.argmin()), int(along.argmax())]]
    strayed = np.sqrt(max(spread[0], 0))
    return bool(strayed < min(STRAIGHT * ring.thick, SLIM * np.ptp(along)) and ends.min() > SPANNED)


def _reaching(part: np.ndarray, core: np.ndarray) -> np.ndarray:
    """The highest piece of a mask, uint8 [h, w], that has pixels of another: bool [h, w]."""
    import cv2

    count, label, boxes, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
    own = np.bincount(label[core > 0], minlength=count) > 0
    own[0] = False
    if not own.any():
        return np.zeros(part.shape, bool)
    chosen: np.ndarray = label == int(np.where(own, boxes[:, 3], -1).argmax())
    return chosen


def _height(mask: np.ndarray) -> int:
    rows = np.flatnonzero(mask.any(1))
    return int(rows[-1] - rows[0] + 1) if len(rows) else 0
