"""How right a reader is: strings, digits, boxes, masks, and whether its confidence means something.

Every figure comes with its n and a 95 % interval: Wilson's for a share of independent trials (Wilson, 1927), a
percentile bootstrap over images for a ratio whose parts are not (Efron, 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Z = 1.959963984540054  # 95 % of a normal distribution lie within so many deviations
RESAMPLES = 1000
SEED = 0  # of the bootstrap: the same figures give the same interval
MATCH = 0.5  # intersection over union from which on a box is found
BINS = 15  # of the calibration error, as in Guo et al. (2017)
POINTS = 100  # of a curve, at most

Box = Sequence[float]  # x, y, w, h
Share = dict[str, Any]  # {"value", "low", "high", "n"}


# --- strings -----------------------------------------------------------------------------------------


def distance(a: str, b: str) -> int:
    """Insertions, deletions and substitutions that turn `a` into `b` (Levenshtein, 1966)."""
    return align(a, b)[0]


def align(truth: str, said: str) -> tuple[int, int]:
    """The distance, and how many characters of `truth` are right in the best of the shortest ways to `said`."""
    row = [(j, 0) for j in range(len(said) + 1)]  # (cost, -characters kept), to be made least
    for i, wanted in enumerate(truth, 1):
        above, row = row, [(i, 0)]
        for j, got in enumerate(said, 1):
            kept = int(wanted == got)
            row.append(
                min(
                    (above[j][0] + 1, above[j][1]),
                    (row[j - 1][0] + 1, row[j - 1][1]),
                    (above[j - 1][0] + 1 - kept, above[j - 1][1] - kept),
                )
            )
    return row[-1][0], -row[-1][1]


# --- intervals ---------------------------------------------------------------------------------------


def share(right: int, n: int) -> Share:
    """`right` of `n` with Wilson's interval; of nothing, the value is None and the interval is everything."""
    if not n:
        return {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    p, z2 = right / n, Z * Z
    middle, spread = p + z2 / (2 * n), Z * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (middle - spread) / (1 + z2 / n), (middle + spread) / (1 + z2 / n)
    return {"value": p, "low": float(min(max(low, 0.0), p)), "high": float(max(min(high, 1.0), p)), "n": n}


def ratio(parts: Any, formula: Any = None) -> Share:
    """A ratio of sums over images, `parts` [images, 2] as (upper, lower), with a bootstrap interval over the images.

    `formula` makes another figure of the summed columns [..., k]; `n` counts the images.
    """
    made = formula or (lambda s: s[..., 0] / s[..., 1])
    table = np.asarray(parts, np.float64)
    if not len(table):
        return {"value": None, "low": None, "high": None, "n": 0}
    rng = np.random.default_rng(SEED)
    picks = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        value, values = made(table.sum(0)), made(picks @ table)
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    plain = [float(v) if np.isfinite(v) else None for v in (value, low, high)]
    return dict(zip(("value", "low", "high"), plain, strict=True)) | {"n": len(table)}


# --- boxes and masks ---------------------------------------------------------------------------------


def iou(a: Sequence[Box], b: Sequence[Box]) -> np.ndarray:
    """Intersection over union of each of `a` with each of `b`, float64 [len(a), len(b)]; 0 for an empty box."""
    x = np.asarray(a, np.float64).reshape(-1, 1, 4)
    y = np.asarray(b, np.float64).reshape(1, -1, 4)
    start = np.maximum(x[..., :2], y[..., :2])
    end = np.minimum(x[..., :2] + x[..., 2:], y[..., :2] + y[..., 2:])
    common = (end - start).clip(0).prod(-1)
    union = x[..., 2:].clip(0).prod(-1) + y[..., 2:].clip(0).prod(-1) - common
    return np.divide(common, union, out=np.zeros_like(union), where=union > 0)


def match(truth: Sequence[Box], found: Sequence[Box], confidence: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs (truth, found) with an overlap of MATCH or more: the surest box first, each takes the best that is left.

    The rule of PASCAL VOC (Everingham et al., 2010), a second box on one digit counting as wrong.
    """
    overlap = iou(truth, found)
    free = np.ones(len(truth), bool)
    pairs = []
    for j in np.argsort(-np.asarray(confidence, np.float64), kind="stable"):
        column = np.where(free, overlap[:, j], -1.0)
        if len(column) and column.max() >= MATCH:
            i = int(column.argmax())
            free[i] = False
            pairs.append((i, int(j)))
    return pairs


def f1(sums: np.ndarray) -> np.ndarray:
    """Of (matched, found, true) in the last axis: twice the matched by all."""
    return 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2])


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two bool masks of one shape; 1 where both are empty."""
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


# --- confidence --------------------------------------------------------------------------------------


def curve(confidence: Sequence[float], right: Sequence[bool]) -> list[dict[str, float]]:
    """Accuracy of the surest share of the answers, for every share: [{"threshold", "coverage", "accuracy"}, ...].

    Answers of equal confidence are accepted together. At most POINTS points, the last with everything accepted
    (El-Yaniv and Wiener, 2010).
    """
    sure = np.asarray(confidence, np.float64)
    order = np.argsort(-sure, kind="stable")
    sure, hits = sure[order], np.cumsum(np.asarray(right, bool)[order])
    ends = np.flatnonzero(np.append(sure[1:] != sure[:-1], True)) if len(sure) else np.empty(0, int)
    if len(ends) > POINTS:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, POINTS).round().astype(int))]
    return [
        {"threshold": float(sure[e]), "coverage": (e + 1) / len(sure), "accuracy": float(hits[e] / (e + 1))}
        for e in ends.tolist()
    ]


def calibration_error(confidence: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float | None:
    """Expected calibration error: how far confidence lies from accuracy in equal bins (Naeini et al., 2015)."""
    sure, hit = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if not len(sure):
        return None
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = np.bincount(place, sure - hit, bins)
    return float(np.abs(gaps).sum() / len(sure))
