"""What the edges of a row's lattice weigh: the classifier's word, and what sizes and gaps say.

Lengths are shares of the height of the row's digits. The constants are log-linear weights of a conditional random
field over whole strings.
"""

from __future__ import annotations

import numpy as np

from netsuke.reader.lattice import Edge
from netsuke.reader.reading import Box
from netsuke.reader.segments import Atom, Row, around

LEAST = 1e-5  # probability that the classifier is never below: it may be wrong
TOP = 4  # classes of a candidate that are worth an edge
KNOWN, NAIVE = 1.0, 1.0  # weight of its log-probabilities, where it knows "none" and where it does not
SIGN = -0.3  # of each sign: else many small ones would do as well
LOW, LOW_SD = 0.72, 0.13  # height of a digit below which it is unlikely
BROAD, BROAD_SD = 0.95, 0.22  # its width above which it is unlikely
CUT, CROSSED = -0.6, -1.0  # of an end within a piece, and for each stroke it crosses
JOIN, GAP = -0.4, -7.0  # of two pieces in one sign, and by the gap between them
UNCUT = -0.25  # of an end not taken
DROP, DROPPED = -0.6, -14.0  # of ink that is no sign, and by its area in squared heights
SEPARATOR = -0.4


def edges(row: Row, share: np.ndarray, classes: tuple[str, ...], *, knows_none: bool) -> list[Edge]:
    """The edges of a row, from the probabilities float64 [spans, K + 1] of its candidates; `key` is the span's number."""
    out: list[Edge] = []
    line = _line(row)
    log = np.log(np.maximum(share, LEAST)) * (KNOWN if knows_none else NAIVE)
    for key, (start, stop) in enumerate(row.spans):
        box = around(row, (start, stop))
        held = _held(row, start, stop)
        weight = SIGN + _shape(box, row.height) + held
        for k in np.argsort(-share[key, :-1])[:TOP]:
            out.append(Edge(start, stop, classes[k], weight + float(log[key, k]), key))
        for symbol, likely in _separator(box, row, line):
            out.append(Edge(start, stop, symbol, likely + held, key))
    for i, atom in enumerate(row.atoms):
        out.append(Edge(i, i + 1, "", _dropped(atom, row)))
    return out


def _held(row: Row, start: int, stop: int) -> float:
    """What it costs to end here and not within, and to tie these atoms together."""
    weight = 0.0
    if start and row.atoms[start].piece == row.atoms[start - 1].piece:
        weight += CUT + CROSSED * row.atoms[start].cut
    right = row.atoms[start].box[0] + row.atoms[start].box[2]
    for i in range(start + 1, stop):
        atom = row.atoms[i]
        if atom.piece == row.atoms[i - 1].piece:
            weight += UNCUT * max(0.0, 1 - atom.cut)
        else:
            weight += JOIN + GAP * max(0.0, (atom.box[0] - right) / row.height)
        right = max(right, atom.box[0] + atom.box[2])
    return weight


def _shape(box: Box, height: float) -> float:
    low = max(0.0, LOW - box[3] / height) / LOW_SD
    broad = max(0.0, box[2] / height - BROAD) / BROAD_SD
    return -(low * low + broad * broad) / 2


def _dropped(atom: Atom, row: Row) -> float:
    return DROP + DROPPED * atom.area / row.height**2


def _line(row: Row) -> tuple[float, float]:
    """Top and bottom of the row's digits."""
    tall = [atom.box for atom in row.atoms if atom.box[3] >= 0.6 * row.height] or [row.box]
    return float(np.median([y for _, y, _, _ in tall])), float(np.median([y + h for _, y, _, h in tall]))


def _separator(box: Box, row: Row, line: tuple[float, float]) -> list[tuple[str, float]]:
    """Which separators ink of this box may be, with log weights: by size, and by where it lies between the lines."""
    x, y, w, h = (float(v) for v in box)
    height = row.height
    low = (y + h / 2 - line[0]) / max(line[1] - line[0], 1)  # 0 at the top of the digits, 1 at their foot
    out = []
    if h < 0.55 * height and w < 0.4 * height and low > 0.6:
        long = h / height
        small = -((max(0.0, max(w, h) / height - 0.25) / 0.08) ** 2) / 2
        out.append((".", SEPARATOR + small - 3 * max(0.0, 0.85 - low)))
        if h > 0.15 * height and low > 0.75:
            out.append(
                (",", SEPARATOR - ((max(0.0, 0.25 - long) / 0.08) ** 2) / 2 - 4 * max(0.0, 0.95 - low))
            )
    if w > 1.6 * h and 0.2 * height < w < 1.3 * height and 0.25 < low < 0.85 and h < 0.35 * height:
        out.append(("-", SEPARATOR))
    return out
