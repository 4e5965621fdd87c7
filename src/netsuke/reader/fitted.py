"""The numbers that decoder and places were fitted to, from fitted.json beside this file (benchmarks/family.py)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np


def fitted(what: str, kind: str, names: Sequence[str]) -> np.ndarray:
    """Weights float64 [names] of the "lattice", of a "number" or a "place"; 0 where the file has none of that name.

    `kind` is a side for a "place"; else "seeing" (a classifier that knows what is no digit, beside finder and scanner),
    "knowing" (the classifier alone) or "naive" (one that calls everything a digit).
    """
    return np.array([_table()[what][kind].get(name, 0.0) for name in names])


@cache
def _table() -> Any:
    return json.loads(files(__package__).joinpath("fitted.json").read_text(encoding="utf-8"))
