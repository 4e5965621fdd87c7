"""Hands: one person's digits and letters, from pen strokes or from MNIST images that could be one person's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from netsuke.lab.pens import bitmaps
from netsuke.lab.pens.ink import Pen, mapped, pen, placed, wobbled
from netsuke.lab.pens.outliers import LETTERS
from netsuke.lab.pens.strokes import Path, Strokes, load

RISING = 0.25  # share of the hands that begin a 1 with a long stroke upwards, as much of Europe does
BITMAPS = 0.25  # share of the hands whose digits are MNIST's
NEAR = 0.15  # the part of MNIST, by stroke weight, that counts as one hand
TALL = set("bdfhkltgpqy") | set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
ROWS = 24  # bands of a glyph's height in which its sides are known


@dataclass(frozen=True, eq=False)
class Glyph:
    """A sign ready to be set: its foot on y = 0, its left edge on x = 0, its height 1 (so y runs from -1 to 0).

    Either `path`, or a `bitmap` uint8 [h, w] that the homography `warp` brings there. `left` and `right` are its
    sides in each band of height, from the top of a line to below its foot; inf where a band is empty.
    """

    path: Path | None
    bitmap: np.ndarray | None
    warp: np.ndarray
    width: float
    left: np.ndarray
    right: np.ndarray


@dataclass(frozen=True, eq=False)
class Hand:
    """A writer with a pen: `slant` (x per y), `aspect`, `wobble`; `writer` is None where the digits are MNIST's."""

    pen: Pen
    writer: int | None
    split: str
    slant: float
    aspect: float
    wobble: float
    level: float  # grey level at which its bitmaps are cut
    weight: float  # where in MNIST's order of stroke weights its digits come from, 0 to 1
    face: tuple[int, int] | None = None  # a typeface, of one that prints its digits
    rise: float = 0.0  # length of the stroke upwards before a 1, as a share of its height; 0: as written

    def digit(self, label: int, rng: np.random.Generator) -> Glyph:
        """A digit as this hand writes it; another hand's where it never wrote that one."""
        if self.face:
            return pixels(bitmaps.printed(str(label), self.face), self._shape(), self.level)
        if label == 1 and self.rise:
            return self.strokes(_rising(self.rise * float(rng.uniform(0.8, 1.2)), rng), rng)
        if self.writer is None:
            images = _by_weight(self.split)[label]
            i = int((self.weight + NEAR * rng.uniform(-0.5, 0.5)) % 1 * len(images))
            return pixels(bitmaps.bitmaps("mnist", self.split)[0][images[i]], self._shape(), self.level)
        return self.strokes(_written("digits", self.split, self.writer, str(label), rng), rng)

    def sign(self, kind: str, label: str, rng: np.random.Generator) -> Glyph:
        """A letter or a symbol, of any writer."""
        return self.strokes(_written(kind, self.split, -1, label, rng), rng)

    def strokes(self, path: Path, rng: np.random.Generator) -> Glyph:
        """A path, slanted as all of this hand's, as a glyph."""
        path = mapped(wobbled(placed(path, (0, 0), 1), rng, self.wobble), self._shape())
        points = np.concatenate(path)
        low, high = points.min(0), points.max(0)
        size = _size(*(high - low))
        path = [(stroke - (low[0], high[1])).astype(np.float32) / np.float32(size) for stroke in path]
        return _glyph(path, None, np.eye(3), np.concatenate([_dense(stroke) for stroke in path]))

    def _shape(self) -> np.ndarray:
        return np.array([[self.aspect, -self.slant, 0], [0, 1, 0], [0, 0, 1.0]])


def hand(rng: np.random.Generator, split: str = "train", *, kind: str | None = None) -> Hand:
    """A random hand; its pen is of `kind` (a key of netsuke.lab.pens.PENS) or of any."""
    writers = _writers(split)
    return Hand(
        pen(rng, kind),
        None if rng.random() < BITMAPS else int(writers[int(rng.integers(len(writers)))]),
        split,
        slant=float(rng.normal(0, 0.13)),
        aspect=float(1.2 ** rng.normal(0, 0.6)),
        wobble=float(rng.uniform(0.2, 0.9)),
        level=float(rng.uniform(60, 150)),
        weight=float(rng.random()),
        rise=float(rng.uniform(0.35, 1.0)) if rng.random() < RISING else 0.0,
    )


def pixels(bitmap: np.ndarray, shape: np.ndarray, level: float) -> Glyph:
    """A bitmap as a glyph, seen through the homography `shape` and cut at a grey `level`."""
    warp = bitmaps.through(bitmap, shape, (0.0, 0.0), 1.0)
    rows, columns = np.nonzero(bitmap > level)
    points = _through(warp, columns, rows)
    low, high = points.min(0), points.max(0)
    size = _size(*(high - low))
    home = np.array([[1 / size, 0, -low[0] / size], [0, 1 / size, -high[1] / size], [0, 0, 1]])
    return _glyph(None, bitmap, home @ warp, _through(home @ warp, columns, rows))


def printing(hand: Hand, rng: np.random.Generator) -> Hand:
    """The same hand with a printer's digits."""
    return replace(hand, face=bitmaps.typeface(rng), slant=0.0)


def steadier(hand: Hand, width: float) -> Hand:
    """The same hand with a pen at least so wide: a hairline vanishes in small writing."""
    return replace(hand, pen=replace(hand.pen, width=max(hand.pen.width, width), gaps=0.0))


# --- samples -----------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _writers(split: str) -> np.ndarray:
    """Those who wrote most of the digits."""
    strokes = load("digits", split)
    everyone = np.unique(strokes.writers)
    return np.array([w for w in everyone if len(np.unique(strokes.labels[strokes.writers == w])) >= 8])


@lru_cache(maxsize=6)
def _index(kind: str, split: str) -> tuple[Strokes, dict[str, np.ndarray]]:
    """Strokes, and for each label the samples ordered by writer."""
    strokes = load(kind, split)
    order = np.argsort(strokes.writers, kind="stable")
    return strokes, {label: order[strokes.labels[order] == label] for label in np.unique(strokes.labels)}


def _written(kind: str, split: str, writer: int, label: str, rng: np.random.Generator) -> Path:
    strokes, index = _index(kind, split)
    samples = index[label]
    first, end = np.searchsorted(strokes.writers[samples], [writer, writer + 1])
    if first == end:
        first, end = 0, len(samples)
    return strokes.path(int(samples[int(rng.integers(first, end))]))


def _rising(rise: float, rng: np.random.Generator) -> Path:
    """A 1 of a stroke upwards and one down, perhaps with a bar under it."""
    reach, lean = rise * float(rng.uniform(0.35, 0.75)), float(rng.normal(0, 0.06))
    bend = float(rng.normal(0, 0.06))
    up = [[-reach, rise - 1], [-reach / 2 + bend, rise / 2 - 1], [0, -1], [lean, 0]]
    path = [np.array(up, np.float32)]
    if rng.random() < 0.12:
        wide = float(rng.uniform(0.15, 0.35))
        path.append(np.array([[lean - wide, 0], [lean + wide, 0]], np.float32))
    return path


@lru_cache(maxsize=2)
def _by_weight(split: str) -> list[np.ndarray]:
    """MNIST's images of each digit in the order of their stroke weight: ink over half the length of its edge."""
    images, labels = bitmaps.bitmaps("mnist", split)
    ink = images.reshape(len(images), -1).sum(1, dtype=np.int64)
    edge = np.abs(np.diff(images.astype(np.int16), axis=1)).reshape(len(images), -1).sum(1, dtype=np.int64)
    edge += np.abs(np.diff(images.astype(np.int16), axis=2)).reshape(len(images), -1).sum(1, dtype=np.int64)
    order = np.argsort(ink / edge, kind="stable")
    return [order[labels[order] == label] for label in range(10)]


def word(rng: np.random.Generator, length: int) -> str:
    """Letters that are no look-alikes of digits, upper or lower case."""
    lower = rng.random() < 0.75
    letters = [c for c in LETTERS if c.islower() == lower]
    return "".join(letters[int(i)] for i in rng.integers(len(letters), size=length))


# --- outlines ----------------------------------------------------------------------------------------


def _size(width: float, height: float) -> float:
    """What becomes 1: the height, unless the sign is far wider than high (a hasty 2, a lying 1)."""
    return max(float(height), float(width) / 1.5, 1e-3)


def _glyph(path: Path | None, bitmap: np.ndarray | None, warp: np.ndarray, points: np.ndarray) -> Glyph:
    band = ((points[:, 1] + 1.25) / 1.5 * ROWS).astype(int)
    band = np.minimum(np.maximum(band, 0), ROWS - 1)
    left, right = np.full(ROWS, np.inf), np.full(ROWS, -np.inf)
    np.minimum.at(left, band, points[:, 0])
    np.maximum.at(right, band, points[:, 0])
    return Glyph(path, bitmap, warp, float(points[:, 0].max()), left, right)


def _through(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Points [n, 2] through a homography."""
    out = np.stack([x, y, np.ones_like(x)], 1) @ matrix.T
    return out[:, :2] / out[:, 2:]


def _dense(stroke: np.ndarray) -> np.ndarray:
    """Points in between, so that no band of a long straight piece stays empty."""
    if len(stroke) < 2:
        return stroke
    at = np.linspace(0, len(stroke) - 1, max(len(stroke) * 3, 2 * ROWS))
    i = np.minimum(at.astype(int), len(stroke) - 2)
    share = (at - i)[:, None].astype(np.float32)
    return stroke[i] * (1 - share) + stroke[i + 1] * share
