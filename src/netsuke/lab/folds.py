"""What a search may train and score on: the validation split or k folds, never the test half."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from netsuke.data import Dataset, Split
from netsuke.data.dataset import divide, empty_like
from netsuke.errors import OptionError


def joined(data: Dataset) -> Split:
    """The whole training half: training and validation images."""
    parts = data.train, data.val
    return Split(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))


def folds(data: Dataset, k: int, seed: int) -> list[Dataset]:
    """`k` stratified folds of the training half, each the validation split of one data set without a test half.

    Raises OptionError where a class has fewer than `k` images.
    """
    whole = joined(data)
    counts = np.bincount(whole.labels, minlength=len(data.classes))
    if counts.min() < k:
        few = int(counts.argmin())
        name = repr(data.classes[few]) if few < len(data.classes) else "none of the classes"
        raise OptionError(f"{k} folds need {k} images of every class; {name} has {counts[few]}")
    random = np.random.RandomState(seed)  # the one NumPy generator whose stream is frozen for good
    order = random.permutation(len(whole))
    # Dealt like cards, class after class, so that folds differ by one image at most, in all and in each class.
    order = order[np.argsort(whole.labels[order], kind="stable")]
    fold = np.empty(len(whole), int)
    fold[order] = np.arange(len(whole)) % k
    return [
        replace(
            data,
            train=whole.take(np.flatnonzero(fold != i)),
            val=whole.take(np.flatnonzero(fold == i)),
            test=empty_like(whole.images),
            hash=f"{data.hash} fold {i + 1}/{k} seed {seed}",
        )
        for i in range(k)
    ]


def parts(data: Dataset, *, k: int = 0, images: int = 0, seed: int = 0) -> list[Dataset]:
    """What a trial trains on: `k` folds, or with 0 one data set with its validation split; none has a test half.

    `images` first takes a stratified sample of so many training images; 0 takes all.
    Raises DataError or OptionError where there are not enough.
    """
    data = data.require("train") if k else data.require("train", "val")
    data = replace(data, test=empty_like(data.train.images))
    if k:
        data = replace(data, train=joined(data), val=empty_like(data.train.images))
    if 0 < images < len(data.train):
        if images < 2 * len(data.classes):
            raise OptionError(f"--images must be at least two a class, {2 * len(data.classes)}; got {images}")
        _, few = divide(data.train, images / len(data.train), seed)
        data = replace(data, train=few, hash=f"{data.hash} images {images} seed {seed}")
    return folds(data, k, seed) if k else [data]
