"""Whether what was read of a row is a number at all, and not three letters of a word that look like one.

A logistic regression on what the row says as a whole: how finder, scanner and classifier take its signs, and how much
of its ink was passed over. Fitted on rows of synthetic pages (netsuke.lab.row_trust).
"""

from __future__ import annotations

import numpy as np

from netsuke.reader import scanner
from netsuke.reader.fitted import fitted
from netsuke.reader.lattice import Path
from netsuke.reader.segments import Row
from netsuke.reader.sight import Seen

NAMES = (
    "one", "found", "found least", "sure", "least sure", "passed over", "tall passed over", "probable", "misfit",
    "alone", "scanned", "scanned least",
)  # fmt: skip
MOST = 6.0  # nats: what each of them says is taken for no more
TALL = 0.6  # of the height of the row's digits: ink so high is a sign
AMID = 2.0  # nats by which a sign amid a puzzle's cell is rather a digit than elsewhere
SEEING, KNOWING = (fitted("number", kind, NAMES) for kind in ("seeing", "knowing"))


def number(row: Row, path: Path, share: np.ndarray, seen: Seen | None, classes: tuple[str, ...]) -> float:
    """The probability that a row's path is a number's."""
    value = features(row, path, share, seen, classes) @ (KNOWING if seen is None else SEEING)
    value += AMID * row.amid
    return float(1 / (1 + np.exp(-np.clip(value, -30, 30))))


def features(
    row: Row, path: Path, share: np.ndarray, seen: Seen | None, classes: tuple[str, ...]
) -> np.ndarray:
    """NAMES of a path with at least one digit; `share` [spans, K + 1], `seen` as in `weights.edges`."""
    digits = [(edge.key, classes.index(edge.symbol)) for edge in path.edges if edge.symbol in classes]
    key, label = np.array(digits).T
    odds = _odds(share[key, label], share[key, -1])
    found, misfit, scanned = np.zeros(1), 0.0, np.zeros(1)
    if seen is not None:
        found = (seen.found[key, label] - seen.found[key, -2]).clip(-MOST, MOST)
        misfit = float(seen.found[key, -1].mean())
        own = [scanner.SIGNS.index(classes[k]) for k in label]
        scanned = (seen.scanned[key, own] - seen.scanned[key, -1]).clip(-MOST, MOST)
    areas = np.array([atom.area for atom in row.atoms])
    over = [i for edge in path.edges if not edge.symbol for i in range(edge.start, edge.stop)]
    tall = sum(row.atoms[i].box[3] > TALL * row.height for i in over)
    return np.array(
        [
            1.0, found.mean(), found.min(), odds.mean(), odds.min(), areas[over].sum() / max(areas.sum(), 1e-9),
            tall / (tall + len(key)), max(np.log(max(path.probability, 1e-300)), -MOST), misfit, 1 / len(key),
            scanned.mean(), scanned.min(),
        ]
    )  # fmt: skip


def _odds(share: np.ndarray, none: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(share, 1e-9) / np.maximum(none, 1e-9)).clip(-MOST, MOST)
