"""Ink of a page to pieces that may be one sign each."""

from __future__ import annotations

import numpy as np

from netsuke import image as images
from netsuke.reader.reading import Box


def pieces(pixels: np.ndarray) -> list[tuple[np.ndarray, Box]]:
    """Connected components that are large enough, left to right: ink uint8 [h, w] and where."""
    import cv2

    grey = images.grey(pixels)
    dark = np.median(grey) > 127
    _, mask = cv2.threshold(
        grey, 0, 1, (cv2.THRESH_BINARY_INV if dark else cv2.THRESH_BINARY) | cv2.THRESH_OTSU
    )
    count, label, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    out: list[tuple[np.ndarray, Box]] = []
    for i in range(1, count):
        x, y, w, h, _ = (int(v) for v in stats[i])
        if h >= 8:
            ink = np.where(label[y : y + h, x : x + w] == i, 255, 0).astype(np.uint8)
            out.append((ink, (x, y, w, h)))
    return sorted(out, key=lambda piece: piece[1][0])
