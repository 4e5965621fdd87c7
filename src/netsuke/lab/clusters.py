"""Scalar k-means: a few values that stand for many, by Lloyd's algorithm on sorted numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MOST = 300  # rounds; it settles in far fewer

# Where the centroids start, of sorted numbers: Han et al. (2016) found "linear" best, since it keeps large weights.
STARTS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "linear": lambda x, count, seed: np.linspace(x[0], x[-1], count),
    "density": lambda x, count, seed: np.quantile(x, (np.arange(count) + 0.5) / count),
    "random": lambda x, count, seed: np.sort(np.random.default_rng(seed).choice(x, count)),
}


def kmeans(values: np.ndarray, count: int, start: str = "linear", seed: int = 0) -> np.ndarray:
    """At most `count` centroids of `values` [n], ascending, float64 [K]; none is without a value next to it.

    Each round costs count * log n: on a line, clusters are runs of the sorted values, and sums over runs are
    differences (Wang & Song, Ckmeans.1d.dp, 2011, use the same).
    """
    x = np.sort(values.astype(np.float64).reshape(-1))
    if len(np.unique(x)) <= count:
        return np.unique(x)
    sums = np.concatenate([[0.0], np.cumsum(x)])
    centroids = STARTS[start](x, count, seed)
    edges = np.array([-1])  # no edge yet
    for _ in range(MOST):
        centroids = np.unique(centroids)
        inner = np.searchsorted(x, (centroids[1:] + centroids[:-1]) / 2)
        if np.array_equal(inner, edges):
            break
        edges = inner
        bounds = np.concatenate([[0], edges, [len(x)]])
        sizes = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(sizes, 1)
        centroids = np.where(sizes > 0, means, centroids)
    return centroids[np.unique(nearest(x, centroids))]


def nearest(values: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The index of the centroid next to each value; `centroids` ascend."""
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values, side="right")
