"""The ink of a whole page or strip: on shaded and patterned paper, of pens of several strengths, without ruled lines.

Paper is a running median (what covers less than half of a window is not paper); ink is a share of the paper's
brightness, as a shadow darkens both alike. Every connected piece of what may be ink is then cut at a level of its own
(Otsu, 1979, on its histogram): pencil beside print keeps its strokes, and a printed ground that ties digits
together lets go of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.image import rules
from netsuke.image.ink import grey

WORK = 1600  # pixels of the longer side at which ink is looked for: a digit of a sixtieth still has 27
SMALL = 256  # pixels of the longer side at which paper is looked for
WINDOW = 0.7  # of the shorter side, at most: where the paper's median is taken
NARROW = 61  # pixels of that window at SMALL, at most: shadows are wider
MIN_CONTRAST = 0.06  # of the paper's brightness; fainter is paper
NOISE = 2.5  # sigmas of the paper's own texture that are no ink
CORE = 0.42  # of a piece's solid ink: where a stroke is
EDGE = 0.2  # and how faint the pixels at its edge may be
PALE = 0.28  # of the darkest ink: fainter pieces are print of the ground
LEVELS = 64  # of the histograms


@dataclass(frozen=True, eq=False)
class PageInk:
    """`pixels` uint8 [h, w], 255 = solid ink, 0 = paper; `scale` is the input's pixels a pixel of it, at least 1."""

    pixels: np.ndarray
    scale: float


def page_ink(image: np.ndarray) -> PageInk:
    """The ink of a uint8 image [H, W] or [H, W, 1, 3 (RGB) or 4 (RGBA)] of either polarity.

    Raises DataError where it is no such image.
    """
    full = grey(image)
    scale = max(1.0, max(full.shape) / WORK)
    full = _shrunk(full, WORK)
    contrast, noise = _contrast(full)
    floor = np.maximum(MIN_CONTRAST / 2, NOISE * noise)
    contrast = rules.without_lines(contrast, floor)
    return PageInk(_solid(contrast, floor), scale)


def _shrunk(full: np.ndarray, longer: int) -> np.ndarray:
    """The image with a longer side of `longer` pixels at most, and no side below one."""
    import cv2

    scale = longer / max(full.shape)
    if scale >= 1:
        return full
    size = (max(1, round(full.shape[1] * scale)), max(1, round(full.shape[0] * scale)))
    return cv2.resize(full, size, interpolation=cv2.INTER_AREA)


def _contrast(full: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far pixels are from the paper, float32 [H, W], ink positive; and one sigma of the paper's texture there."""
    import cv2

    small = _shrunk(full, SMALL)
    window = min(NARROW, round(WINDOW * min(small.shape))) | 1
    paper = cv2.medianBlur(small, window) if window >= 3 else small
    paper = cv2.blur(paper, (window // 4 | 1, window // 4 | 1))
    paper = cv2.resize(paper, full.shape[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32)
    rest = paper - full
    strong = np.abs(rest) > 255 * MIN_CONTRAST
    dark = rest[strong].sum() >= 0
    contrast = rest / np.maximum(paper, 32) if dark else rest / -255
    other = _shrunk(np.maximum(-contrast, 0), SMALL)
    noise = cv2.blur(np.minimum(other, 2 * MIN_CONTRAST), (window, window)) * 2.5  # E[max(x, 0)] is 0.4 sigma
    return contrast, cv2.resize(noise, full.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _solid(contrast: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Contrast as a share of the solid ink of its piece, uint8 [H, W]; 0 outside the strokes."""
    import cv2

    likely = (contrast > floor).astype(np.uint8)
    count, label = cv2.connectedComponents(likely, connectivity=8)
    at = np.flatnonzero(likely)
    value, piece = contrast.ravel()[at], label.ravel()[at]
    level = np.minimum((value * LEVELS).astype(np.int64), LEVELS - 1)
    table = np.bincount(piece * LEVELS + level, minlength=count * LEVELS).reshape(count, LEVELS)
    solid = _upper(table)
    solid[solid < max(MIN_CONTRAST, PALE * float(np.percentile(value, 95)) if len(value) else 0)] = np.inf
    share = np.zeros(contrast.shape, np.float32)
    share.ravel()[at] = value / solid[piece]
    core = cv2.dilate((share > CORE).astype(np.uint8), np.ones((3, 3), np.uint8))
    share[(core == 0) | (share < EDGE)] = 0
    return (share.clip(0, 1) * 255).astype(np.uint8)


def _upper(table: np.ndarray) -> np.ndarray:
    """Mean contrast of the upper of Otsu's two classes, of histograms [n, LEVELS]."""
    middle = (np.arange(LEVELS) + 0.5) / LEVELS
    below, total = np.cumsum(table, 1), table.sum(1, keepdims=True)
    mass = np.cumsum(table * middle, 1)
    above, rest = total - below, mass[:, -1:] - mass
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - rest / above) ** 2
        upper = rest / above
    cut = np.nan_to_num(between, nan=-1.0).argmax(1)
    mean = np.where(total[:, 0] > 0, mass[:, -1] / np.maximum(total[:, 0], 1), 0)
    chosen = upper[np.arange(len(table)), cut]
    return np.where(np.isfinite(chosen), chosen, mean).astype(np.float32)
