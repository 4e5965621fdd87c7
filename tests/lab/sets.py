"""A set that is learnt in a few steps, of any shape."""

from __future__ import annotations

import numpy as np

from netsuke.data import Dataset, Split


def blobs(shape: tuple[int, int, int], classes: int = 4, n: int = 160, seed: int = 0) -> Dataset:
    """A bright column whose place is the class, in noise: learnt in a few steps."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = rng.integers(0, 90, (n, *shape), np.uint8)
    width = shape[2] // classes
    for image, label in zip(images, labels, strict=True):
        image[:, :, label * width : (label + 1) * width] += 150
    parts = [Split(images[i::5], labels[i::5].astype(np.int64)) for i in range(5)]
    train = Split(*(np.concatenate([getattr(p, key) for p in parts[2:]]) for key in ("images", "labels")))
    names = tuple(f"c{i}" for i in range(classes))
    return Dataset("blobs", names, train, parts[0], parts[1], f"blobs{shape}{n}{seed}", "none", "any")
