"""Where the signs of a number stand: boxes of their own ink, led towards the finder's, and their masks.

Cuts through touching digits leave to one what is another's, and lines that were taken out took ink with them: the
finder sees the whole digit. How far each side of a box goes towards it was fitted to made pages
(netsuke.lab.sign_places).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsuke.reader import segments
from netsuke.reader.field import SEPARATORS
from netsuke.reader.fitted import fitted
from netsuke.reader.lattice import Edge
from netsuke.reader.reading import Box
from netsuke.reader.sight import Seen

MASKED = 102  # of 255: how strong the ink of a mask is; a blurred edge is fainter
MISFIT = (
    0.1  # share not common to the boxes of a digit's ink and of the finder, up to which its ink's is the box
)
LEAST = -6.0  # nats: what the finder says of a digit is taken for no less
SIDES = ("left", "top", "right", "foot")
NAMES = (
    "one", *(f"to {side}" for side in SIDES), *(f"off {side}" for side in SIDES), "wide", "high", "cut left",
    "cut right", "misfit", "found", "is 1",
)  # fmt: skip
WEIGHTS = np.array([fitted("place", side, NAMES) for side in SIDES])

Crops = Sequence[tuple[np.ndarray, np.ndarray]]  # of each candidate of a row: ink and mask
Place = tuple[Box, np.ndarray]  # a box of the page's ink, and a mask bool [h, w]


def places(row: segments.Row, edges: Sequence[Edge], crops: Crops, seen: Seen | None) -> list[Place]:
    """Of each edge, with a sign, its box in the page's ink and its mask; `crops` and `seen` are those of the row's
    candidates."""
    out = [own(row, edge, crops) for edge in edges]
    if seen is None:
        return out
    led = [i for i, edge in enumerate(edges) if is_led(edge, seen)]
    if not led:
        return out
    near, far, table = features(row, [edges[i] for i in led], [out[i][0] for i in led], seen)
    share = 1 / (1 + np.exp(-table @ WEIGHTS.T))
    for i, corners in zip(led, np.rint(near + share * (far - near)).astype(int).tolist(), strict=True):
        out[i] = _within(corners, *out[i])
    return out


def is_led(edge: Edge, seen: Seen) -> bool:
    """Whether a sign is a digit that the finder sees elsewhere."""
    misfit = seen.found[edge.key, -1]
    return edge.symbol not in SEPARATORS and bool(misfit >= MISFIT)


def features(
    row: segments.Row, edges: Sequence[Edge], boxes: Sequence[Box], seen: Seen
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of digits of a row, by their edges and the boxes of their ink: the sides (x, y, right, foot) of their own boxes
    and of the finder's, float64 [n, 4], and NAMES [n, NAMES]: to each side of the finder's, in heights of the row and
    without its sign; width and height; and what `is_led` and the finder say."""
    keys = [edge.key for edge in edges]
    near, far = (sides(np.array(part, float)) for part in (boxes, seen.boxes[keys]))
    off = ((far - near) / row.height).clip(-1, 1)
    size = (near[:, 2:] - near[:, :2]) / row.height
    cut = [[_is_cut(row, at) for at in (edge.start, edge.stop)] for edge in edges]
    found = [max(float(seen.found[edge.key, int(edge.symbol)]), LEAST) for edge in edges]
    one = [edge.symbol == "1" for edge in edges]
    table = np.column_stack(
        [np.ones(len(edges)), off, np.abs(off), size.clip(0, 3), cut, seen.found[keys, -1], found, one]
    )
    return near, far, table


def strong(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The part of a mask that is ink and no blurred edge of it; all of it where nothing is."""
    inner: np.ndarray = mask & (pixels >= MASKED)
    return inner if inner.any() else mask


def in_input(box: Box, mask: np.ndarray, scale: float, shape: tuple[int, ...]) -> Place:
    """A box and its mask in pixels of the input, of which the page's ink is 1 / `scale`."""
    import cv2

    if scale == 1:
        return box, mask
    left, top = int(box[0] * scale), int(box[1] * scale)
    right = min(shape[1], max(left + 1, round((box[0] + box[2]) * scale)))
    bottom = min(shape[0], max(top + 1, round((box[1] + box[3]) * scale)))
    size = right - left, bottom - top
    large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return (left, top, *size), large > 0


def sides(boxes: np.ndarray) -> np.ndarray:
    """Boxes (x, y, w, h), float [n, 4], as x, y, right and foot."""
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


def _is_cut(row: segments.Row, at: int) -> bool:
    """Whether a piece of ink is cut between the atoms before and behind `at`."""
    return 0 < at < len(row.atoms) and row.atoms[at].piece == row.atoms[at - 1].piece


def own(row: segments.Row, edge: Edge, crops: Crops) -> Place:
    """The box that a sign's ink fills, and that ink."""
    box, mask = segments.around(row, (edge.start, edge.stop)), strong(*crops[edge.key])
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, foot, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return (box[0] + left, box[1] + top, right - left, foot - top), mask[top:foot, left:right]


def _within(corners: Sequence[int], box: Box, mask: np.ndarray) -> Place:
    """What a mask, that fills a box, is within other corners; where that is nothing, both as they were."""
    left, top = max(0, corners[0]), max(0, corners[1])
    wide, high = max(1, corners[2] - left), max(1, corners[3] - top)
    framed = np.zeros((high, wide), bool)
    dx, dy = box[0] - left, box[1] - top
    part = mask[max(0, -dy) : max(0, high - dy), max(0, -dx) : max(0, wide - dx)]
    framed[max(0, dy) : max(0, dy) + part.shape[0], max(0, dx) : max(0, dx) + part.shape[1]] = part
    return ((left, top, wide, high), framed) if framed.any() else (box, mask)
