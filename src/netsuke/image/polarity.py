"""Whether ink is darker than its paper, or lighter: on a page, a board, a sheet on a desk, of bold signs in a crop."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

THIN = 15  # pixels of a median that spares no thin stroke
FEW = 0.01  # of all that stands out: less than that far from the border is nothing
RECTANGULAR = 0.85  # of the smallest rectangle around it that a sheet covers, at least
STRAIGHT, CORNERS = 0.02, 5  # of its outline, by which sides are no straight lines; corners, at most
RINGS = 0, 2, 4  # pixels from a sheet's edge between which levels are asked for, of it and of the desk
STEP, STEEPER = 1.0, 1.5  # the step at the edge: times the contrast of ink, and the steps beside it, at least
SHEET = 0.03, 0.97  # of the image that a sheet is, at least and at most
INKED = 0.2  # grey levels by which strokes stand out on a sheet, on average, at least
CLEAR = 2.0  # times as much stands out to their side, at least
EVEN = 0.95  # of an image's border, if it is of one level
INSIDE = 4  # pixels from a sheet's edge


def is_dark(small: np.ndarray, paper: np.ndarray, window: int, strong: int) -> bool:
    """Of an image uint8 [h, w] and its paper, a median over `window` pixels; `strong` is the contrast of ink.

    Where a sheet lies on something, what strokes are on it decides; and what is darker than a border of one level is
    ink. Else more stands out to ink's side: far from the border, if anything is there, as along a desk it is the
    paper's rim that stands out. Thin strokes count twice: the insides of bold signs are no ink.
    """
    import cv2

    told = _strokes(small, window, strong)
    if told is not None:
        return told
    level = even_border(small, strong)  # lighter than that may be a sheet whose outline is not seen
    if level is not None and _clearer(_both(small, np.full_like(small, level), strong), small.size):
        return True
    edge = window // 2
    inner = (slice(edge, -edge or None),) * 2

    every = _both(small, paper, strong)
    whole = [cv2.sumElems(side)[0] for side in every]
    inside = [cv2.sumElems(side[inner])[0] for side in every]
    if max(inside) <= FEW * max(whole):
        return whole[0] >= whole[1]
    if max(inside) > 2 * min(inside) or min(small.shape) < THIN:  # which no thin stroke can change
        return inside[0] >= inside[1]
    thin = _both(small, cv2.medianBlur(small, THIN), strong)
    fine = [cv2.sumElems(cv2.min(a, b)[inner])[0] for a, b in zip(every, thin, strict=True)]
    return inside[0] + fine[0] >= inside[1] + fine[1]


def _strokes(small: np.ndarray, window: int, strong: int) -> bool | None:
    """Whether strokes on a sheet are dark; None where there is no sheet, or little on it."""
    import cv2

    sheet = _sheet(small)
    if sheet is None or not _has_edge(small, sheet, strong):
        return None
    inside = cv2.erode(sheet, np.ones((2 * INSIDE + 1, 2 * INSIDE + 1), np.uint8), borderValue=0)
    if not inside.any():
        return None
    alone = np.where(inside > 0, small, np.uint8(np.median(small[inside > 0])))  # as if it had no edge
    broad, fine = (
        _both(alone, cv2.medianBlur(alone, size), strong) for size in (window, min(window, THIN))
    )  # the edge of a shadow is broad, and the insides of bold signs are fine alone
    thin = [cv2.min(a, b) for a, b in zip(broad, fine, strict=True)]
    size = int(np.count_nonzero(inside))
    told = _clearer(thin, size)
    return told if any(_is_inked(side, size) for side in thin) else _clearer(broad, size)


def _both(small: np.ndarray, ground: np.ndarray, strong: int) -> list[np.ndarray]:
    """By how much pixels are darker than the ground, and lighter, where by `strong`: uint8 [h, w] each."""
    import cv2

    return [_beyond(side, strong) for side in (cv2.subtract(ground, small), cv2.subtract(small, ground))]


def _is_inked(side: np.ndarray, size: int) -> bool:
    """Whether anything stands out to a side, on `size` pixels."""
    import cv2

    return bool(cv2.sumElems(side)[0] > INKED * size)


def _clearer(sides: list[np.ndarray], size: int) -> bool | None:
    """Whether what stands out is darker; None where little does on `size` pixels, or to both sides."""
    import cv2

    dark, light = (cv2.sumElems(side)[0] for side in sides)
    clear = max(dark, light) > max(INKED * size, CLEAR * min(dark, light))
    return dark > light if clear else None


def even_border(small: np.ndarray, strong: int) -> int | None:
    """The level of an image's border, uint8 [h, w], from which hardly any of it differs by `strong`; else None."""
    if min(small.shape) < 4:
        return None
    border = np.concatenate([small[[0, 1, -2, -1]].ravel(), small[:, [0, 1, -2, -1]].ravel()])
    level = int(np.median(border))
    return level if np.mean(np.abs(border.astype(int) - level) < strong) > EVEN else None


def _sheet(small: np.ndarray) -> np.ndarray | None:
    """The largest light or dark part of an image whose outline is a rectangle's, uint8 [h, w] of 0 and 1; None where no
    such part is."""
    import cv2

    _, light = cv2.threshold(cv2.medianBlur(small, 3), 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    best, found = SHEET[0] * small.size, None
    for part in (light, 1 - light):
        for outline in cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
            area = cv2.contourArea(outline)
            if best < area < SHEET[1] * small.size and _is_rectangle(outline, area):
                best, found = area, outline
    if found is None:
        return None
    whole = cv2.drawContours(np.zeros(small.shape, np.uint8), [found], -1, 1, cv2.FILLED)
    # without strokes that lead into it
    return cv2.morphologyEx(whole, cv2.MORPH_OPEN, np.ones((THIN, THIN), np.uint8))


def _is_rectangle(outline: np.ndarray, area: float) -> bool:
    """Whether an outline is about a rectangle's, seen aslant or cut at the image's border: of few straight sides."""
    import cv2

    corners = cv2.approxPolyDP(cv2.convexHull(outline), STRAIGHT * cv2.arcLength(outline, True), True)
    return len(corners) <= CORNERS and area > RECTANGULAR * float(np.prod(cv2.minAreaRect(outline)[1]))


def _has_edge(small: np.ndarray, sheet: np.ndarray, strong: int) -> bool:
    """Whether an image steps from one level to another along a sheet's outline; light that falls off does not."""
    import cv2

    levels = []  # from the sheet's middle outwards
    for part, order in ((sheet, -1), (1 - sheet, 1)):
        shrunk = [cv2.erode(part, np.ones((2 * k + 1, 2 * k + 1), np.uint8)) for k in RINGS]
        rings = [small[cv2.subtract(a, b) > 0] for a, b in pairwise(shrunk)]
        if not all(len(ring) for ring in rings):
            return False
        levels += [float(ring.mean()) for ring in rings][::order]
    inner, step, outer = np.abs(np.diff(levels))
    return bool(step > max(STEP * strong, STEEPER * inner, STEEPER * outer))


def _beyond(side: np.ndarray, strong: int) -> np.ndarray:
    import cv2

    return cv2.threshold(side, strong, 0, cv2.THRESH_TOZERO)[1]
