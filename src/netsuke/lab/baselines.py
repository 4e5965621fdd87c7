"""Classical classifiers to put beside the networks: HOG with a linear SVM, k nearest neighbours, a random forest.

Each learns from the training half alone, on one thread, and costs what a device would have to store to answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

import numpy as np

from netsuke.data import Dataset
from netsuke.errors import DataError, MissingExtra, OptionError

BATCH = 500  # images at a time: keeps features and distances near a hundred megabytes
BINS = 9  # orientations of a histogram, over half a turn
GRID = 7  # cells a side
PENALTY = 10.0  # of the SVM, its C
VISITS = 100_000  # of training images, while the SVM learns from a small set
KEPT = 10_000  # training images that k-NN stores
NEIGHBOURS = 4
TREES, LEAVES = 50, 1000


@dataclass(frozen=True)
class Baseline:
    """A fitted classifier for images of one shape.

    `size_bytes` is everything that answering needs, as `description` says; `parameters` counts the same as
    numbers: weights, stored pixels and labels, or the entries of all tree nodes.
    """

    name: str
    description: str
    shape: tuple[int, int, int]
    classes: int
    size_bytes: int
    parameters: int
    answer: Callable[[np.ndarray], np.ndarray] = field(repr=False)

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Scores float64 [n, classes] of images uint8 [n, C, H, W]; the largest is the answer.

        Margins of the SVM, logarithms of smoothed shares of the votes of the others: as logits, both make
        sense to `netsuke.measure.accuracy.evaluate`. Raises DataError for images of another shape or type.
        """
        if images.ndim != 4 or images.shape[1:] != self.shape or images.dtype != np.uint8:
            raise DataError(
                f"{self.name} was fitted to uint8 [n, {', '.join(map(str, self.shape))}]; "
                f"got {images.dtype} {list(images.shape)}"
            )
        parts = [self.answer(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        return np.concatenate([np.empty((0, self.classes)), *parts])


def fit(name: str, dataset: Dataset, seed: int = 0) -> Baseline:
    """The named baseline, fitted to the training half.

    Raises OptionError for an unknown name, DataError where there are not images of two classes to learn from,
    MissingExtra without scikit-learn.
    """
    if name not in BASELINES:
        raise OptionError(f"no baseline {name!r}; there are {', '.join(BASELINES)}")
    if find_spec("sklearn") is None:
        raise MissingExtra("the classical baselines need scikit-learn: pip install 'netsuke[lab]'")
    dataset.require("train")
    # They know no "none of the classes": images of no class are left out.
    dataset = replace(dataset, train=dataset.train.known(len(dataset.classes)))
    if len(np.unique(dataset.train.labels)) < 2:
        raise DataError(f"{name} needs training images of two classes or more; {dataset.name} has one")
    return BASELINES[name](dataset, seed)


def hog(images: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients, float32 [n, features], of images uint8 [n, C, H, W].

    Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, 2005: nine unsigned orientations,
    votes shared between neighbouring bins and cells, overlapping blocks of 2x2 cells, each normalised, clipped
    at 0.2 and normalised again; of several channels the one with the strongest gradient votes. The cells
    divide the image into 7x7 whatever its size, down to two pixels a cell.
    """
    padded = np.pad(images.astype(np.float32), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    strength = np.hypot(dx, dy)
    channel = strength.argmax(1)[:, None]
    dx, dy, strength = (np.take_along_axis(each, channel, 1)[:, 0] for each in (dx, dy, strength))
    place = np.arctan2(dy, dx) % np.pi * (BINS / np.pi)
    away = np.abs(place[:, None] - np.arange(BINS, dtype=np.float32)[:, None, None])
    votes = strength[:, None] * np.maximum(0, 1 - np.minimum(away, BINS - away))
    rows, columns = (_cells(side) for side in images.shape[2:])
    cells = np.moveaxis(rows @ votes @ columns.T, 1, 3)  # [n, rows, columns, bins]
    corners = (cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1], cells[:, 1:, 1:])
    blocks = _unit(np.concatenate(corners, 3))
    return _unit(np.minimum(blocks, 0.2)).reshape(len(images), -1)


def _cells(side: int) -> np.ndarray:
    """How much each pixel of a row votes in each cell, float32 [cells, side]: its two nearest share it."""
    count = min(GRID, max(2, side // 2))
    centre = (np.arange(side) + 0.5) * count / side - 0.5  # of each pixel, in cells
    return np.maximum(0, 1 - np.abs(centre - np.arange(count)[:, None])).astype(np.float32)


def _unit(blocks: np.ndarray) -> np.ndarray:
    # the constant lets a block without ink stay near zero: a gradient of one grey level is noise
    return blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + 1)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _spread(known: np.ndarray, some: np.ndarray, classes: int, rest: float) -> np.ndarray:
    """Scores of the classes that were seen in training, float64 [n, seen], among all; `rest` for the others."""
    scores = np.full((len(some), classes), rest, np.float64)
    scores[:, known] = some
    return scores


def _smoothed(shares: np.ndarray, votes: int) -> np.ndarray:
    """Logarithms of shares of so many votes, each class given one vote's fraction so that none is impossible."""
    return np.log((shares * votes + 1 / shares.shape[1]) / (votes + 1))


def hog_svm(dataset: Dataset, seed: int) -> Baseline:
    from sklearn.linear_model import SGDClassifier

    train, classes = dataset.train, len(dataset.classes)
    features = np.concatenate([hog(train.images[i : i + BATCH]) for i in range(0, len(train), BATCH)])
    # by averaged stochastic gradients: liblinear takes longer for 10 000 images of MNIST than this for 55 000
    svm = SGDClassifier(
        loss="hinge", alpha=1 / (PENALTY * len(train)), average=True, tol=None, random_state=seed,
        max_iter=max(5, VISITS // len(train)),
    ).fit(features, train.labels)  # fmt: skip
    seen = svm.classes_
    weight, bias = svm.coef_.T.astype(np.float32), svm.intercept_.astype(np.float32)
    if len(seen) == 2:  # scikit-learn keeps one plane for two classes
        weight, bias = np.hstack([-weight, weight]), np.hstack([-bias, bias])

    def answer(images: np.ndarray) -> np.ndarray:
        margins = hog(images) @ weight + bias
        return _spread(seen, margins, classes, float(margins.min()) - 10)

    numbers = svm.coef_.size + svm.intercept_.size
    what = f"a linear SVM a class on {weight.shape[0]} HOG features; size: its weights and biases as float32"
    return Baseline("hog-svm", what, dataset.image_shape, classes, 4 * numbers, numbers, answer)


def knn(dataset: Dataset, seed: int) -> Baseline:
    from sklearn.neighbors import KNeighborsClassifier

    train, classes = dataset.train, len(dataset.classes)
    if len(train) > KEPT:
        train = train.take(np.sort(np.random.default_rng(seed).permutation(len(train))[:KEPT]))
    count = min(NEIGHBOURS, len(train))
    model = KNeighborsClassifier(count, weights="distance", algorithm="brute", n_jobs=1)
    model.fit(_pixels(train.images).astype(np.float32), train.labels)

    def answer(images: np.ndarray) -> np.ndarray:
        shares = model.predict_proba(_pixels(images).astype(np.float32))
        return _smoothed(_spread(model.classes_, shares, classes, 0), count)

    what = (
        f"{count} nearest neighbours by pixels, weighted by distance, among {len(train)} training images "
        f"(at most {KEPT}, drawn at random); size: those images and their labels, a byte a value"
    )
    numbers = train.images.size + len(train)
    label_bytes = len(train) * (1 if classes <= 256 else 2)
    return Baseline(
        "knn", what, dataset.image_shape, classes, train.images.size + label_bytes, numbers, answer
    )


def forest(dataset: Dataset, seed: int) -> Baseline:
    from sklearn.ensemble import RandomForestClassifier

    train, classes = dataset.train, len(dataset.classes)
    model = RandomForestClassifier(TREES, max_leaf_nodes=LEAVES, n_jobs=1, random_state=seed)
    model.fit(_pixels(train.images), train.labels)

    def answer(images: np.ndarray) -> np.ndarray:
        return _smoothed(_spread(model.classes_, model.predict_proba(_pixels(images)), classes, 0), TREES)

    leaves = int(sum(tree.get_n_leaves() for tree in model.estimators_))
    inner = int(sum(tree.tree_.node_count for tree in model.estimators_)) - leaves
    seen = len(model.classes_)
    pixel_bytes = 2 if train.images[0].size <= 1 << 16 else 4
    what = (
        f"{TREES} trees of at most {LEAVES} leaves on pixels; size: {pixel_bytes + 5} bytes a split "
        f"(pixel {pixel_bytes}, threshold 1, two children of 2) and a float32 a class in a leaf"
    )
    size = inner * (pixel_bytes + 5) + leaves * seen * 4
    return Baseline("forest", what, dataset.image_shape, classes, size, inner * 4 + leaves * seen, answer)


BASELINES: dict[str, Callable[[Dataset, int], Baseline]] = {"hog-svm": hog_svm, "knn": knn, "forest": forest}
