"""The data set "handwriting": digits and what is none, as the reader's normaliser gives them; see docs/scenes.md."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netsuke.data.made import Part
from netsuke.errors import DataError
from netsuke.lab import pens
from netsuke.lab.pens import bitmaps, strokes

OUTLIERS = 0.35  # of the images; the rest are digits


def check() -> None:
    """Raise DataError where a set that the images are made from is missing, before hours are spent."""
    try:
        for kind in strokes.FILES:
            pens.load(kind)
        for name in (*bitmaps.DIGITS, bitmaps.ITEMS):
            bitmaps.bitmaps(name)
    except DataError as error:
        raise DataError(f"handwriting is made from pen strokes and other sets: {error}") from error


def make(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 1, 28, 28] and labels [n], 0 to 9, or 10 for no digit."""
    return KINDS[part.kind](part)


def _signs(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Single signs on any paper."""
    return pens.samples(part.count, part.seed, outliers=OUTLIERS, split=part.half)


# A kind of part: its name in the catalogue's list, and how it is made. The first images must not depend on the count.
KINDS: dict[str, Callable[[Part], tuple[np.ndarray, np.ndarray]]] = {"signs": _signs}
