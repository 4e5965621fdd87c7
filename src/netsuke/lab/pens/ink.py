"""A path to ink: the hand (slant, turn, tremor), then the pen (width, pressure, grain, gaps)."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np

from netsuke.lab.pens.strokes import Path
from netsuke.lab.pens.textures import patch, unit

SHIFT = 4  # bits of a pixel's fraction in OpenCV's coordinates


@dataclass(frozen=True)
class Pen:
    """`width` of the line as a share of the sign's longer side, `dark` from 0 (invisible) to 1 (black).

    Shares from 0 to 1: `pressure` varies the width, `fade` the darkness, `grain` lets the paper's tooth through,
    `gaps` leaves pieces out.
    """

    width: float
    dark: float = 0.85
    pressure: float = 0.15
    fade: float = 0.1
    grain: float = 0.0
    gaps: float = 0.0


# Width (low, high), darkness (low, high), pressure, fade, grain and gaps (each up to), and how often.
PENS = {
    "ball": ((0.015, 0.055), (0.45, 0.97), 0.35, 0.4, 0.15, 0.35, 0.34),
    "pencil": ((0.02, 0.06), (0.27, 0.8), 0.4, 0.4, 0.6, 0.1, 0.22),
    "gel": ((0.03, 0.08), (0.7, 1.0), 0.2, 0.15, 0.05, 0.0, 0.16),
    "felt": ((0.05, 0.1), (0.6, 1.0), 0.25, 0.3, 0.15, 0.05, 0.14),
    "marker": ((0.08, 0.14), (0.75, 1.0), 0.15, 0.2, 0.1, 0.0, 0.08),
    "screen": ((0.03, 0.12), (0.9, 1.0), 0.0, 0.0, 0.0, 0.0, 0.06),
}
_ODDS = np.cumsum([kind[-1] for kind in PENS.values()])


def pen(rng: np.random.Generator, kind: str | None = None) -> Pen:
    """A random pen, of the `kind` given (a key of PENS) or of any."""
    chosen = (
        PENS[kind] if kind else list(PENS.values())[int(np.searchsorted(_ODDS, rng.random() * _ODDS[-1]))]
    )
    (thin, thick), (faint, dark), *rest, _ = chosen
    u = rng.random(6)
    return Pen(
        float(thin * (thick / thin) ** u[0]),
        float(faint + (dark - faint) * u[1]),
        *(float(most * share) for most, share in zip(rest, u[2:], strict=True)),
    )


# --- the hand ----------------------------------------------------------------------------------------


def homography(rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """A random view of a sign about the origin, float64 [3, 3]: aspect, slant, turn (to 25°), perspective."""
    u = rng.uniform(-1, 1, 5) * strength
    aspect, slant, turn = 1.25 ** u[0], 0.35 * u[1], radians(25 * u[2] * abs(u[2]) ** 0.5)
    c, s = cos(turn), sin(turn)
    shape = np.array([[aspect, -slant, 0], [0, 1 / aspect, 0], [0, 0, 1]])
    view = np.array([[c, -s, 0], [s, c, 0], [0.25 * u[3], 0.25 * u[4], 1]])
    return view @ shape


def mapped(path: Path, matrix: np.ndarray) -> Path:
    """Every point through a homography [3, 3]."""
    points = np.concatenate(path) @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32)
    return _split(points[:, :2] / points[:, 2:], path)


def wobbled(path: Path, rng: np.random.Generator, amount: float = 1.0) -> Path:
    """Bent smoothly, by up to some 4 % of the sign: each point shifted by slow waves over the plane."""
    points = np.concatenate(path)
    waves = points @ rng.normal(0, 5, (2, 3)).astype(np.float32) + rng.uniform(0, 6.3, 3).astype(np.float32)
    shift = np.sin(waves) @ rng.normal(0, 0.013 * amount, (3, 2)).astype(np.float32)
    return _split(points + shift, path)


def placed(path: Path, centre: tuple[float, float], side: float) -> Path:
    """Scaled so that the longer side of its box is `side`, with the middle of the box at `centre` (x, y)."""
    points = np.concatenate(path)
    low, high = points.min(0), points.max(0)
    scale = side / max(float((high - low).max()), 1e-3)
    middle = (low + high) / 2
    return [(stroke - middle) * np.float32(scale) + np.array(centre, np.float32) for stroke in path]


def _split(points: np.ndarray, like: Path) -> Path:
    if len(like) == 1:
        return [points]
    return np.split(points, np.cumsum([len(stroke) for stroke in like])[:-1])


# --- the pen -----------------------------------------------------------------------------------------


def draw(path: Path, shape: tuple[int, int], pen: Pen, side: float, rng: np.random.Generator) -> np.ndarray:
    """Ink of a path in pixels, float32 [h, w] from 0 to 1, by a pen whose width is a share of `side` pixels.

    A pixel is inked by its distance to the path, which gives soft edges and widths that vary at no cost.
    """
    import cv2

    canvas = np.full(shape, 255, np.uint8)
    lines = [np.round(stroke * (1 << SHIFT)).astype(np.int32)[:, None] for stroke in path if len(stroke)]
    if not lines:
        return np.zeros(shape, np.float32)
    cv2.polylines(canvas, lines, False, 0, 1, cv2.LINE_8, SHIFT)
    distance = cv2.distanceTransform(canvas, cv2.DIST_L2, 3)
    radius = pen.width * side / 2
    if pen.pressure:
        ink = radius * (1 + np.float32(pen.pressure * 0.6) * patch("cloud", shape, rng)) - distance
        ink += 0.5
    else:
        ink = np.float32(radius + 0.5) - distance
    ink = np.minimum(np.maximum(ink, 0), np.float32(min(1.0, max(2 * radius, 0.2))))
    return worn(ink, pen, rng)


def worn(ink: np.ndarray, pen: Pen, rng: np.random.Generator) -> np.ndarray:
    """Ink [h, w] as the pen lays it down on paper: its darkness, faded, grainy, with gaps."""
    shape = ink.shape[0], ink.shape[1]
    ink = ink * np.float32(pen.dark)
    if pen.fade > 0.05:
        ink *= np.maximum(
            1 - np.float32(0.6 * pen.fade) * np.abs(patch("cloud", shape, rng)), np.float32(0.4)
        )
    if pen.grain > 0.05:
        ink *= unit(1.2 - np.float32(pen.grain) * patch("grain", shape, rng))
    if pen.gaps > 0.2:
        ink *= unit(np.float32(4.2 - 3 * pen.gaps) - 2 * patch("mottle", shape, rng))
    return ink
