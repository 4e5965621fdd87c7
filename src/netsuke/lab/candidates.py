"""What the reader shows its classifier, with the truth: candidates cut from synthetic scenes."""

from __future__ import annotations

import numpy as np

from netsuke import image as images
from netsuke.reader import segments

NONE = 10  # the label of what is no digit
WHOLE, PART = 0.85, 0.6  # share of a digit's ink held, and share of what is held that is its: from, and up to


def candidates(
    image: np.ndarray, mask: np.ndarray, labels: dict[int, int], *, size: int = 28, box: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of a model uint8 [n, 1, size, size] and labels int64 [n], 0 to 9 or 10, from an image uint8 [H, W].

    `mask` [H, W] numbers each pixel's digit (0: none), `labels` has their classes. A candidate is a digit where it
    holds WHOLE of its ink and little else, none where it holds less than PART or more of other ink; what lies
    between is left out, and so is a lone upright stroke that is no 1: nobody could tell.
    """
    import cv2

    page = images.page_ink(image)
    if page.scale != 1:
        mask = cv2.resize(mask, page.pixels.shape[::-1], interpolation=cv2.INTER_NEAREST)
    rows, atoms = segments.rows(page.pixels)
    total = np.bincount(mask.ravel(), minlength=max(labels, default=0) + 1)
    x: list[np.ndarray] = []
    y: list[int] = []
    for row in rows:
        for span in row.spans:
            ink, own = segments.crop(page.pixels, atoms, row, span)
            left, top, w, h = segments.around(row, span)
            label = _label(mask[top : top + h, left : left + w], own, labels, total)
            if label is None or (label == NONE and _upright(own)):
                continue
            x.append(images.fit(ink, size=size, box=box)[None])
            y.append(label)
    return np.array(x, np.uint8).reshape(-1, 1, size, size), np.array(y, np.int64)


def _label(part: np.ndarray, own: np.ndarray, labels: dict[int, int], total: np.ndarray) -> int | None:
    held = np.bincount(part[own], minlength=len(total))
    most = int(held[1:].argmax()) + 1 if len(held) > 1 else 0
    if not most or not held[most]:
        return NONE
    share, pure = (
        held[most] / total[most],
        held[most] / max(held[1:].sum(), 0.7 * own.sum()),
    )  # soft edges are no one's
    if share >= WHOLE and pure >= WHOLE:
        return labels.get(most)
    return NONE if share < PART or pure < PART else None


def _upright(own: np.ndarray) -> bool:
    h, w = own.shape
    return h > 2.5 * w and own.mean() > 0.35
