"""The numbers in netsuke.reader.trust: a logistic regression on rows of images whose digits are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from netsuke import image as images
from netsuke.measure.reading import iou
from netsuke.reader import Reader, pages, segments, trust
from netsuke.reader.field import Field

Box = tuple[float, float, float, float]  # x, y, w, h
COVERED = 0.4  # share of two boxes that is common to both: the same digit
NUMBER, WORD = 0.7, 0.3  # share of a row's digits that are some: from there a number, up to there none
DECAY = 1e-3


def examples(reader: Reader, image: np.ndarray, digits: Sequence[Box]) -> Iterator[tuple[np.ndarray, bool]]:
    """Of each row that the reader reads in an image uint8 [H, W]: trust.NAMES, and whether it is a number.

    `digits` are the boxes of all digits that are there. Rows that are half of each are left out.
    """
    page = images.page_ink(image)
    for number in pages.numbers(
        page.pixels, reader.artifact, reader.classified, Field(), reader.sight, least=0.0, walls=page.walls
    ):
        path = number.paths[0]
        read = [segments.around(number.row, (e.start, e.stop)) for e in path.edges if e.symbol.isdigit()]
        boxes = [tuple(v * page.scale for v in box) for box in read]
        right = iou(boxes, digits).max(1, initial=0) > COVERED
        share = float(np.mean(right))
        if not WORD < share < NUMBER:
            found = trust.features(number.row, path, number.share, number.seen, reader.artifact.classes)
            yield found, share >= NUMBER


def fit(rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Weights float64 [features] of rows [n, features], of which bool [n] are numbers: ridge logistic regression."""
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    sign, spread = np.where(numbers, 1.0, -1.0), rows.std(0)

    def loss(theta: np.ndarray) -> float:
        return float(np.logaddexp(0, -sign * (rows @ theta)).mean() + DECAY * ((theta * spread) ** 2).sum())

    return minimize(loss, np.zeros(rows.shape[1])).x
