"""Why a reading may have gone wrong: what can be seen of it in the pixels, the label and the model's own doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from netsuke.data.labelled import Labelled
from netsuke.image import grey
from netsuke.measure.judged import digits

SMALL = 14  # pixels of a digit's height: below, strokes run together
FAINT = 0.22  # contrast of ink and paper, as a share of black on white
SURE = 0.98  # confidence from which on a model that is wrong makes the label suspect
STRANGE = 0.5  # confidence below which nothing that was trained on looks like this

REASONS = {
    "unreadable": "the file could not be read",
    "too small": f"digits under {SMALL} pixels high",
    "too faint": f"ink and paper differ by less than {FAINT:.0%}",
    "touching": "fewer pieces of ink than digits",
    "cut off": "ink runs over the edge of the image",
    "unlike anything trained on": "the model calls it no digit, or is not half sure",
    "label perhaps wrong": f"the model is at least {SURE:.0%} sure of another, and nothing else speaks against it",
}


def reasons(
    pixels: np.ndarray | None, truth: Labelled, entry: Mapping[str, Any], row: Mapping[str, Any]
) -> list[str]:
    """Names in REASONS that hold for a wrong answer; `pixels` are the image, None where it could not be read."""
    if pixels is None:
        return ["unreadable"]
    found = digits(entry)
    strange = any(r.get("state") == "not a digit" for r in entry["results"])
    boxes = [box for _, box in truth.boxes or ()] or [d["box"] for d in found]
    image = grey(pixels)
    names = []
    if np.median([box[3] for box in boxes] or [image.shape[0]]) < SMALL:
        names.append("too small")
    if contrast(image, boxes) < FAINT:
        names.append("too faint")
    if len(found) != len(row["text"]) and len(row["text"]) > 1 and pieces(image) < len(row["text"]):
        names.append("touching")
    if any(_at_edge(d["box"], image.shape) for d in found):
        names.append("cut off")
    if strange or any(d["confidence"] < STRANGE for d in found):
        names.append("unlike anything trained on")
    if not names and row["confidence"] >= SURE and len(row["said"]) == len(row["text"]):
        names.append("label perhaps wrong")
    return names


def contrast(image: np.ndarray, boxes: Any) -> float:
    """How far the ink stands out in the faintest of the boxes (x, y, w, h), 0 to 1; of the whole image without one."""
    parts = []
    for x, y, w, h in boxes or [(0, 0, image.shape[1], image.shape[0])]:
        part = image[max(0, int(y)) : int(y + h) + 1, max(0, int(x)) : int(x + w) + 1]
        if part.size:
            low, high = np.percentile(part, [5, 95])
            parts.append((high - low) / 255)
    return float(min(parts, default=0.0))


def pieces(image: np.ndarray) -> int:
    """Connected pieces of ink at least a third as high as the highest, by Otsu's threshold."""
    import cv2

    _, ink = cv2.threshold(image, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    if ink.mean() > 0.5:  # ink is the smaller part
        ink = 1 - ink
    heights = cv2.connectedComponentsWithStats(ink.astype(np.uint8))[2][1:, 3]
    return int((heights * 3 >= heights.max(initial=1)).sum())


def _at_edge(box: Any, shape: tuple[int, ...]) -> bool:
    x, y, w, h = box
    return x <= 0 or y <= 0 or x + w >= shape[1] or y + h >= shape[0]
