"""Masks as run lengths, in the form that COCO's tools read: column by column, background first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from netsuke.errors import DataError

MAX_PIXELS = 1 << 26


def compress(mask: np.ndarray) -> dict[str, Any]:
    """A bool mask [h, w] as {"size": [h, w], "counts": [...]}, COCO's uncompressed form (Lin et al., 2014)."""
    flat = np.asarray(mask, bool).ravel(order="F")
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist() if flat.size else []
    if flat.size and flat[0]:
        runs = [0, *runs]  # it starts with a background of no length
    return {"size": [int(side) for side in np.shape(mask)], "counts": [int(run) for run in runs]}


def expand(coded: Mapping[str, Any]) -> np.ndarray:
    """The bool mask [h, w] of such a dict. Raises DataError where the runs do not fill it."""
    height, width = coded["size"]
    counts = np.asarray(coded["counts"], np.int64)
    if (
        min(height, width) < 0
        or height * width > MAX_PIXELS
        or (counts < 0).any()
        or counts.sum() != height * width
    ):
        raise DataError(f"a mask of {height}x{width} needs runs that add up to {height * width}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape((height, width), order="F")
