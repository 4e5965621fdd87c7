"""Pen paths of UNIPEN and UCI pen digits: who wrote what, and which writers validate."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path as File

import numpy as np

from netsuke.data.download import cache_folder
from netsuke.errors import DataError, OptionError
from netsuke.lab.pens.spoilt import SPOILT

Path = list[np.ndarray]  # pen strokes, each float32 [k, 2]: x to the right, y down

FOLDER = "pen-strokes"
FILES = {
    "digits": ("digits.npz", "pendigits.npz"),
    "letters": ("letters.npz",),
    "symbols": ("symbols.npz",),
}
SPLITS = ("train", "val", "all")
VAL_SHARE = 0.1  # of the writers of each source
EXTENT = 1000.0  # the longer side of a sample in the files


@dataclass(frozen=True, eq=False)
class Strokes:
    """n samples: `labels` str [n], `writers` int [n] (unique within a kind) and `sources` str [n]."""

    labels: np.ndarray
    writers: np.ndarray
    sources: np.ndarray
    points: np.ndarray  # float32 [k, 2], the longer side of each sample is 1
    stroke_start: np.ndarray
    spans: np.ndarray  # int [n, 2]: first stroke, and one past the last

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, i: int) -> Path:
        """The strokes of sample i; they share memory with the set, so do not write into them."""
        first, end = self.spans[i]
        cuts = self.stroke_start[first : end + 1]
        return [self.points[a:b] for a, b in pairwise(cuts)]

    def take(self, index: np.ndarray) -> Strokes:
        """The samples at `index` (positions or a mask), in that order."""
        parts = (self.labels[index], self.writers[index], self.sources[index])
        return Strokes(*parts, self.points, self.stroke_start, self.spans[index])


@lru_cache(maxsize=9)
def load(kind: str = "digits", split: str = "train") -> Strokes:
    """Strokes of `kind` (digits, letters, symbols) by the writers of `split` (train, val, all).

    Files are looked for in $NETSUKE_DATA/pen-strokes, then in the user's cache. Raises DataError where they are
    missing, OptionError for another kind or split.
    """
    if kind not in FILES or split not in SPLITS:
        raise OptionError(
            f"pen strokes have {', '.join(FILES)} in {', '.join(SPLITS)}; got {kind!r} in {split!r}"
        )
    whole = _joined([_read(name) for name in FILES[kind]])
    if split == "all":
        return whole
    held_out = np.isin(whole.writers, _validating(whole))
    return whole.take(held_out if split == "val" else ~held_out)


def _validating(strokes: Strokes) -> np.ndarray:
    """The writers held out: of every source with several, a tenth and at least one. The same in every run."""
    random = np.random.RandomState(6)  # the one NumPy generator whose stream is frozen for good
    writers, first = np.unique(strokes.writers, return_index=True)
    sources = strokes.sources[first]
    chosen: list[np.ndarray] = []
    for source in np.unique(sources):
        of_source = random.permutation(writers[sources == source])
        if len(of_source) > 3:
            chosen.append(of_source[: max(1, round(VAL_SHARE * len(of_source)))])
    return np.concatenate(chosen)


def _read(name: str) -> Strokes:
    path = _locate(name)
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = ("points", "stroke_start", "sample_start", "label", "writer", "source")
            points, strokes, samples, label, writer, source = (file[key] for key in keys)
        spans = np.stack([samples[:-1], samples[1:]], 1).astype(int)
        whole = Strokes(
            label, writer.astype(int), source[writer], points.astype(np.float32) / EXTENT, strokes, spans
        )
        return whole.take(np.setdiff1d(np.arange(len(whole)), SPOILT.get(name, ())))
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path}: no pen strokes ({error})") from error


def _locate(name: str) -> File:
    roots = [File(root) for root in (os.environ.get("NETSUKE_DATA"),) if root] + [cache_folder()]
    for root in roots:
        if (root / FOLDER / name).is_file():
            return root / FOLDER / name
    raise DataError(
        f"pen strokes need {name}: put it into {roots[-1] / FOLDER}, "
        f"or set NETSUKE_DATA to a folder that holds {FOLDER}/{name}"
    )


def _joined(parts: list[Strokes]) -> Strokes:
    writers, starts, spans = [], [], []
    people = points = strokes = 0
    for part in parts:
        writers.append(part.writers + people)
        starts.append(part.stroke_start[:-1].astype(int) + points)
        spans.append(part.spans + strokes)
        people += int(part.writers.max()) + 1
        points += len(part.points)
        strokes += len(part.stroke_start) - 1
    starts.append(np.array([points]))
    return Strokes(
        np.concatenate([part.labels for part in parts]),
        np.concatenate(writers),
        np.concatenate([part.sources for part in parts]),
        np.concatenate([part.points for part in parts]),
        np.concatenate(starts),
        np.concatenate(spans),
    )
