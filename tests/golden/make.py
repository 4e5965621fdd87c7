"""Golden vectors of the normaliser: drawn images, and what every runtime must make of them, in normaliser.npz.

`python tests/golden/make.py` writes them anew; do so only where the normaliser itself is meant to change.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from netsuke.image import find_ink, fit

FILE = Path(__file__).with_name("normaliser.npz")
SHAPES = {"mass": (28, 20), "box": (8, 8)}  # side and box of the input, by centring


def drawn(text: str, high: int, wide: int, paper: int = 230, ink: int = 40, thick: int = 0) -> np.ndarray:
    """A figure in a printed hand, uint8 [high, wide]."""
    page = np.full((high, wide), paper, np.uint8)
    thick = thick or max(1, high // 20)
    scale = high / 45
    (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    place = ((wide - w) // 2, (high + h) // 2)
    cv2.putText(page, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thick, cv2.LINE_AA)
    return page


def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:70j, -1:1:60j]
    light = 0.75 - 0.2 * x + 0.1 * y - 0.1 * x * x
    shadow = (drawn("5", 70, 60) * light).round().astype(np.uint8)
    lined = drawn("4", 80, 60)
    lined[:3] = lined[:, -3:] = lined[:, 4:6] = 60
    found = {f"figure {k}": drawn(str(k), 44 + 3 * k, 40 + 5 * (k % 4)) for k in range(10)}
    noisy = drawn("9", 40, 36) + rng.normal(0, 6, (40, 36))
    return found | {
        "inverted": 255 - drawn("2", 60, 50),
        "faint": drawn("3", 60, 50, ink=205),
        "tiny": drawn("7", 14, 11),
        "narrow": drawn("1", 50, 13),
        "shadow": shadow,
        "shadow on black": 255 - shadow,
        "lines": lined,
        "speck": cv2.circle(drawn("6", 60, 60), (54, 55), 2, 40, -1),
        "noise": noisy.clip(0, 255).round().astype(np.uint8),
        "large": drawn("8", 700, 520, thick=30),
        "wide": drawn("0", 60, 400),
        "ramp": np.tile(np.arange(40, dtype=np.uint8) * 5 + 20, (33, 1)),
        "random": rng.integers(0, 256, (24, 17), np.uint8),
        "blank": np.full((40, 30), 214, np.uint8),
        "one pixel": np.full((1, 1), 9, np.uint8),
        "edge to edge": cv2.line(np.full((50, 40), 235, np.uint8), (20, 0), (17, 49), 40, 3),
    }


def vectors() -> dict[str, np.ndarray]:
    out = {}
    for name, image in images().items():
        ink = find_ink(image)
        out[f"{name}/image"] = image
        out[f"{name}/ink"] = np.array(ink.box if ink else (0, 0, 0, 0), np.int32)
        for centring, (size, box) in SHAPES.items():
            blank = np.zeros((size, size), np.uint8)
            out[f"{name}/{centring}"] = (
                fit(ink.pixels, size=size, box=box, centring=centring) if ink else blank
            )
    return out


if __name__ == "__main__":
    np.savez_compressed(FILE, **vectors())
    print(FILE, FILE.stat().st_size, "bytes")
