"""What was read, drawn over the image it was read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from netsuke.image.masks import expand

# RGB; from Okabe and Ito's palette, which colour-blind eyes tell apart.
COLOURS = {"digit": (0, 130, 90), "unsure": (213, 94, 0), "not a digit": (120, 120, 120)}
NUMBER = (0, 114, 178)
SMALLEST = 640  # pixels of the longer side: a smaller image is enlarged, so that the writing can be read
TINT = 0.55  # how strongly a mask is coloured


def overlay(
    pixels: np.ndarray, results: Sequence[Mapping[str, Any]], *, alternatives: bool = False
) -> np.ndarray:
    """RGB uint8 [H, W, 3]: the image with a box a digit, coloured by state, its class above it, and one box a number.

    `pixels` are uint8 [H, W] or RGB [H, W, 3], `results` what `netsuke read --json` says of them. Masks, where
    the results hold some, are tinted. `alternatives` writes each number's other readings below it.
    """
    import cv2

    grow = max(1, SMALLEST // max(pixels.shape[:2]))
    canvas = pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    canvas = canvas.copy()
    for result in results:
        for digit in result["digits"]:
            _tint(canvas, digit)
    if grow > 1:
        canvas = cv2.resize(canvas, None, fx=grow, fy=grow, interpolation=cv2.INTER_NEAREST)
    thick = max(2, round(max(canvas.shape[:2]) / 700))
    for result in results:
        if len(result["digits"]) > 1:
            _frame(canvas, result["box"], grow, NUMBER, thick, by=3 * thick)
        for digit in result["digits"]:
            colour = COLOURS.get(digit.get("state", "digit"), COLOURS["unsure"])
            _frame(canvas, digit["box"], grow, colour, thick)
            x, y, _, h = (grow * side for side in digit["box"])
            _write(canvas, digit["digit"], (x, y - 4 * thick), colour, h)
        if alternatives:
            x, y, _, h = (grow * side for side in result["box"])
            others = [f"{a['text']} {a['probability']:.0%}" for a in result.get("alternatives", ())]
            for i, text in enumerate(others[:3], 1):
                _write(canvas, text, (x, y + h + round(i * 0.5 * h)), NUMBER, round(0.7 * h))
    return canvas


def _tint(canvas: np.ndarray, digit: Mapping[str, Any]) -> None:
    if not digit.get("mask"):
        return
    x, y, w, h = digit["box"]
    part = canvas[y : y + h, x : x + w]
    mask = expand(digit["mask"])[: part.shape[0], : part.shape[1]]
    colour = np.array(COLOURS.get(digit.get("state", "digit"), COLOURS["unsure"]))
    part[mask] = (part[mask] * (1 - TINT) + colour * TINT).astype(np.uint8)


def _frame(
    canvas: np.ndarray, box: Sequence[int], grow: int, colour: tuple[int, ...], thick: int, by: int = 0
) -> None:
    import cv2

    x, y, w, h = (grow * side for side in box)
    cv2.rectangle(canvas, (x - by, y - by), (x + w + by - 1, y + h + by - 1), colour, thick)


def _write(canvas: np.ndarray, text: str, at: tuple[int, int], colour: tuple[int, ...], height: int) -> None:
    """Text on a white edge, half as high as `height` where that suits the picture, and kept within it."""
    import cv2

    font, longer = cv2.FONT_HERSHEY_SIMPLEX, max(canvas.shape[:2])
    scale = min(max(height / 44, longer / 1600), longer / 400)
    thick = max(1, round(1.6 * scale))
    text = "".join(c if " " <= c <= "~" else "?" for c in text)  # what the font has
    (wide, high), _ = cv2.getTextSize(text, font, scale, thick)
    x = min(max(at[0], 1), max(1, canvas.shape[1] - wide - 1))
    y = min(max(at[1], high + 2), canvas.shape[0] - 3)
    cv2.putText(canvas, text, (x, y), font, scale, (255, 255, 255), thick + 2, cv2.LINE_AA)
    cv2.putText(canvas, text, (x, y), font, scale, colour, thick, cv2.LINE_AA)
