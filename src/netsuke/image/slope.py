"""By how much lines rise across an image, and the image with such lines level."""

from __future__ import annotations

import numpy as np

TINY = 256  # parts of the image's longer side in which lines are told apart
GRAIN = 5  # pixels: one column of so many is asked
RISES = np.linspace(-0.16, 0.16, 17, dtype=np.float32)  # slopes that are tried
LEVEL = 0.07  # what rises less is level
LARGE = 200  # pixels of the shorter side, at least: across less, digits seem lines
LINED = 3.0  # by how much more ink's sums change from one line to the next than from one row to the next


def rise(ink: np.ndarray) -> float:
    """By how much thin lines rise, pixels per pixel to the right: where sums of ink along them change most from one to
    the next (Hough's transform, of slopes only); 0 where that is about as flat, or no lines are, or too
    little is seen."""
    if min(ink.shape) < LARGE:
        return 0.0
    scale = min(1.0, TINY / max(ink.shape))
    y, x = np.nonzero(ink[:, ::GRAIN] > 0)
    y, x = y.astype(np.float32) * scale + TINY, (GRAIN * x.astype(np.float32) - ink.shape[1] / 2) * scale
    places = ((y - share * x).astype(np.int32) for share in RISES)
    steps = [np.diff(np.bincount(place)) for place in places]
    change = np.array([step @ step for step in steps])
    best = int(change.argmax())
    lined = change[best] > LINED * change[len(RISES) // 2]
    return float(RISES[best]) if lined and abs(RISES[best]) > LEVEL else 0.0


def moved(part: np.ndarray, slope: float, high: int | None = None) -> np.ndarray:
    """Columns of an image uint8 [h, w] moved up by `slope` times their place, on as many rows as that takes, or on
    `high` rows, of which the middle stays."""
    import cv2

    if not slope:
        return part
    h, w = part.shape
    tall = high or h + 2 * round(abs(slope) * w / 2)
    view = np.array([[1, 0, 0], [slope, 1, (h - tall) / 2 - slope * w / 2]], np.float32)
    return cv2.warpAffine(part, view, (w, tall), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
