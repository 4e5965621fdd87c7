"""Photographs with labels, and what training eats: the same photographs after the product's own normaliser."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netsuke import image
from netsuke.errors import OptionError
from netsuke.lab.pens import bitmaps
from netsuke.lab.pens.outliers import Sign, digit, outlier
from netsuke.lab.pens.photos import Photo, ink_alone, take

NONE = 10  # the label of what is no digit
KINDS = {"mnist": 0.35, "photo": 0.25, "pen": 0.385, "print": 0.015}  # shares among the digits
SAME = 0.6  # overlap from which what the finder found is the digit
THIN = 0.04  # variance across a lone stroke as a share of that along it
Normalise = Callable[[np.ndarray], "tuple[np.ndarray, tuple[int, int, int, int]] | None"]


def crops(
    n: int, rng: np.random.Generator, *, kinds: dict[str, float] | None = None, outliers: float = 0.0,
    split: str = "train",
) -> list[tuple[np.ndarray, int]]:  # fmt: skip
    """n photographs uint8 [h, w] with their labels, 0 to 9 or 10 for no digit.

    `kinds` weighs the sources: "photo" (bitmaps laid on paper), "pen" (strokes), "print"; `outliers` is the share
    without a digit.
    """
    weights = kinds or {kind: share for kind, share in KINDS.items() if kind != "mnist"}
    if not set(weights) <= {"photo", "pen", "print"}:
        raise OptionError(f"crops are of photo, pen and print; got {', '.join(weights)}")
    out = []
    for _ in range(n):
        kind = "none" if rng.random() < outliers else _any(weights, rng)
        sign, label = _sign(kind, rng, split)
        out.append((take(sign, rng).pixels, label))
    return out


def samples(
    n: int, seed: int, *, outliers: float = 0.3, kinds: dict[str, float] | None = None, split: str = "train",
    found: float = 0.5, normalise: Normalise | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """n inputs of a model, uint8 [n, 1, 28, 28], and labels int64 [n]: 0 to 9, or 10 for no digit.

    `kinds` weighs the digits' sources (keys of KINDS), `outliers` is the share without one. Of the signs that are
    photographed, the share `found` skips paper and finder: ink as a page's ink map gives it. `normalise` takes a
    photo to the input and the box it was taken from, or to None; the product's own unless given. A photo in which
    it finds nothing, or something other than the digit, is drawn again.
    """
    weights = kinds or KINDS
    if not set(weights) <= set(KINDS) or not 0 <= outliers <= 1:
        raise OptionError(f"samples are of {', '.join(KINDS)}, outliers 0 to 1; got {weights}, {outliers}")
    rng, normalise = np.random.default_rng(seed), normalise or default
    images, labels = np.empty((n, 1, 28, 28), np.uint8), np.empty(n, np.int64)
    kept = 0
    while kept < n:
        kind = "none" if rng.random() < outliers else _any(weights, rng)
        made = _mild(rng, split) if kind == "mnist" else _made(kind, rng, split, found, normalise)
        if made is not None:
            images[kept, 0], labels[kept] = made
            kept += 1
    return images, labels


def default(photo: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int, int]] | None:
    """What the reader feeds a model: find_ink, then fit."""
    ink = image.find_ink(photo)
    return None if ink is None else (image.fit(ink.pixels), ink.box)


def _mild(rng: np.random.Generator, split: str) -> tuple[np.ndarray, int]:
    """An MNIST image as it is, or (six in ten) a little turned, slanted and stretched, and fitted anew."""
    import cv2

    images, labels = bitmaps.bitmaps("mnist", split)
    i = int(rng.integers(len(labels)))
    if rng.random() < 0.4:
        return images[i], int(labels[i])
    turn, shear, wide, high = rng.normal(0, 1, 4) * (0.13, 0.12, 0.08, 0.08)
    c, s = np.cos(turn), np.sin(turn)
    matrix = np.array([[c, -s], [s, c]]) @ np.array([[1 + wide, shear], [0, 1 + high]]) * 1.5
    offset = 24 - matrix @ (13.5, 13.5)
    grown = cv2.warpAffine(images[i], np.column_stack([matrix, offset]), (48, 48), flags=cv2.INTER_CUBIC)
    x, y, w, h = cv2.boundingRect((grown > 32).astype(np.uint8))
    return image.fit(grown[y : y + h, x : x + w]), int(labels[i])


def _any(weights: dict[str, float], rng: np.random.Generator) -> str:
    odds = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(odds, rng.random() * odds[-1]))]


def _made(
    kind: str, rng: np.random.Generator, split: str, found: float, normalise: Normalise
) -> tuple[np.ndarray, int] | None:
    """A sign of that kind as an input; None where it is not found, or an outlier is a digit by accident."""
    sign, label = _sign(kind, rng, split)
    made = _fitted(sign, rng) if rng.random() < found else _found(sign, label, rng, normalise)
    return None if made is None or (label == NONE and _upright(made)) else (made, label)


def _sign(kind: str, rng: np.random.Generator, split: str) -> tuple[Sign, int]:
    if kind == "none":
        return outlier(rng, split), NONE
    if kind == "photo":
        return bitmaps.any_digit(rng, split)
    if kind == "print":
        label = int(rng.integers(10))
        return bitmaps.printed(str(label), bitmaps.typeface(rng)), label
    return digit(rng, split)


def _fitted(sign: Sign, rng: np.random.Generator) -> np.ndarray | None:
    ink = ink_alone(sign, rng)
    return None if ink is None else image.fit(ink)


def _found(sign: Sign, label: int, rng: np.random.Generator, normalise: Normalise) -> np.ndarray | None:
    """The input for a photo of the sign; None where the finder does not find it."""
    photo = take(sign, rng)
    found = normalise(photo.pixels)
    if found is None or (label != NONE and not _is_sign(*found, photo)):
        return None
    return found[0]


def _is_sign(input_: np.ndarray, box: tuple[int, int, int, int], photo: Photo) -> bool:
    """True where what was found stands where the sign does, and is not mostly paper."""
    if photo.box is None or _overlap(box, photo.box) < SAME:
        return False
    w, h = (20 * side / max(box[2:]) for side in box[2:])
    return float(input_.sum()) / 255 < (0.3 + 1.5 * photo.cover) * max(w, 3) * max(h, 3)


def _upright(input_: np.ndarray) -> bool:
    """True where an input is one stroke, upright or slanted: a 1 to anyone, whatever it is a piece of."""
    import cv2

    m = cv2.moments(input_)
    along, across, both = m["mu02"], m["mu20"], m["mu11"]
    spread = float(np.hypot(along - across, 2 * both))
    long, short = along + across + spread, along + across - spread
    return along > 0.4 * across and short < THIN * long


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes (x, y, w, h), each grown a little: a 1 may be a pixel wide."""
    grown = max(b[2:]) / 10
    a, b = (  # type: ignore[assignment]
        (x - grown, y - grown, w + 2 * grown, h + 2 * grown) for x, y, w, h in (a, b)
    )
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)
