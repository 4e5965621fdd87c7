"""The numbers that the decoder was fitted to, from fitted.json beside this file (benchmarks/family.py decoder)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files

import numpy as np

KINDS = (
    "finding",
    "knowing",
    "naive",
)  # a classifier with "none" and a finder; without one; one that knows no "none"


def fitted(what: str, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights float64 [names] of each of KINDS; 0 where the file has none."""
    table = json.loads(files(__package__).joinpath("fitted.json").read_text(encoding="utf-8"))[what]
    finding, knowing, naive = (np.array([table[kind].get(name, 0.0) for name in names]) for kind in KINDS)
    return finding, knowing, naive
