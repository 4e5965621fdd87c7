"""A data set made to fit: other sizes and channels for a network that expects them, fewer labels for an experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np

from netsuke.data.dataset import MAX_SIDE, Dataset, Split
from netsuke.errors import DataError

Shape = tuple[int, int, int]

MAX_BYTES = 8 << 30  # of a whole adapted set: it is held in memory
CHANNELS = {(1, 3): "repeat", (3, 1): "luma"}  # every other pair must be equal


def adapt(data: Dataset, shape: Shape) -> Dataset:
    """`data` with every image brought to `shape` (C, H, W), as `adapt_images` does; itself where it fits already.

    Raises DataError where no way leads from its channels to those, or the result would not fit into memory.
    """
    if data.image_shape == shape:
        return data
    splits = (data.train, data.val, data.test)
    count, each = sum(map(len, splits)), prod(shape)
    if count * each > MAX_BYTES:
        raise DataError(
            f"{data.name}: {count} images of {_text(shape)} take {count * each / 1e9:.0f} GB; "
            "give a smaller --size"
        )
    train, val, test = (Split(adapt_images(s.images, shape, data.name), s.labels) for s in splits)
    return replace(data, train=train, val=val, test=test, hash=_derived(data, "adapt", *shape))


def adapt_images(images: np.ndarray, shape: Shape, name: str = "the data") -> np.ndarray:
    """uint8 [n, c, h, w] as uint8 [n, C, H, W]: grey is repeated thrice, RGB becomes its luma (BT.601), the
    image is stretched to the size, by area where it shrinks and bilinear where it grows.

    Raises DataError where no way leads from c channels to C.
    """
    import cv2

    n, c, h, w = images.shape
    channels, height, width = shape
    if c != channels and (c, channels) not in CHANNELS:
        raise DataError(f"{name} has {c} channels; nothing makes {channels} of them, only 1 of 3 or 3 of 1")
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise DataError(f"images can be made 1 to {MAX_SIDE} pixels high and wide; got {height}x{width}")
    mode = cv2.INTER_AREA if height * width < h * w else cv2.INTER_LINEAR
    out = np.empty((n, channels, height, width), np.uint8)
    for target, image in zip(out, images, strict=True):
        if c == 3 and channels == 1:
            image = cv2.cvtColor(np.ascontiguousarray(image.transpose(1, 2, 0)), cv2.COLOR_RGB2GRAY)[None]
        for i, plane in enumerate(image):  # grey is resized once, then repeated
            target[i] = cv2.resize(np.ascontiguousarray(plane), (width, height), interpolation=mode)
        target[len(image) :] = target[0]
    return out


def adaptation(data: Dataset, shape: Shape) -> dict[str, Any]:
    """What `adapt(data, shape)` does, as the manifest's `adapted` says it; empty where it does nothing."""
    source = data.image_shape
    if source == shape:
        return {}
    shrinks = shape[1] * shape[2] < source[1] * source[2]
    return {
        "from": list(source),
        "to": list(shape),
        "channels": CHANNELS.get((source[0], shape[0]), "same"),
        "resize": "none" if source[1:] == shape[1:] else "area" if shrinks else "linear",
    }


def as_trained(data: Dataset, adapted: object, shape: Shape) -> Dataset:
    """`data` as a model with inputs `shape` was trained to see it, after what its manifest says in `adapted`.

    Only images of the size that the training images had are adapted; all others are left as they are.
    """
    came_from = adapted.get("from") if isinstance(adapted, dict) else None
    return adapt(data, shape) if came_from == list(data.image_shape) else data


def few(data: Dataset, per_class: int, seed: int) -> Dataset:
    """`data` with `per_class` training and as many validation images a class, drawn by `seed`; all test images.

    The validation images are few as well: whoever has ten labels a class has no thousand to choose by.
    Raises DataError where a class has fewer training images; of validation images what there is will do.
    """
    if per_class < 1:
        raise DataError(f"--per-class must be at least 1; got {per_class}")
    counts = np.bincount(data.train.labels, minlength=len(data.classes))
    if counts.min() < per_class:
        poor = int(counts.argmin())
        name = repr(data.classes[poor]) if poor < len(data.classes) else "none of the classes"
        raise DataError(
            f"{data.name} has {counts.min()} training images of {name}; --per-class takes at most that"
        )
    random = np.random.RandomState(seed)  # its stream is frozen for good
    train, val = (_drawn(split, per_class, random.permutation) for split in (data.train, data.val))
    return replace(data, train=train, val=val, hash=_derived(data, "few", per_class, seed))


def _drawn(split: Split, per_class: int, permutation: Callable[[np.ndarray], np.ndarray]) -> Split:
    """At most so many images of each class, in the order of the source."""
    classes = np.unique(split.labels)
    parts = [permutation(np.flatnonzero(split.labels == label))[:per_class] for label in classes]
    return split.take(np.sort(np.concatenate(parts))) if parts else split


def _derived(data: Dataset, *how: object) -> str:
    """A hash of its own for a set that was changed, so that no checkpoint is mistaken for another's."""
    return sha256(" ".join(map(str, (data.hash, *how))).encode()).hexdigest()


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
