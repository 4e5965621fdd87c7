"""Readers of the catalogue: each makes one half of a set, from its files, into a Split.

That is uint8 [n, 1, H, W], bright ink on dark ground; whatever is wrong with a file is a DataError.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from netsuke.data import parsers
from netsuke.data.dataset import Split
from netsuke.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from netsuke.data.catalogue import Entry


def idx(entry: Entry, half: str, paths: Sequence[Path]) -> Split:
    """An idx file of images and one of labels."""
    images, labels = (parsers.parse_idx(parsers.read_bytes(path), str(path)) for path in paths)
    return parsers.pair(images, labels, len(entry.classes), entry.shape, str(paths[0].parent))


def emnist(entry: Entry, half: str, paths: Sequence[Path]) -> Split:
    """EMNIST's zip of idx files; its images are stored column by column, so they are turned upright."""
    parts = []
    for what in ("images-idx3", "labels-idx1"):
        name = f"gzip/emnist-digits-{half}-{what}-ubyte.gz"
        parts.append(parsers.parse_idx(parsers.read_member(paths[0], name), f"{paths[0]}:{name}"))
    images, labels = parts
    if images.ndim == 3:
        images = images.transpose(0, 2, 1)
    return parsers.pair(images, labels, len(entry.classes), entry.shape, str(paths[0]))


def kmnist(entry: Entry, half: str, paths: Sequence[Path]) -> Split:
    """KMNIST: the training half as idx, the test half as NumPy arrays, as the official site has both."""
    if half == "train":
        return idx(entry, half, paths)
    images, labels = (parsers.read_npz(path, "arr_0") for path in paths)
    return parsers.pair(images, labels, len(entry.classes), entry.shape, str(paths[0].parent))


def npz(entry: Entry, half: str, paths: Sequence[Path]) -> Split:
    """One .npz with `images` and `labels`."""
    images, labels = (parsers.read_npz(paths[0], key) for key in ("images", "labels"))
    return parsers.pair(images, labels, len(entry.classes), entry.shape, str(paths[0]))


def npz_dark_ink(entry: Entry, half: str, paths: Sequence[Path]) -> Split:
    """The same, drawn dark on white."""
    split = npz(entry, half, paths)
    return Split(255 - split.images, split.labels)


def usps(entry: Entry, half: str, paths: Sequence[Path]) -> Split:
    """The label, then 256 values from -1 (paper) to 1 (ink)."""
    table = parsers.read_table(paths[0], 257, -1, 9)
    if table[:, 1:].max() > 1:
        raise DataError(f"{paths[0]}: a grey value above 1")
    return _grey(entry, (table[:, 1:] + 1) / 2, table[:, 0], paths[0])


def optdigits(entry: Entry, half: str, paths: Sequence[Path]) -> Split:
    """64 counts of ink from 0 to 16, then the label."""
    table = parsers.read_table(paths[0], 65, 0, 16, delimiter=",")
    return _grey(entry, table[:, :64] / 16, table[:, 64], paths[0])


def semeion(entry: Entry, half: str, paths: Sequence[Path]) -> Split:
    """256 zeros and ones, then the label as one of ten flags."""
    table = parsers.read_table(paths[0], 266, 0, 1)
    flags = table[:, 256:]
    if (table % 1).any() or (flags.sum(1) != 1).any():
        raise DataError(f"{paths[0]}: values must be 0 or 1, with exactly one of the last ten set")
    return _grey(entry, table[:, :256], flags.argmax(1), paths[0])


def digits(entry: Entry, half: str, paths: Sequence[Path]) -> Split:
    """scikit-learn's copy of the UCI test set, values 0 to 16."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("the digits data come with scikit-learn: pip install netsuke[lab]") from error
    bunch = load_digits()
    return _grey(entry, bunch.data / 16, bunch.target, Path("digits"))


def _grey(entry: Entry, ink: np.ndarray, labels: np.ndarray, path: Path) -> Split:
    """Shares of ink [n, H * W] in 0..1 as grey values."""
    images = np.round(ink * 255).astype(np.uint8).reshape(-1, *entry.shape[1:])
    return parsers.pair(images, labels, len(entry.classes), entry.shape, str(path))
