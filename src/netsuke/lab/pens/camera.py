"""Reflected light to the bytes of a photograph: resolution, focus, contrast, noise, JPEG."""

from __future__ import annotations

import numpy as np

from netsuke.lab.pens.textures import patch, unit

INVERTED = 0.12  # share of photographs with bright ink on dark: blackboards, screens, negatives


def photograph(
    scene: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    harm: float = 1.0,
    inverted: float = INVERTED,
) -> np.ndarray:
    """Light float32 [H, W] from 0 to 1 as a photo uint8 [h, w] of `size`.

    `harm` scales blur and noise, `inverted` is the chance of bright ink on dark.
    """
    scene = seen(scene, size, rng, harm=harm)
    u = rng.random(6)
    if u[0] < 0.12:
        low, high = 0.35 * u[1], 1 - 0.35 * u[2]
        scene = low + (high - low) * scene  # haze
    if u[3] < 0.7:
        scene = scene + np.float32(0.03 * harm * u[4] ** 2) * patch(
            "fine" if u[5] < 0.6 else "grain", size, rng
        )
    if rng.random() < inverted:
        scene = 1 - scene
    photo = (unit(scene) * 255).astype(np.uint8)
    if rng.random() < 0.5:
        photo = jpeg(photo, int(rng.integers(30, 96)))
    return photo


def seen(
    scene: np.ndarray, size: tuple[int, int], rng: np.random.Generator, *, harm: float = 1.0
) -> np.ndarray:
    """A scene float32 [H, W] at the resolution of the photo, sometimes out of focus."""
    import cv2

    if scene.shape != size:
        scene = cv2.resize(scene, size[::-1], interpolation=cv2.INTER_AREA)
    if rng.random() < 0.6 * harm:
        sigma = 0.25 + 0.95 * harm * float(rng.random()) ** 2 * min(1.0, max(size) / 48)
        scene = cv2.GaussianBlur(scene, (0, 0), sigma)
    return scene


def jpeg(photo: np.ndarray, quality: int) -> np.ndarray:
    """What is left of a grey photo after JPEG."""
    import cv2

    _, file = cv2.imencode(".jpg", photo, (cv2.IMWRITE_JPEG_QUALITY, quality))
    pixels = cv2.imdecode(file, cv2.IMREAD_GRAYSCALE)
    assert pixels is not None  # it was written a line ago
    return pixels
