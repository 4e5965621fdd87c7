"""What looks at a page beside the classifier: the finder at each candidate's surroundings, the scanner along rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netsuke.reader.finder import Finder, around
from netsuke.reader.scanner import Scanner
from netsuke.reader.segments import Row


@dataclass(frozen=True, eq=False)
class Seen:
    """Of a row's candidates: `found` float64 [spans, K + 2] and `boxes` [spans, 4] (Finder.look), `scanned` [spans, 14]
    (scanner.told)."""

    found: np.ndarray
    boxes: np.ndarray
    scanned: np.ndarray


@dataclass(frozen=True, eq=False)
class Sight:
    """Both, for pages."""

    finder: Finder
    scanner: Scanner

    def see(self, ink: np.ndarray, rows: Sequence[Row]) -> list[Seen]:
        """What both say of the candidates of each row of a page's ink uint8 [H, W]; the rows are those that
        `segments.rows` makes with this scanner's `scan`."""
        last = np.cumsum([len(row.spans) for row in rows])[:-1]
        parts = [np.split(part, last) for part in self.finder.look(ink, *around(rows))]
        return [
            Seen(found, boxes, row.told)
            for found, boxes, row in zip(*parts, rows, strict=True)
            if row.told is not None
        ]
