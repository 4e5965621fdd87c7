"""What is written on, and the light that falls on it."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np

from netsuke.lab.pens.textures import guilloche, patch, unit

# How often each paper lies under a single sign.
PAPERS = {
    "white": 0.3,
    "toned": 0.15,
    "textured": 0.13,
    "ruled": 0.1,
    "grid": 0.1,
    "box": 0.12,
    "security": 0.1,
}
_KINDS = tuple(PAPERS)
_ODDS = np.cumsum(list(PAPERS.values()))
Box = tuple[float, float, float, float]  # x, y, w, h in pixels


def paper(shape: tuple[int, int], sign: Box, rng: np.random.Generator, kind: str | None = None) -> np.ndarray:
    """Reflectance, float32 [h, w] from 0 to 1, of a paper around a sign that stands in the box `sign`.

    `kind` is a key of PAPERS; printed boxes and ruled lines know where the sign is, as forms do.
    """
    kind = kind or _KINDS[int(np.searchsorted(_ODDS, rng.random() * _ODDS[-1]))]
    tone = 1 - (0.08 if kind == "white" else 0.4) * float(rng.random()) ** 1.5
    out = np.full(shape, tone, np.float32)
    if kind in ("textured", "security") or rng.random() < 0.25:
        strength = (0.05 if kind == "textured" else 0.025) * float(rng.random())
        out += np.float32(strength) * patch(("fibre", "mottle", "grain")[int(rng.integers(3))], shape, rng)
    if kind == "security":
        out -= np.float32(rng.uniform(0.04, 0.3)) * _pattern(shape, sign, rng)
    if kind in ("ruled", "grid", "box"):
        lines = ruled(shape, sign, rng) if kind == "ruled" else frame(shape, sign, rng, grid=kind == "grid")
        out *= 1 - np.float32(rng.uniform(0.12, 0.8)) * lines
    return out


def _pattern(shape: tuple[int, int], sign: Box, rng: np.random.Generator) -> np.ndarray:
    """A security pattern whose lines stand a tenth to a third of the sign apart, in most photos."""
    import cv2

    scale = max(sign[2:]) / float(rng.uniform(25, 110))
    if 0.67 < scale < 1.5:
        return guilloche(shape, rng)
    size = max(4, min(512, round(shape[0] / scale))), max(4, min(512, round(shape[1] / scale)))
    return cv2.resize(guilloche(size, rng), shape[::-1], interpolation=cv2.INTER_LINEAR)


def ruled(shape: tuple[int, int], sign: Box, rng: np.random.Generator) -> np.ndarray:
    """Writing lines, coverage float32 [h, w]: one near the foot of the sign, others a line's height away."""
    x, y, w, h = sign
    gap = h * float(rng.uniform(1.1, 2.2))
    foot = y + h * float(rng.uniform(0.92, 1.3))
    slope = float(rng.normal(0, 0.02))
    lines = [
        ((-9.0, foot + k * gap), (shape[1] + 9.0, foot + k * gap + slope * shape[1])) for k in (-2, -1, 0, 1)
    ]
    if rng.random() < 0.1:
        margin = x - w * float(rng.uniform(0.1, 1))
        lines.append(((margin, -9.0), (margin, shape[0] + 9.0)))
    return strokes(shape, lines, _thickness(h, rng))


def frame(shape: tuple[int, int], sign: Box, rng: np.random.Generator, *, grid: bool) -> np.ndarray:
    """A printed box or comb around the sign, or squared paper that does not care where the sign is."""
    x, y, w, h = sign
    high, wide = shape
    tilt = float(rng.normal(0, 0.03))
    if grid:
        gap = h * float(rng.uniform(0.25, 1.3))
        rows = np.arange(float(rng.uniform(-gap, 0)), high + gap, gap)
        columns = np.arange(float(rng.uniform(-gap, 0)), wide + gap, gap)
    else:
        side = max(w, h)
        left, top, right, bottom = rng.uniform(0.05, 0.45, 4) * side
        rows = np.array([y - top, y + h + bottom])
        columns = np.array([x - left, x + w + right])
    lines = [((-9.0, r - tilt * wide / 2), (wide + 9.0, r + tilt * wide / 2)) for r in rows]
    lines += [((c + tilt * high / 2, -9.0), (c - tilt * high / 2, high + 9.0)) for c in columns]
    if not grid and rng.random() < 0.3:  # a comb has no top; a form may lack any side
        del lines[int(rng.integers(len(lines)))]
    return strokes(shape, lines, _thickness(h, rng))


def _thickness(height: float, rng: np.random.Generator) -> float:
    return max(0.7, height * float(rng.uniform(0.01, 0.05)))


def strokes(
    shape: tuple[int, int], lines: list[tuple[tuple[float, float], tuple[float, float]]], width: float
) -> np.ndarray:
    """Straight lines in pixels as coverage, float32 [h, w] from 0 to 1."""
    import cv2

    canvas = np.zeros(shape, np.uint8)
    solid = int(255 * min(1.0, width / max(1, round(width))))
    for a, b in lines:
        start, end = ((round(16 * p[0]), round(16 * p[1])) for p in (a, b))
        cv2.line(canvas, start, end, solid, max(1, round(width)), cv2.LINE_AA, 4)
    return canvas * np.float32(1 / 255)


def light(shape: tuple[int, int], rng: np.random.Generator, uneven: float = 0.3) -> np.ndarray | np.float32:
    """Illumination, 0 to 1: a number where it is even, else float32 [h, w] (ramp, vignette, soft shadows)."""
    level = np.float32(1 - 0.45 * rng.random() ** 2.5)
    if rng.random() >= uneven:
        return level
    y, x = (
        np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None],
        np.linspace(-1, 1, shape[1], dtype=np.float32),
    )
    angle = float(rng.uniform(0, 2 * pi))
    along = x * np.float32(cos(angle)) + y * np.float32(sin(angle))
    which = rng.random()
    if which < 0.45:  # a ramp
        return level * (1 - np.float32(rng.uniform(0.05, 0.45)) * (along / 2.8 + 0.5))
    if which < 0.6:
        return level * (1 - np.float32(rng.uniform(0.05, 0.3)) * (x * x + y * y))
    depth, at, soft = rng.uniform(0.08, 0.45), rng.uniform(-0.8, 0.8), 0.1 * 15 ** rng.random()
    bend = np.float32(rng.normal(0, 0.3)) * (y * np.float32(cos(angle)) - x * np.float32(sin(angle))) ** 2
    edge = unit((along + bend - np.float32(at)) / np.float32(soft) + np.float32(0.5))
    return level * (1 - np.float32(depth) * edge)
