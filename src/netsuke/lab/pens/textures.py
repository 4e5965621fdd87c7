"""Noise and patterns to cut patches from: made once, since drawing noise pixel by pixel would take most of the time."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SIDE = 512
SHARPNESS = {  # sigma in pixels along y and x
    "fine": (0.0, 0.0),
    "grain": (0.8, 0.8),
    "fibre": (0.9, 2.5),
    "mottle": (3.0, 3.0),
    "cloud": (14.0, 14.0),
}
GUILLOCHES = 24


def patch(name: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random piece of the noise `name`, float32 [h, w], mean 0 and deviation about 1; large ones repeat."""
    return _cut(_noise(name), shape, rng)


def guilloche(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random piece of a security pattern of fine curves, float32 [h, w], 0 (paper) to 1 (line)."""
    return _cut(_guilloche(int(rng.integers(GUILLOCHES))), shape, rng)


def unit(values: np.ndarray) -> np.ndarray:
    """Values cut to 0..1; on small arrays four times as fast as np.clip."""
    return np.minimum(np.maximum(values, np.float32(0)), np.float32(1))


def _cut(tile: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    y, x, turn = rng.integers(SIDE, size=3)
    tile = (tile, tile[::-1], tile[:, ::-1], tile.T)[turn % 4]
    h, w = shape
    if h > SIDE or w > SIDE:
        tile = np.tile(tile, (-(-h // SIDE), -(-w // SIDE)))
        return np.roll(tile, (y, x), (0, 1))[:h, :w]
    if y + h <= SIDE and x + w <= SIDE:
        return tile[y : y + h, x : x + w]
    return tile[y % (SIDE - h + 1) :, x % (SIDE - w + 1) :][:h, :w]


@lru_cache(maxsize=len(SHARPNESS))
def _noise(name: str) -> np.ndarray:
    """White noise blurred in the Fourier domain, so that its edges meet."""
    white = np.random.RandomState(len(name)).standard_normal((SIDE, SIDE))
    f = np.fft.fftfreq(SIDE)
    sy, sx = SHARPNESS[name]
    gain = np.exp(-2 * np.pi**2 * ((sy * f[:, None]) ** 2 + (sx * f[None]) ** 2))
    noise = np.fft.ifft2(np.fft.fft2(white) * gain).real
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


@lru_cache(maxsize=GUILLOCHES)
def _guilloche(number: int) -> np.ndarray:
    """Level lines of a warped wave: concentric arcs, waves or rosettes, in one family or two crossing ones."""
    random = np.random.RandomState(100 + number)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    out = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(1 + number % 3):
        cy, cx = random.uniform(-0.5, 1.5, 2) * SIDE
        radius = np.hypot(y - cy, x - cx)
        angle = random.uniform(0, np.pi)
        along = x * np.cos(angle) + y * np.sin(angle)
        across = y * np.cos(angle) - x * np.sin(angle)
        base = radius if random.rand() < 0.5 else across
        wobble = random.uniform(0, 9) * np.sin(along / random.uniform(9, 60) + random.uniform(0, 6))
        period = random.uniform(4, 14)
        wave = np.abs(((base + wobble) / period) % 1 - 0.5) * period  # pixels from the nearest line
        out = np.maximum(out, np.clip(random.uniform(0.7, 1.5) - wave, 0, 1))
    return out
