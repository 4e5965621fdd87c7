"""How right a classifier is: accuracy, cross entropy, per-class figures, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import DataError
from netsuke.graph import Graph
from netsuke.measure.report import Report


def scaled(model: Artifact | Graph, logits: np.ndarray) -> np.ndarray:
    """Logits [n, k] as float64 in nats: integer ones times the `scale` of the graph's last op."""
    graph = model.graph if isinstance(model, Artifact) else model
    return logits.astype(np.float64) * graph.ops[-1].attrs.get("scale", 1.0)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the class probabilities, float64 [n, k]; no logit is too large."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def probabilities(model: Artifact | Graph, logits: np.ndarray) -> np.ndarray:
    """Class probabilities, float64 [n, k], of the logits that `model` gave, integer or float."""
    return np.exp(log_softmax(scaled(model, logits)))


def evaluate(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Everything that logits [n, k] and labels [n] say about a classifier, as plain JSON.

    `loss` is the mean cross entropy in nats: integer logits first go through `scaled`. Of equal logits the
    first class wins. `confusion` has the true class in its rows and the predicted one in its columns. A share
    of nothing (the precision of a class that is never predicted) is 0. `macro` weighs all classes alike,
    `weighted` by their support. Raises DataError where logits, labels and classes do not fit together.
    """
    k = len(classes)
    if logits.ndim != 2 or logits.shape[1] != k or labels.shape != logits.shape[:1] or not len(labels):
        raise DataError(
            f"needs logits [n, {k}] and labels [n], n > 0; got {list(logits.shape)}, {list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= k:
        raise DataError(f"labels must be 0 to {k - 1}; got {labels.min()} to {labels.max()}")
    predicted = logits.argmax(1)
    confusion = np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)
    n, right, support = len(labels), confusion.diagonal(), confusion.sum(1)
    shares = {"precision": _share(right, confusion.sum(0)), "recall": _share(right, support)}
    shares["f1"] = _share(2 * right, confusion.sum(0) + support)
    loss = -log_softmax(logits)[np.arange(n), labels].mean()
    return {
        "accuracy": float(right.sum() / n),
        "loss": float(loss),
        "n": n,
        "errors": int(n - right.sum()),
        "per_class": [
            {"class": name, **{key: float(v[i]) for key, v in shares.items()}, "support": int(support[i])}
            for i, name in enumerate(classes)
        ],
        "macro": {key: float(v.mean()) for key, v in shares.items()},
        "weighted": {key: float(v @ support / n) for key, v in shares.items()},
        "confusion": confusion.tolist(),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), 0.0)


def _logits(artifact: Artifact, split: Any) -> np.ndarray:
    """One logit a class; ArtifactError where the model gives a map."""
    _ = artifact.classes
    return artifact.logits(split.images)


def accuracy(artifact: Artifact, split: Any) -> Report:
    """The share of the split's images whose class is right, by the NumPy reference."""
    right = _logits(artifact, split).argmax(1) == split.labels
    return Report("accuracy", float(right.mean()), "share", len(right), float(right.std()))


def loss(artifact: Artifact, split: Any) -> Report:
    """Mean cross entropy over the split's images, by the NumPy reference."""
    logs = log_softmax(scaled(artifact, _logits(artifact, split)))
    each = -logs[np.arange(len(logs)), split.labels]
    return Report("loss", float(each.mean()), "nats", len(each), float(each.std()))
