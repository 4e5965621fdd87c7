"""Dataset and Split, and how the training half is divided."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from netsuke.errors import DataError, OptionError

TEST_SHARE = 0.2  # of a set that comes without a test half
TEST_SEED = 0  # fixed: the test set must not change with the seed of an experiment
LARGE = 20_000  # training images from which on a twelfth is enough to validate on
MAX_SIDE = 1024


@dataclass(frozen=True)
class Split:
    """Images uint8 [n, C, H, W], bright ink on dark ground, and their labels int64 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Split:
        """The images at `index`, in that order, as a copy."""
        return Split(self.images[index], self.labels[index])

    def outliers(self, classes: int) -> bool:
        """Whether some image is of none of so many classes: its label is their number."""
        return len(self) > 0 and int(self.labels.max()) == classes

    def known(self, classes: int) -> Split:
        """The images of a class: this split, or a copy without its outliers."""
        return self.take(np.flatnonzero(self.labels < classes)) if self.outliers(classes) else self


@dataclass(frozen=True)
class Dataset:
    """Labelled images in three splits; an empty split has length 0 and the same image shape.

    A label equal to the number of classes says that an image, an outlier, is of none of them.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    hash: str  # sha256 of images, labels and classes; the same for every seed
    licence: str
    role: str  # "any"; "experiment": not for weights that ship; "validation": never train on it
    absent: str = ""  # why a split is empty and what would fill it

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C, H, W of every image."""
        _, c, h, w = self.test.images.shape
        return c, h, w

    @property
    def family(self) -> str:
        """The catalogue's name, without the number of images behind a colon; a folder's name as it is."""
        return self.name if self.name.endswith("/") else self.name.partition(":")[0]

    @property
    def outliers(self) -> bool:
        """Whether there are images of no class to learn from, or to validate on."""
        return any(split.outliers(len(self.classes)) for split in (self.train, self.val))

    def require(self, *splits: str) -> Dataset:
        """This data set, if it has images in each of `splits` ("train", "val", "test").

        Raises DataError that says why a split is empty and what would fill it.
        """
        for split in splits:
            if not len(getattr(self, split)):
                raise DataError(f"{self.name} has no {split} images: {self.absent or 'the split is empty'}")
        return self


def empty_like(images: np.ndarray) -> Split:
    """No image, of the shape of `images` [n, C, H, W]."""
    return Split(images[:0].copy(), np.empty(0, np.int64))


def content_hash(classes: tuple[str, ...], *splits: Split) -> str:
    """sha256 hex over class names, image shapes, pixels and labels, in the order of the source."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for split in splits:
        digest.update(json.dumps(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(split.labels.astype("<i8").data)
    return digest.hexdigest()


def divide(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Part `split` into the rest and a stratified `share` of it; each keeps the order of the source.

    Every class gives its proportion (largest remainders make up the total) and keeps at least one image.
    """
    taken = _stratified(split.labels, share, seed)
    return split.take(np.flatnonzero(~taken)), split.take(np.flatnonzero(taken))


def _stratified(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A mask bool [n] of the images taken."""
    taken = np.zeros(len(labels), bool)
    if share == 0 or not len(labels):
        return taken
    counts = np.bincount(labels)
    exact = counts * share
    quota = np.floor(exact).astype(int)
    # rounded, so that the order of equal remainders is not left to the last bit of a float
    order = np.argsort(-np.round(exact - quota, 6), kind="stable")
    quota[order[: round(len(labels) * share) - int(quota.sum())]] += 1
    quota = np.clip(quota, np.minimum(1, counts // 3), np.maximum(counts - 1, 0))
    random = np.random.RandomState(seed)  # the one NumPy generator whose stream is frozen for good
    for label, number in enumerate(quota):
        taken[random.permutation(np.flatnonzero(labels == label))[:number]] = True
    return taken


def check_options(size: int | None, seed: int, val_share: float | None) -> None:
    """Raises OptionError where an option of `load` is out of its range."""
    if size is not None and not 1 <= size <= MAX_SIDE:
        raise OptionError(f"size must be 1 to {MAX_SIDE} pixels, not {size}")
    if not 0 <= seed < 2**32:
        raise OptionError(f"seed must be 0 to {2**32 - 1}, not {seed}")
    if val_share is not None and not 0 <= val_share < 1:
        raise OptionError(f"val_share must be at least 0 and below 1, not {val_share}")


def assemble(
    name: str,
    classes: tuple[str, ...],
    halves: dict[str, Split],
    *,
    licence: str,
    role: str,
    seed: int,
    val_share: float | None,
    absent: str = "",
) -> Dataset:
    """A Dataset from what a source holds of "train", "val" and "test".

    Without a test half a fixed, stratified fifth of the training half becomes it; without a val half
    `val_share` of the training half does (default 1/12 of a large set, 15 % of a small one).
    """
    digest = content_hash(classes, *(halves[key] for key in sorted(halves)))
    empty = empty_like(next(iter(halves.values())).images)
    train, test = halves.get("train", empty), halves.get("test", empty)
    if "test" not in halves:
        train, test = divide(train, TEST_SHARE, TEST_SEED)
    if "val" in halves:
        val = halves["val"]
    else:
        share = val_share if val_share is not None else 1 / 12 if len(train) >= LARGE else 0.15
        train, val = divide(train, share, seed)
        if len(train) and not len(val):
            absent = absent or f"a val_share of {share:g} leaves none; give a larger one"
    return Dataset(name, classes, train, val, test, digest, licence, role, absent)


def gathered(
    name: str, classes: tuple[str, ...], splits: dict[str, Split], *, licence: str, role: str, absent: str
) -> Dataset:
    """A Dataset of splits as they are; one that is missing is empty."""
    digest = content_hash(classes, *(splits[key] for key in sorted(splits)))
    empty = empty_like(next(iter(splits.values())).images)
    train, val, test = (splits.get(key, empty) for key in ("train", "val", "test"))
    return Dataset(name, classes, train, val, test, digest, licence, role, absent)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Images uint8 [n, C, H, W] as uint8 [n, C, size, size]; area-averaged where they shrink."""
    import cv2

    n, c, h, w = images.shape
    if (h, w) == (size, size):
        return images
    mode = cv2.INTER_AREA if size < max(h, w) else cv2.INTER_LINEAR
    out = np.empty((n, c, size, size), np.uint8)
    for target, image in zip(out.reshape(-1, size, size), images.reshape(-1, h, w), strict=True):
        cv2.resize(np.ascontiguousarray(image), (size, size), dst=target, interpolation=mode)
    return out
