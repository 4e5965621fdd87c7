"""Thin lines that are shared by two rows of pixels, gathered in one."""

from __future__ import annotations

import numpy as np

ALONE = np.uint16(3)  # how much more contrast a row of a thin line has than the lighter of its neighbours
BLOCK = 64  # rows that are looked at together


def gathered(contrast: np.ndarray) -> np.ndarray:
    """Thin lines gathered in one row of pixels, in place, uint16 [H, W]: a line that rises is shared by two rows, by
    halves where it goes from one to the other, and a faint one seems to break there."""
    import cv2

    above = contrast[:1].copy()
    for top in range(1, len(contrast) - 1, BLOCK):  # in parts that stay in the processor's cache
        own, lower = contrast[top:-1][:BLOCK], contrast[top + 1 :][:BLOCK]
        upper = np.concatenate([above, own[:-1]])
        above = own[-1:].copy()
        beside, other = cv2.max(upper, lower), cv2.min(upper, lower)
        thin = cv2.bitwise_and(
            cv2.compare(own, beside, cv2.CMP_GE), cv2.compare(own, other * ALONE, cv2.CMP_GT)
        )
        cv2.add(own, beside, mask=thin, dst=own)
    return contrast


def gathered_at(contrast: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The same as `gathered`, of some pixels only, uint16 [n]; those of the first and the last row stay as they are."""
    own = contrast[y, x]
    upper, lower = contrast[np.maximum(y - 1, 0), x], contrast[np.minimum(y + 1, len(contrast) - 1), x]
    beside, other = np.maximum(upper, lower), np.minimum(upper, lower)
    thin = (own >= beside) & (own > other * ALONE) & (y > 0) & (y < len(contrast) - 1)
    return own + beside * thin
