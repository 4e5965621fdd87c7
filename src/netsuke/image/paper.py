"""The brightness of the paper behind the ink: one level, or a smooth surface where light falls unevenly.

Whole numbers of 32 bits throughout, so that C and WebAssembly do the same, bit for bit (`export/c/normaliser.c`).
Brightness has four fractional bits. `//` and `>>` round down, of negative numbers too.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

GRID = 32  # cells a side at most, of which the paper is estimated
EVEN = 4 * 16  # by how much the border of an evenly lit paper varies (median)
SMALLEST = 12  # cells a side below which there is one level only
LIMIT = 1 << 14  # of a coefficient
# How far a cell may pull at each turn: first all of them, then the many against the few.
BORDER = (1024, 1024, 1024, 256, 256, 256, 64, 64, 64, 64, 64, 64)
INSIDE = (64, 64, 64, 64, 64, 64)


def boxes(full: np.ndarray, high: int, wide: int, unit: int = 1) -> np.ndarray:
    """The means of high x wide boxes of whole pixels, in `unit`ths of a grey level, int32 [high, wide]."""
    rows = np.arange(high + 1) * full.shape[0] // high
    columns = np.arange(wide + 1) * full.shape[1] // wide
    sums = np.add.reduceat(full, rows[:-1], axis=0, dtype=np.int32)
    sums = np.add.reduceat(sums, columns[:-1], axis=1)
    area = np.diff(rows)[:, None] * np.diff(columns)
    return ((2 * unit * sums + area) // (2 * area)).astype(np.int32)


def ranked(values: np.ndarray, percent: int) -> int:
    """The value below which `percent` of the others lie, rounded down to one that is there; 0 of none."""
    if not values.size:
        return 0
    k = (values.size - 1) * percent // 100
    return int(np.partition(values, k, axis=None)[k])


def paper(full: np.ndarray) -> np.ndarray | int:
    """The paper of a uint8 image [H, W] in 16ths of a grey level: one, or int32 [H, W]."""
    high, wide = min(full.shape[0], GRID), min(full.shape[1], GRID)
    cells = boxes(full, high, wide, 16)
    ring = _terms(high, wide)[1]
    border = cells[ring]
    level = ranked(border, 50)
    if ranked(_apart(border, level), 50) < EVEN:
        return level

    # The border is uneven, by a shadow or by ink that a tight crop cut. Against one level, its commonest, the
    # first leaves little that fits, the second all that is not ink.
    bins = border >> 7
    common = ranked(border[bins == np.bincount(bins).argmax()], 50)
    if min(high, wide) < SMALLEST:
        return common
    surface = _surface(cells, ring, level)
    shape = evaluated(surface, high, wide)
    # A soft shadow leaves a third of the light; ink at the border pulls the surface below.
    soft = 10 * int(shape.min()) > 3 * int(shape.max())
    if soft and ranked(_apart(cells, shape), 40) < ranked(_apart(cells, common), 40):
        return np.clip(evaluated(surface, *full.shape), 0, 255 * 16)
    return common


def _surface(cells: np.ndarray, ring: np.ndarray, level: int) -> tuple[int, ...]:
    """A quadratic surface: its level, five coefficients and the mean of its fourth term."""
    terms, values, border = _terms(*cells.shape)[0], cells.ravel(), ring.ravel()
    surface = _refined((level, 0, 0, 0, 0, 0, 0), terms, values, border, BORDER)
    # The border gave the shape; now all the paper inside refines it.
    rest = _apart(cells, evaluated(surface, *cells.shape)).ravel()
    use = rest < max(8 * 16, 6 * ranked(rest[border], 50))
    return _refined(surface, terms, values, use, INSIDE)


def _apart(cells: np.ndarray, ground: np.ndarray | int) -> np.ndarray:
    """How far cells are from the paper; C holds it in 16 bits."""
    return np.minimum(np.abs(cells - ground), 32767)


def _refined(
    surface: tuple[int, ...], terms: np.ndarray, values: np.ndarray, use: np.ndarray, turns: tuple[int, ...]
) -> tuple[int, ...]:
    """The surface fitted further to the cells in `use`.

    Residuals are cut and fitted again and again (Huber's modified residuals, 1977), so that ink hardly pulls. The terms
    are nearly orthogonal on a border, so each coefficient is found by itself.
    """
    level, coefficients, old = surface[0], np.array(surface[1:6]), surface[6]
    terms, values = terms[:, use], values[use]
    mean = int(terms[3].sum()) // values.size
    level += int(coefficients[3]) * (mean - old) >> 8
    terms = terms - np.array([0, 0, 0, mean, 0])[:, None]
    squares = np.maximum((terms * terms).sum(1) >> 8, 1)
    for reach in turns:
        pull = (values - level - (coefficients @ terms >> 8)).clip(-reach, reach)
        level += (2 * int(pull.sum()) + pull.size) // (2 * pull.size)
        coefficients = (coefficients + terms @ pull // squares).clip(-LIMIT, LIMIT)
    return (level, *coefficients.tolist(), mean)


def evaluated(surface: tuple[int, ...], high: int, wide: int) -> np.ndarray:
    """The surface over high x wide pixels, int32 [high, wide]."""
    level, a, b, c, d, e, mean = surface
    x, y = _axis(wide), _axis(high)[:, None]
    xx, yy = x * x, y * y
    return level + (
        (a * x + b * y + c * (x * y >> 8) + d * ((xx + yy >> 8) - mean) + e * (xx - yy >> 8)) >> 8
    )


def _axis(count: int) -> np.ndarray:
    """The middles of `count` pixels, from -256 to 256."""
    return (2 * np.arange(count, dtype=np.int32) + 1) * 256 // count - 256


@lru_cache(64)
def _terms(high: int, wide: int) -> tuple[np.ndarray, np.ndarray]:
    """x, y, xy, x² + y² and x² - y² of every cell, int64 [5, cells], and which cells are the border."""
    x, y = (part.ravel() for part in np.broadcast_arrays(_axis(wide), _axis(high)[:, None]))
    terms = np.stack([x, y, x * y >> 8, x * x + y * y >> 8, x * x - y * y >> 8]).astype(np.int64)
    edge = max(1, (min(high, wide) + 5) // 10)
    ring = np.ones((high, wide), bool)
    ring[edge : high - edge, edge : wide - edge] = False
    return terms, ring
