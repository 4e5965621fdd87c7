"""What is no digit: letters and signs that no one would take for one, scribbles, pieces, several at once, print."""

from __future__ import annotations

import string
from functools import lru_cache

import numpy as np

from netsuke.lab.pens import bitmaps
from netsuke.lab.pens.strokes import Path, Strokes, load

# Left out of the outliers, because out of context a person would read a digit.
LOOKALIKES = {
    "OoDQ": "0; D and Q when hasty",
    "lIi|!/\\()'`,Jj": "1: an upright or slanted stroke (a dot beside it is taken for a full stop)",
    "Zz": "2",
    "?": "2 or 7 with a full stop",
    "y": "4 or 9",
    "Ss": "5",
    "b": "6",
    "LT": "some write 1 or 7 so; T is kept below, its bar crosses the stem",
    "B": "8 or 13",
    "gq": "9",
}
KEPT = {"T"}
LETTERS = "".join(c for c in string.ascii_letters if c in KEPT or not any(c in group for group in LOOKALIKES))
SIGNS = "".join(c for c in "#$%&*+-.:;<=>@[]^_{}~" if not any(c in group for group in LOOKALIKES))

# Halves that are no digit themselves (half an 8 is a 0 or a 3): which side of which digit is kept.
HALVES = {0: "tb", 2: "b", 3: "tb", 4: "t", 5: "tb", 8: "l"}

Sign = Path | np.ndarray  # strokes, or a bitmap uint8 [h, w] with bright ink


def outlier(rng: np.random.Generator, split: str = "train", *, several: bool = True) -> Sign:
    """A random sign that is no digit; an empty path where only the paper shows.

    `several`: also digits side by side, which are none together; on a page each of them is one.
    """
    while True:
        make = MAKERS[int(np.searchsorted(_ODDS, rng.random() * _ODDS[-1]))]
        if several or make is not _several:
            return make(rng, split)


@lru_cache(maxsize=4)
def _clear(kind: str, split: str) -> tuple[Strokes, np.ndarray, np.ndarray]:
    """The samples of clear classes, where each class starts among them, and how many it has."""
    strokes = load(kind, split)
    wanted = np.array(list(LETTERS if kind == "letters" else SIGNS))
    strokes = strokes.take(np.flatnonzero(np.isin(strokes.labels, wanted)))
    strokes = strokes.take(np.argsort(strokes.labels, kind="stable"))
    _, first, count = np.unique(strokes.labels, return_index=True, return_counts=True)
    return strokes, first, count


def _sample(kind: str, rng: np.random.Generator, split: str) -> Path:
    strokes, first, count = _clear(kind, split)
    c = int(rng.integers(len(first)))  # every class as often
    return strokes.path(int(first[c] + rng.integers(count[c])))


def _letter(rng: np.random.Generator, split: str) -> Sign:
    return _sample("letters", rng, split)


def _sign(rng: np.random.Generator, split: str) -> Sign:
    return _sample("symbols", rng, split)


def digit(rng: np.random.Generator, split: str = "train") -> tuple[Path, int]:
    """The path of a digit and its label."""
    strokes = load("digits", split)
    i = int(rng.integers(len(strokes)))
    return strokes.path(i), int(strokes.labels[i])


def _scribble(rng: np.random.Generator, split: str) -> Sign:
    """A smooth random walk, a zigzag, hatching or a coil."""
    kind, n = int(rng.integers(4)), int(rng.integers(6, 22))
    t = np.linspace(0, 1, n * 8, dtype=np.float32)
    if kind == 0:
        knots = np.cumsum(rng.normal(0, 1, (n, 2)), 0)
        at = t * (n - 1)
        return [_curve(knots, at)]
    if kind == 1:
        zigzag = np.stack(
            [np.arange(n) / n * rng.uniform(0.4, 2), (np.arange(n) % 2) * rng.uniform(0.3, 1)], 1
        )
        return [(zigzag + rng.normal(0, 0.06, (n, 2))).astype(np.float32)]
    if kind == 2:
        x = np.linspace(0, 1, n // 2 + 3)
        lean, jitter = rng.normal(0, 0.4), rng.normal(0, 0.05, (len(x), 4))
        return [
            np.array([[a, 0], [a + lean, 1]], np.float32) + j.reshape(2, 2).astype(np.float32)
            for a, j in zip(x, jitter, strict=True)
        ]
    turns = 6.28 * rng.uniform(2.2, 6)
    radius = 1 + rng.uniform(-0.8, 0.8) * t
    drift = rng.uniform(0, 5)
    return [
        np.stack([radius * np.cos(turns * t) + drift * t, radius * np.sin(turns * t)], 1).astype(np.float32)
    ]


def _curve(knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A uniform Catmull-Rom spline [k, 2] through knots [n, 2]."""
    padded = np.concatenate([knots[:1], knots, knots[-1:]])
    i = np.minimum(at.astype(int), len(knots) - 2)
    u = (at - i)[:, None]
    a, b, c, d = (padded[i + k] for k in range(4))
    spline = b + 0.5 * u * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))
    return spline.astype(np.float32)


def _glyph(rng: np.random.Generator, split: str) -> Sign:
    """A character of no script: three to six strokes of several signs, each anywhere in a square."""
    out: list[np.ndarray] = []
    while len(out) < 3:
        out += _sample("letters" if rng.random() < 0.7 else "symbols", rng, split)
    placed = []
    for k in rng.permutation(len(out))[: int(rng.integers(3, 7))]:
        low, high = out[k].min(0), out[k].max(0)
        size = rng.uniform(0.35, 0.9)
        at = rng.uniform(0, 1 - size, 2)
        placed.append(((out[k] - low) / max((high - low).max(), 1e-3) * size + at).astype(np.float32))
    return placed


def _crossed_out(rng: np.random.Generator, split: str) -> Sign:
    path, _ = digit(rng, split)
    low, high = _box(path)
    middle, reach = (low + high) / 2, (high - low).max()
    across = []
    for _ in range(int(rng.integers(3, 7))):  # one line is a slashed zero or a crossed seven
        angle = rng.uniform(-0.6, 0.6) + (np.pi / 2 if rng.random() < 0.2 else 0)
        end = np.array([np.cos(angle), np.sin(angle)]) * reach * rng.uniform(0.5, 0.75)
        off = rng.normal(0, 0.2, 2) * reach
        across.append(np.stack([middle + off - end, middle + off + end]).astype(np.float32))
    return [*path, *across]


def _several(rng: np.random.Generator, split: str) -> Sign:
    """Two or three digits that touch or nearly do."""
    out, edge = [], 0.0
    for _ in range(2 if rng.random() < 0.75 else 3):
        path, _ = digit(rng, split)
        low, high = _box(path)
        scale = rng.uniform(0.85, 1.15) / max(high[1] - low[1], 0.5)
        shift = np.array([edge - low[0] * scale, rng.normal(0, 0.08) - low[1] * scale], np.float32)
        out += [stroke * np.float32(scale) + shift for stroke in path]
        edge += (high[0] - low[0]) * scale + rng.uniform(-0.12, 0.1)
    return out


def _half(rng: np.random.Generator, split: str) -> Sign:
    while True:
        path, label = digit(rng, split)
        if label in HALVES:
            break
    side = str(rng.choice(list(HALVES[label])))
    low, high = _box(path)
    axis = 1 if side in "tb" else 0
    cut = low[axis] + (high - low)[axis] * rng.uniform(0.42, 0.55)
    kept = []
    for stroke in path:
        dense = _dense(stroke)
        inside = dense[:, axis] < cut if side in "tl" else dense[:, axis] > cut
        pieces = np.split(dense, np.flatnonzero(np.diff(inside)) + 1)
        kept += [piece for piece in pieces if (piece[0, axis] < cut) == (side in "tl")]
    return kept or path[:0]


def _dense(stroke: np.ndarray) -> np.ndarray:
    """More points on long straight pieces, so that a cut falls where it should."""
    at = np.linspace(0, len(stroke) - 1, len(stroke) * 4)
    i = np.minimum(at.astype(int), max(len(stroke) - 2, 0))
    u = (at - i)[:, None].astype(np.float32)
    return stroke[i] * (1 - u) + stroke[np.minimum(i + 1, len(stroke) - 1)] * u


def _mark(rng: np.random.Generator, split: str) -> Sign:
    """A dot, a thick comma, a dash or two, a tick, a cross, an arrow, a plus."""
    kind = int(rng.integers(6))
    j = rng.normal(0, 0.08, 8).astype(np.float32)
    if kind == 0:  # shorter than a pen is wide
        return [np.array([[0, 0], [0.02, 0.01]], np.float32)]
    if kind == 1:
        return [np.array([[0, j[0]], [1, j[1]]], np.float32)]
    if kind == 2:
        return [np.array([[0, 0.6 + j[0]], [0.3 + j[1], 1], [1.0 + j[2], j[3] - 0.1]], np.float32)]
    if kind == 3:
        return [
            np.array([[j[0], j[1]], [1, 1 + j[2]]], np.float32),
            np.array([[1 + j[3], 0], [j[4], 1]], np.float32),
        ]
    if kind == 4:
        return [
            np.array([[0, j[0]], [1, j[1]]], np.float32),
            np.array([[j[2], 0.4 + j[3]], [1, 0.4]], np.float32),
        ]
    return [
        np.array([[j[0], 0.5], [1, 0.5 + j[1]]], np.float32),
        np.array([[0.5 + j[2], j[3]], [0.5, 1]], np.float32),
    ]


def _lines(rng: np.random.Generator, split: str) -> Sign:
    """A piece of a table or of squared paper: corners, crossings, tees, several parallel lines."""
    rows, columns = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    reach = (
        rng.uniform(-0.3, 1.3, (rows + columns, 2))
        if rng.random() < 0.5
        else np.tile([-0.3, 1.3], (rows + columns, 1))
    )
    out = []
    for k, (a, b) in enumerate(reach):
        at = k / max(rows, 1) if k < rows else (k - rows) / max(columns, 1)
        line = [[a, at], [b, at]] if k < rows else [[at, a], [at, b]]
        out.append(np.array(line, np.float32))
    return out


def _blank(rng: np.random.Generator, split: str) -> Sign:
    return []


def _print(rng: np.random.Generator, split: str) -> Sign:
    """A printed letter or the piece of a word."""
    letters = "ACEFGHKMNPRTUVWXYadefhkmnprtuvwx&%#@$"
    text = "".join(rng.choice(list(letters), int(rng.choice([1, 1, 2, 3, 4]))))
    return bitmaps.printed(text, bitmaps.typeface(rng))


def _blob(rng: np.random.Generator, split: str) -> Sign:
    """Blots and stains: smooth noise cut at a level, in a soft window."""
    from netsuke.lab.pens.textures import patch

    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    noise = patch("mottle" if rng.random() < 0.7 else "grain", (48, 48), rng)
    field = noise + 1.5 - 2.5 * (x * x + y * y) ** rng.uniform(0.5, 2)
    return (np.clip(field - rng.uniform(0, 1.2), 0, 1) * 255).astype(np.uint8)


def _item(rng: np.random.Generator, split: str) -> Sign:
    images, _ = bitmaps.bitmaps(bitmaps.ITEMS, split)
    return images[int(rng.integers(len(images)))]


def _box(path: Path) -> tuple[np.ndarray, np.ndarray]:
    points = np.concatenate(path)
    return points.min(0), points.max(0)


SHARES = {
    _letter: 0.31, _sign: 0.1, _glyph: 0.08, _scribble: 0.12, _crossed_out: 0.05, _several: 0.1, _half: 0.05,
    _mark: 0.04, _lines: 0.03, _blank: 0.06, _print: 0.03, _blob: 0.03, _item: 0.03,
}  # fmt: skip
MAKERS = tuple(SHARES)
_ODDS = np.cumsum(list(SHARES.values()))
