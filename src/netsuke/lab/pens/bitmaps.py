"""Digits that come as pixels: MNIST, optdigits and Semeion, and print, to be laid on paper as ink."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from netsuke.data import load
from netsuke.errors import OptionError
from netsuke.lab.pens.textures import unit

# Digit sets (training halves only) and how often each is drawn; the last are no digits.
DIGITS = {"mnist": 0.86, "semeion": 0.08, "optdigits": 0.06}
ITEMS = "fashion-mnist"
FONTS = (0, 1, 2, 3, 4, 5, 6, 7)  # cv2.FONT_HERSHEY_*; the last two are scripts


@lru_cache(maxsize=8)
def bitmaps(name: str, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, H, W], bright ink on 0, and labels of the training images of a set, or of those that validate.

    Both come from the set's training half, divided as `netsuke.data.load` divides it. Raises DataError.
    """
    if split not in ("train", "val"):
        raise OptionError(f"bitmaps come in train and val; got {split!r}")
    part = getattr(load(name), split)
    return part.images[:, 0], part.labels


def any_digit(rng: np.random.Generator, split: str = "train") -> tuple[np.ndarray, int]:
    """A digit's bitmap uint8 [h, w], and its label."""
    name = list(DIGITS)[int(np.searchsorted(np.cumsum(list(DIGITS.values())), rng.random() * 0.999))]
    images, labels = bitmaps(name, split)
    i = int(rng.integers(len(labels)))
    image = images[i]
    if name == "semeion":  # stretched to a square; the true aspect is lost, this is the usual one
        import cv2

        image = cv2.resize(image, (round(16 * (0.4 if labels[i] == 1 else 0.7) * rng.uniform(0.85, 1.2)), 16))
    return image, int(labels[i])


def typeface(rng: np.random.Generator) -> tuple[int, int]:
    """One of OpenCV's fonts, and the breadth of its strokes."""
    import cv2

    font = int(rng.choice(FONTS)) | (cv2.FONT_ITALIC if rng.random() < 0.2 else 0)
    return font, 1 if rng.random() < 0.6 else int(rng.integers(2, 7))


def printed(text: str, face: tuple[int, int]) -> np.ndarray:
    """Text in a typeface, uint8 [h, w], white on black, the capitals some 40 pixels high."""
    import cv2

    (font, weight), scale = face, 40 / 22
    (w, h), base = cv2.getTextSize(text, font, scale, weight)
    canvas = np.zeros((h + base + 2 * weight + 6, w + 2 * weight + 6), np.uint8)
    cv2.putText(canvas, text, (weight + 3, h + weight + 3), font, scale, 255, weight, cv2.LINE_AA)
    return canvas


def ink_of(
    bitmap: np.ndarray, matrix: np.ndarray, centre: tuple[float, float], side: float, shape: tuple[int, int],
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Coverage float32 [h, w], 0 to 1, of a bitmap seen through a homography about its middle.

    The longer side of its ink becomes `side` pixels with the middle at `centre`. The blocks of a low resolution
    are smoothed, then the edge is drawn anew at a random level, so that strokes come out thinner or thicker.
    """
    level, edge = float(rng.uniform(60, 160)), float(rng.uniform(0.3, 1.0))
    return traced(bitmap, through(bitmap, matrix, centre, side), shape, level, edge)


def traced(
    bitmap: np.ndarray, warp: np.ndarray, shape: tuple[int, int], level: float, edge: float
) -> np.ndarray:
    """Coverage float32 [h, w] of a bitmap through the homography `warp`, cut at the grey `level`.

    `edge` from 0 to 1 is how sharply.
    """
    import cv2

    if max(bitmap.shape) < 20:
        bitmap = cv2.resize(bitmap, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
        warp = warp @ np.array([[0.25, 0, -0.375], [0, 0.25, -0.375], [0, 0, 1]])
    grown = max(1.0, float(np.hypot(warp[0, 0], warp[1, 0]) / abs(warp[2, 2])))  # pixels here a pixel there
    ink = cv2.warpPerspective(bitmap, warp, shape[::-1], flags=cv2.INTER_CUBIC)
    if grown > 1.5:
        ink = cv2.GaussianBlur(ink, (0, 0), 0.45 * grown)
    steep = max(grown * edge / 160, 0.5 / level)  # steep enough that paper stays bare
    return unit((ink - np.float32(level)) * np.float32(steep) + np.float32(0.5))


def through(bitmap: np.ndarray, matrix: np.ndarray, centre: tuple[float, float], side: float) -> np.ndarray:
    """The homography [3, 3] from a bitmap's pixels to those of the paper; see `ink_of`."""
    import cv2

    x, y, w, h = cv2.boundingRect((bitmap > 60).astype(np.uint8))
    if not w:
        (h, w), x, y = bitmap.shape, 0, 0
    x0, y0, x1, y1 = x - 0.5, y - 0.5, x + w - 0.5, y + h - 0.5
    size = max(y1 - y0, x1 - x0)
    middled = np.array(
        [[1 / size, 0, -(x0 + x1) / 2 / size], [0, 1 / size, -(y0 + y1) / 2 / size], [0, 0, 1]]
    )
    corners = matrix @ middled @ np.array([[x0, x1, x1, x0], [y0, y0, y1, y1], [1, 1, 1, 1]])
    corners = corners[:2] / corners[2]
    low, high = corners.min(1), corners.max(1)
    scale = side / float((high - low).max())
    middle = (low + high) / 2
    place = np.array(
        [[scale, 0, centre[0] - scale * middle[0]], [0, scale, centre[1] - scale * middle[1]], [0, 0, 1]]
    )
    return place @ matrix @ middled
