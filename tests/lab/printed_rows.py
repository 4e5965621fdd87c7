"""Printed numbers as the rows that a scanner learns from."""

from __future__ import annotations

import cv2
import numpy as np

from netsuke.lab.finder import Sheets


def sheet(text: str) -> tuple[bytes, np.ndarray]:
    """Printed digits as a row is kept, 32 pixels high."""
    ink, boxes = np.zeros((40, 34 * len(text) + 20), np.uint8), []
    for i, sign in enumerate(text):
        cv2.putText(ink, sign, (10 + 34 * i, 36), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 255, 3, cv2.LINE_AA)
        boxes.append([int(sign), 10 + 34 * i, 4, 28, 32])
    return cv2.imencode(".png", ink)[1].tobytes(), np.array(boxes, np.float32).reshape(-1, 5)


def sheets(*texts: str) -> Sheets:
    ink, boxes = zip(*map(sheet, texts), strict=True)
    return Sheets(list(ink), list(boxes))
