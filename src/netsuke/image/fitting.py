"""Ink to the model's input: scaled into a box, centred, and as strong as MNIST's, in whole numbers of 32 bits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from netsuke.errors import OptionError
from netsuke.image.paper import ranked

FULL = 75  # the percentile of the input's ink that becomes 255: lifts the strokes of a thin pen to MNIST's
FAINT = 30  # of turned ink: what is fainter is a blurred edge
BATCH = 64  # crops that are fitted together
LARGE = 128  # pixels of a side from which a crop is fitted alone
GRAIN = 4  # the 8x8 digits count ink in blocks of 4x4, which places them to a quarter of a pixel


def fit(ink: np.ndarray, *, size: int = 28, box: int = 20, centring: str = "mass") -> np.ndarray:
    """Bright ink uint8 [h, w] -> uint8 [size, size]: longer side `box`, centred by "mass" or "box", peak 255.

    Raises OptionError where `box` is not 1 to `size`, or for another centring.
    """
    if not 1 <= box <= size or centring not in ("mass", "box"):
        raise OptionError(f"box must be 1 to {size} and centring mass or box; got {box} and {centring!r}")
    grain = 1 if centring == "mass" else GRAIN
    whole = size * grain
    ink = _boxed(ink, box * grain)[:whole, :whole].astype(np.int32)
    h, w = ink.shape
    if centring == "mass":  # MNIST's own centres of mass lie from 14.0 to 15.0 of 28: it rounded up
        total = max(int(ink.sum()), 1)
        y, x = int(ink.sum(1) @ np.arange(h)), int(ink.sum(0) @ np.arange(w))
        top, left = (-((2 * moment - (size - 1) * total) // (2 * total)) for moment in (y, x))
    else:
        top, left = (whole - h) // 2, (whole - w) // 2
    top, left = min(max(top, 0), whole - h), min(max(left, 0), whole - w)
    out: np.ndarray = np.zeros((whole, whole), np.int32)
    out[top : top + h, left : left + w] = ink
    if grain > 1:
        out = (out.reshape(size, grain, size, grain).sum((1, 3)) + grain * grain // 2) // (grain * grain)
    solid = ranked(out[out > 0], FULL if centring == "mass" else 100)
    return np.minimum((510 * out + solid) // (2 * max(solid, 1)), 255).astype(np.uint8)


def fits(crops: Sequence[np.ndarray], *, size: int = 28, box: int = 20, centring: str = "mass") -> np.ndarray:
    """What `fit` makes of each of some crops, uint8 [n, size, size]: the same, in a quarter of the time."""
    out = np.empty((len(crops), size, size), np.uint8)
    small = [
        k for k, ink in enumerate(crops) if max(ink.shape) < LARGE and centring == "mass" and box <= size
    ]
    for k in set(range(len(crops))) - set(small):
        out[k] = fit(crops[k], size=size, box=box, centring=centring)
    order = sorted(small, key=lambda k: crops[k].shape)  # alike ones together: they are padded
    for at in range(0, len(order), BATCH):
        part = order[at : at + BATCH]
        out[part] = _fits([crops[k] for k in part], size, box)
    return out


def turned(ink: np.ndarray, degrees: float) -> np.ndarray:
    """Ink uint8 [h, w] turned counterclockwise, cut to what is left of it."""
    import cv2

    h, w = ink.shape
    rim = max(h, w) // 3
    side = h + 2 * rim, w + 2 * rim
    view = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 1.0)
    view[:, 2] += rim
    out = cv2.warpAffine(ink, view, side[::-1])
    x, y, w, h = cv2.boundingRect((out > FAINT).view(np.uint8))
    return out[y : y + h, x : x + w] if w else ink


def _fits(crops: Sequence[np.ndarray], size: int, box: int) -> np.ndarray:
    n, (high, wide) = len(crops), np.max([ink.shape for ink in crops], 0)
    # shares of areas add up to less than 2^24, which 32 bits hold; those of what is enlarged do not
    kind = np.float32 if min(max(ink.shape) for ink in crops) > box else np.float64
    ink, (down, across) = (
        np.zeros((n, high, wide), kind),
        (np.zeros((n, size, side), kind) for side in (high, wide)),
    )
    area, sides = np.empty((n, 1, 1)), np.empty((2, n), np.int64)
    for k, crop in enumerate(crops):
        (h, w), (first, second, whole) = crop.shape, _scaling(crop.shape, box)
        ink[k, :h, :w], area[k], sides[:, k] = crop, whole, (min(len(first), size), min(len(second), size))
        down[k, : len(first), :h], across[k, : len(second), :w] = first[:size], second[:size]
    sums = (down @ ink @ across.transpose(0, 2, 1)).astype(np.float64)
    boxed = np.floor((2 * sums + area) / (2 * area)).clip(0, 255).astype(np.int32)
    place, total = np.arange(size), np.maximum(boxed.sum((1, 2)), 1)
    moments = boxed.sum(2) @ place, boxed.sum(1) @ place
    starts = [-((2 * moment - (size - 1) * total) // (2 * total)) for moment in moments]
    top, left = (
        (place - np.minimum(start.clip(0), size - side)[:, None]) % size
        for start, side in zip(starts, sides, strict=True)
    )
    out = boxed[np.arange(n)[:, None, None], top[:, :, None], left[:, None]]
    levels = np.sort(out.reshape(n, -1).astype(np.uint8), 1)
    some = np.count_nonzero(levels, 1)
    rank = size * size - some + (some - 1) * FULL // 100
    solid = np.maximum(levels[np.arange(n), rank], 1).astype(np.int32)[:, None, None]
    return np.minimum((510 * out + solid) // (2 * solid), 255).astype(np.uint8)


def _boxed(ink: np.ndarray, box: int) -> np.ndarray:
    """Ink scaled so that its longer side is `box`."""
    down, across, area = _scaling(ink.shape, box)
    if area == 1:
        return ink
    sums = (down @ ink.astype(np.float64) @ across.T).astype(np.int32)  # exact: below 2^31
    return ((2 * sums + area) // (2 * area)).clip(0, 255)


@lru_cache(1024)
def _scaling(shape: tuple[int, ...], box: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Weights down and across, and what they add up to."""
    longer = max(shape)
    if abs(longer - box) <= box // 20:  # ink that fits already would only be blurred
        return np.eye(shape[0]), np.eye(shape[1]), 1
    weigh, unit = (_area, 0) if longer > box else (_cubic, 256)
    down, across = (weigh(side, max(1, (2 * side * box + longer) // (2 * longer))) for side in shape)
    return down, across, unit * unit or shape[0] * shape[1]


@lru_cache(256)
def _area(have: int, want: int) -> np.ndarray:
    """How much of each of `have` pixels lies in each of `want`, float64 [want, have]; rows sum to `have`."""
    begin, place = np.arange(want)[:, None] * have, np.arange(have) * want
    overlap = np.minimum(begin + have, place + want) - np.maximum(begin, place)
    return overlap.clip(0).astype(np.float64)


@lru_cache(256)
def _cubic(have: int, want: int) -> np.ndarray:
    """Weights of the four nearest pixels (Keys, 1981, a = -3/4), float64 [want, have]; rows sum to 256."""
    out = np.zeros((want, have))
    for i in range(want):
        base, part = divmod((2 * i + 1) * have - want, 2 * want)
        t = part * 256 // (2 * want)
        s, half = 256 - t, 1 << 17
        before, after = -(3 * t * s * s + half >> 18), -(3 * t * t * s + half >> 18)
        near = 256 - (t * t * (2304 - 5 * t) + half >> 18)
        for k, weight in enumerate((before, near, 256 - before - near - after, after)):
            out[i, min(max(base - 1 + k, 0), have - 1)] += weight
    return out
