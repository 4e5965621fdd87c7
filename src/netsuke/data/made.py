"""Sets that are made, not fetched: their parts, a file each, made at first use and kept in the cache.

Who makes them lies downstream in `netsuke.lab`, so the catalogue names it and nothing here imports it.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np

from netsuke.cache import cache_folder
from netsuke.data import parsers
from netsuke.data.dataset import Split
from netsuke.errors import DataError
from netsuke.files import write_whole

SMALL_VAL = 4  # of a set made smaller, training images for a validation image
LEAST = 40  # images of the smallest set


@dataclass(frozen=True)
class Part:
    """So many images of a half ("train", "val") as `kind` makes them from a seed; fewer are the first of them."""

    half: str
    kind: str
    seed: int
    count: int

    @property
    def file(self) -> str:
        return f"{self.half}-{self.kind}-{self.seed}-{self.count}.npz"


@dataclass(frozen=True)
class Maker:
    """`module` has `make(part) -> (images uint8 [n, C, H, W], labels int [n])` and `check()`, which raises early.

    `edition` goes up whenever the same part would come out otherwise; the files of others are not taken.
    """

    module: str
    edition: int
    parts: tuple[Part, ...]


def cut(parts: Sequence[Part], images: int | None) -> tuple[Part, ...]:
    """Of a set of parts a smaller one with `images` training images, of every kind its share; None is all.

    It has a quarter as many validation images, where there are as many. Raises DataError for a number out of range.
    """
    if images is None:
        return tuple(parts)
    whole = sum(part.count for part in parts if part.half == "train")
    if not LEAST <= images <= whole:
        raise DataError(f"the number behind the colon must be {LEAST} to {whole}; got {images}")
    val = sum(part.count for part in parts if part.half == "val")
    return (*_fewer(parts, "train", images), *_fewer(parts, "val", min(val, images // SMALL_VAL)))


def _fewer(parts: Sequence[Part], half: str, images: int) -> list[Part]:
    mine = [part for part in parts if part.half == half]
    whole, found, done = sum(part.count for part in mine), [], 0
    seen = 0
    for kind in dict.fromkeys(part.kind for part in mine):
        same = [part for part in mine if part.kind == kind]
        seen += sum(part.count for part in same)
        wanted = round(images * seen / whole) - done  # so that all kinds add up
        done += wanted
        for part in same:
            if wanted > 0:
                found.append(replace(part, count=min(part.count, wanted)))
                wanted -= found[-1].count
    return found


# --- files ------------------------------------------------------------------------------------------


def locate(name: str, maker: Maker, part: Part) -> Path | None:
    """A file that holds the part, perhaps with more behind it, in $NETSUKE_DATA or the cache; else None."""
    roots = [Path(root) for root in (os.environ.get("NETSUKE_DATA"),) if root] + [cache_folder()]
    for root in roots:
        folder = root / name / f"edition-{maker.edition}"
        if (folder / part.file).is_file():
            return folder / part.file
        longer = (
            (int(count), path)
            for path in folder.glob(f"{part.half}-{part.kind}-{part.seed}-*.npz")
            if (count := path.stem.rpartition("-")[2]).isdigit() and int(count) > part.count
        )
        if best := min(longer, default=None):
            return best[1]
    return None


def ensure(name: str, maker: Maker, parts: Sequence[Part]) -> tuple[Path, ...]:
    """A file for each part; those that are missing are made, one by one, so that a killed run loses one at most.

    Progress goes to stderr. Raises DataError where what they are made from is missing, MissingExtra without torch.
    """
    missing = [part for part in parts if locate(name, maker, part) is None]
    if missing:
        folder = cache_folder() / name / f"edition-{maker.edition}"
        _make_all(name, import_module(maker.module), missing, folder)
    found = [locate(name, maker, part) for part in parts]
    return tuple(path for path in found if path is not None)


def _make_all(name: str, source: object, parts: Sequence[Part], folder: Path) -> None:
    make: Callable[[Part], tuple[np.ndarray, np.ndarray]] = source.make  # type: ignore[attr-defined]
    source.check()  # type: ignore[attr-defined]
    left, done, spent = sum(part.count for part in parts), 0, 0.0
    sample = replace(parts[0], count=min(200, parts[0].count))
    make(sample)  # reads what all are made from, and readies it
    start = time.monotonic()
    make(sample)
    each = (time.monotonic() - start) / sample.count
    _say(
        f"{name}: making {left:,} images in {len(parts)} part{'s' * (len(parts) > 1)}, {_about(left * each)}, once; "
        f"they stay in {folder}"
    )
    for number, part in enumerate(parts, 1):
        start = time.monotonic()
        _write(folder / part.file, *make(part))
        spent, done, left = spent + time.monotonic() - start, done + part.count, left - part.count
        if left:
            _say(f"{name}: {number} of {len(parts)} parts; {_about(left * spent / done)} to go")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _about(seconds: float) -> str:
    return f"about {max(1, round(seconds))} s" if seconds < 90 else f"about {round(seconds / 60)} min"


def _write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Images, labels and the SHA-256 of both, in one step."""
    images, labels = np.ascontiguousarray(images), labels.astype(np.uint8)
    file = io.BytesIO()
    np.savez(file, images=images, labels=labels, sha256=_digest(images, labels))
    write_whole(path, file.getbuffer())


def read(path: Path, classes: int, shape: tuple[int, int, int], count: int) -> Split:
    """The first `count` images of a part; labels are 0 to `classes`, the last for none of them.

    Raises DataError where the file is damaged or holds other images.
    """
    images, labels = parsers.read_npz(path, "images"), parsers.read_npz(path, "labels")
    if not np.array_equal(parsers.read_npz(path, "sha256"), _digest(images, labels)):
        raise DataError(f"{path}: its content is not what was made; delete it, and it is made anew")
    split = parsers.pair(images[:, 0] if images.ndim == 4 else images, labels, classes + 1, shape, str(path))
    if len(split) < count:
        raise DataError(f"{path}: holds {len(split)} images, not {count}; delete it, and it is made anew")
    return Split(split.images[:count], split.labels[:count])


def joined(paths: Sequence[Path], parts: Sequence[Part], classes: int, shape: tuple[int, int, int]) -> Split:
    """The images of all parts, one after the other."""
    splits = [read(path, classes, shape, part.count) for path, part in zip(paths, parts, strict=True)]
    return Split(np.concatenate([s.images for s in splits]), np.concatenate([s.labels for s in splits]))


def _digest(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    digest = hashlib.sha256(repr((images.shape, labels.shape)).encode())
    digest.update(images.data)
    digest.update(labels.data)
    return np.frombuffer(digest.digest(), np.uint8)
