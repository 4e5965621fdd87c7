"""One sign, photographed, with the truth of where it stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.lab.pens import bitmaps
from netsuke.lab.pens.camera import photograph, seen
from netsuke.lab.pens.ink import Pen, draw, homography, mapped, pen, placed, wobbled, worn
from netsuke.lab.pens.outliers import Sign, digit
from netsuke.lab.pens.paper import frame, light, paper, ruled
from netsuke.lab.pens.strokes import Path
from netsuke.lab.pens.textures import patch, unit

SMALLEST, LARGEST = 12, 200  # pixels of a crop's sides
SIGN = (9.0, 110.0)  # pixels of a sign's longer side in the photo
FINE = 40.0  # pixels of a sign's longer side on the drawing board, at least


@dataclass(frozen=True, eq=False)
class Photo:
    """Pixels uint8 [h, w], the box (x, y, w, h) of the sign's ink within them (None: there is none), and how much
    of it is ink, 0 to 1."""

    pixels: np.ndarray
    box: tuple[int, int, int, int] | None
    cover: float


@dataclass(frozen=True)
class Place:
    """Where a sign goes: `size` (h, w) of the photo, `board` (h, w) drawn on, and there the sign's middle and side."""

    size: tuple[int, int]
    board: tuple[int, int]
    centre: tuple[float, float]
    side: float


def take(sign: Sign, rng: np.random.Generator, *, with_: Pen | None = None, bare: float = 0.4) -> Photo:
    """A random photo of a sign: strokes, a bitmap with bright ink, or an empty path for the paper alone.

    `bare` is the share without neighbours, full stops or specks beside it.
    """
    ink, place, aspect, nib = _written(sign, with_ or pen(rng), rng)
    box, cover = _box_of(ink, place)
    sheet = paper(place.board, _around(aspect, place), rng)
    if rng.random() >= bare:
        ink = np.maximum(ink, _beside(place, aspect, nib, rng))
    scene = sheet * light(place.board, rng) * (1 - ink)
    return Photo(photograph(scene, place.size, rng), box, cover)


def ink_alone(sign: Sign, rng: np.random.Generator) -> np.ndarray | None:
    """Ink uint8 [h, w], bright on 0 and tight, as one finds it on a page whose paper is known.

    What the paper did is gone but for remains of lines that cross the sign; what hand, pen and camera did is there.
    """
    import cv2

    ink, place, aspect, _ = _written(sign, pen(rng), rng)
    if not ink.any():
        return None
    if rng.random() < 0.1:
        lines = ruled(place.board, _around(aspect, place), rng)
        near = cv2.dilate(ink, np.ones((5, 5), np.uint8)) > 0.1
        ink = np.maximum(ink, lines * near * np.float32(ink.max() * rng.uniform(0.3, 1)))
    ink = seen(ink, place.size, rng)
    u = rng.random(3)
    ink *= np.float32((1 + 0.35 * u[0]) / max(float(ink.max()), 1e-3))
    near = cv2.dilate(ink, np.ones((3, 3), np.uint8)) > 0.3  # specks further off are no part of the sign
    ink += np.float32(0.15 * u[1] ** 3) * patch("fine", place.size, rng)
    ink = unit(ink) * near
    ink[ink < 0.08 + 0.3 * u[2]] = 0
    x, y, w, h = cv2.boundingRect((ink > 0).astype(np.uint8))
    return (ink[y : y + h, x : x + w] * 255).astype(np.uint8) if w else None


def _written(
    sign: Sign, nib: Pen, rng: np.random.Generator
) -> tuple[np.ndarray, Place, tuple[float, float], Pen]:
    """Ink float32 [h, w] on a board, where it is, and the width and height of the sign as shares of the longer."""
    matrix = homography(rng)
    path = mapped(wobbled(placed(sign, (0, 0), 1), rng), matrix) if isinstance(sign, list) and sign else None
    aspect = _aspect(path) if path else (0.8, 1.0)
    place = _place(aspect, rng)
    if path:
        ink = draw(placed(path, place.centre, place.side), place.board, nib, place.side, rng)
    elif isinstance(sign, np.ndarray):
        ink = worn(bitmaps.ink_of(sign, matrix, place.centre, place.side, place.board, rng), nib, rng)
    else:
        ink = np.zeros(place.board, np.float32)
    return ink, place, aspect, nib


def render(path: Path, with_: Pen, rng: np.random.Generator) -> np.ndarray:
    """A random photo, uint8 [h, w] with sides of 12 to 200 pixels, of one path written with this pen."""
    return take(path, rng, with_=with_).pixels


def _aspect(path: Path) -> tuple[float, float]:
    """Width and height as shares of the longer."""
    points = np.concatenate(path)
    w, h = points.max(0) - points.min(0)
    longer = max(float(w), float(h), 1e-3)
    return max(float(w) / longer, 0.05), max(float(h) / longer, 0.05)


def _place(aspect: tuple[float, float], rng: np.random.Generator) -> Place:
    """A size, mostly small, and margins, mostly narrow; one in ten crops cuts the sign a little."""
    side = SIGN[0] * (SIGN[1] / SIGN[0]) ** float(rng.random()) ** 1.5
    roomy = 1.6 if rng.random() < 0.15 else 0.65  # the cell of a form leaves more room than a finder's box
    margins = side * (0.04 + roomy * rng.random(4) ** 2)  # left, top, right, bottom
    if rng.random() < 0.1:
        margins[int(rng.integers(4))] = -side * rng.uniform(0, 0.07)
    w, h = aspect[0] * side, aspect[1] * side
    if max(w, h) > 2 * min(w, h):  # people crop a 1 or a dash no tighter than other digits
        spare = (max(w, h) * 0.6 - min(w, h)) * rng.random()
        margins[[0, 2] if w < h else [1, 3]] += max(spare, 0) / 2
    wide, high = (
        min(max(round(float(length)), SMALLEST), LARGEST)
        for length in (w + margins[0] + margins[2], h + margins[1] + margins[3])
    )
    scale = max(1.0, FINE / side)
    board = round(high * scale), round(wide * scale)
    centre = (margins[0] + w / 2) * scale, (margins[1] + h / 2) * scale
    return Place((high, wide), board, (float(centre[0]), float(centre[1])), float(side * scale))


def _around(aspect: tuple[float, float], place: Place) -> tuple[float, float, float, float]:
    w, h = aspect[0] * place.side, aspect[1] * place.side
    return place.centre[0] - w / 2, place.centre[1] - h / 2, w, h


def _box_of(ink: np.ndarray, place: Place) -> tuple[tuple[int, int, int, int] | None, float]:
    """The ink's box in the photo's pixels, rounded outwards, and the share of it that is ink."""
    import cv2

    x, y, w, h = cv2.boundingRect((ink > max(0.4 * float(ink.max()), 0.03)).astype(np.uint8))
    if not w:
        return None, 0.0
    cover = float(ink[y : y + h, x : x + w].mean() / ink.max())
    down, across = place.size[0] / place.board[0], place.size[1] / place.board[1]
    left, top = int(x * across), int(y * down)
    right, bottom = -int(-(x + w) * across // 1), -int(-(y + h) * down // 1)
    return (left, top, right - left, bottom - top), cover


def _beside(place: Place, aspect: tuple[float, float], nib: Pen, rng: np.random.Generator) -> np.ndarray:
    """What else got into the crop: a neighbour's stroke at the edge, a full stop, specks, a frame's residue."""
    high, wide = place.board
    x, y, w, h = _around(aspect, place)
    which, side = rng.random(), place.side
    if which < 0.35:  # a neighbour reaches in by a few per cent of the sign
        path, _ = digit(rng)
        reach = side * float(rng.uniform(0.0, 0.16))
        low, at = aspect_of(path), float(rng.normal(place.centre[1], 0.1 * side))
        left = rng.random() < 0.5
        centre = reach - low * side / 2 if left else wide - reach + low * side / 2
        gap = x - reach if left else wide - reach - (x + w)
        if gap < 0.03 * side:  # no room: it would touch, and two digits are no digit
            return np.zeros(place.board, np.float32)
        return draw(placed(path, (centre, at), side), place.board, nib, side, rng)
    if which < 0.6:  # a full stop or comma
        dot = np.array(
            [[0.0, 0.0], [0.01, 0.01]] if rng.random() < 0.6 else [[0, 0], [0.0, 0.06], [-0.06, 0.14]]
        )
        foot = np.array([x + w + side * rng.uniform(0.08, 0.3), y + h * rng.uniform(0.85, 1.05)])
        return draw([(dot * side + foot).astype(np.float32)], place.board, nib, side, rng)
    if which < 0.8:
        specks = [
            np.array([p, p + 0.3], np.float32)
            for p in rng.random((int(rng.integers(1, 7)), 2)) * (wide, high)
        ]
        return draw(specks, place.board, Pen(float(rng.uniform(0.01, 0.04)), nib.dark), side, rng)
    lines = frame(place.board, (0.1 * wide, 0.1 * high, 0.8 * wide, 0.8 * high), rng, grid=False)
    return np.float32(rng.uniform(0.3, 0.9)) * lines


def aspect_of(path: Path) -> float:
    """Width of a path as a share of its longer side."""
    return _aspect(path)[0]
