"""Handwriting made to order: pen strokes and bitmaps, photographed on any paper, with exact labels.

>>> from netsuke.lab import pens
>>> images, labels = pens.samples(256, seed=0, outliers=0.3)  # doctest: +SKIP
"""

from netsuke.lab.pens.ink import PENS, Pen, pen
from netsuke.lab.pens.photos import Photo, render, take
from netsuke.lab.pens.sampling import KINDS, NONE, crops, samples
from netsuke.lab.pens.strokes import Path, Strokes, load

__all__ = [
    "KINDS", "NONE", "PENS", "Path", "Pen", "Photo", "Strokes", "crops", "load", "pen", "render", "samples", "take",
]  # fmt: skip
