"""Whether ink is darker than its paper, or lighter: on a page, a board, a sheet on a desk, of bold signs in a crop."""

from __future__ import annotations

import numpy as np

THIN = 15  # pixels of a median that spares no thin stroke
FEW = 0.01  # of all that stands out: less than that far from the border is nothing
RECTANGULAR = 0.85  # of the smallest rectangle around it that a sheet covers, at least
STRAIGHT, CORNERS = 0.02, 5  # of its outline, by which sides are no straight lines; corners, at most
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
    if level is not None and _side(small, np.full_like(small, level), strong, small.size):
        return True
    edge = window // 2
    inner = (slice(edge, -edge or None),) * 2

    def sides(ground: np.ndarray) -> list[np.ndarray]:
        return [_beyond(side, strong) for side in (cv2.subtract(ground, small), cv2.subtract(small, ground))]

    every = sides(paper)
    whole = [cv2.sumElems(side)[0] for side in every]
    inside = [cv2.sumElems(side[inner])[0] for side in every]
    if max(inside) <= FEW * max(whole):
        return whole[0] >= whole[1]
    if max(inside) > 2 * min(inside) or min(small.shape) < THIN:  # which no thin stroke can change
        return inside[0] >= inside[1]
    thin = sides(cv2.medianBlur(small, THIN))
    fine = [cv2.sumElems(cv2.min(a, b)[inner])[0] for a, b in zip(every, thin, strict=True)]
    return inside[0] + fine[0] >= inside[1] + fine[1]


def _strokes(small: np.ndarray, window: int, strong: int) -> bool | None:
    """Whether strokes on a sheet are dark; None where there is no sheet, or little on it."""
    import cv2

    sheet = _sheet(small)
    if sheet is None:
        return None
    inside = cv2.erode(sheet, np.ones((2 * INSIDE + 1, 2 * INSIDE + 1), np.uint8), borderValue=0)
    if not inside.any():
        return None
    alone = np.where(inside > 0, small, np.uint8(np.median(small[inside > 0])))  # as if it had no edge
    return _side(alone, cv2.medianBlur(alone, window), strong, int(np.count_nonzero(inside)))


def _side(small: np.ndarray, ground: np.ndarray, strong: int, size: int) -> bool | None:
    """Whether what stands out of the ground is darker; None where little does on `size` pixels, or to both sides."""
    import cv2

    sides = cv2.subtract(ground, small), cv2.subtract(small, ground)
    dark, light = (cv2.sumElems(_beyond(side, strong))[0] for side in sides)
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
    return cv2.drawContours(np.zeros(small.shape, np.uint8), [found], -1, 1, cv2.FILLED)


def _is_rectangle(outline: np.ndarray, area: float) -> bool:
    """Whether an outline is about a rectangle's, seen aslant or cut at the image's border: of few straight sides."""
    import cv2

    corners = cv2.approxPolyDP(cv2.convexHull(outline), STRAIGHT * cv2.arcLength(outline, True), True)
    return len(corners) <= CORNERS and area > RECTANGULAR * float(np.prod(cv2.minAreaRect(outline)[1]))


def _beyond(side: np.ndarray, strong: int) -> np.ndarray:
    import cv2

    return cv2.threshold(side, strong, 0, cv2.THRESH_TOZERO)[1]
