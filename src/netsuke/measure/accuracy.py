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


def right(logits: Any, labels: Any, *, outliers: bool = False) -> Any:
    """Which answers are right, bool [n], of logits [n, k] and labels [n], both of NumPy or both of torch.

    With `outliers` the model may stay silent: it does where no logit is above 0, the logit of "none of the
    classes". That is right for a label of k, and wrong for an image of a class.
    """
    found = logits.argmax(1) == labels
    if not outliers:
        return found
    spoke = (logits > 0).any(1)
    return (found & spoke) | ((labels == logits.shape[1]) & ~spoke)


def evaluate(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Everything that logits [n, k] and labels [n] say about a classifier, as plain JSON.

    `loss` is the mean cross entropy in nats: integer logits first go through `scaled`. Of equal logits the
    first class wins. `confusion` has the true class in its rows and the predicted one in its columns. A share
    of nothing (the precision of a class that is never predicted) is 0. `macro` weighs all classes alike,
    `weighted` by their support. Images of no class (label k) are left out: `measure.rejection` is about them.
    Raises DataError where logits, labels and classes do not fit together.
    """
    k = len(classes)
    if logits.ndim != 2 or logits.shape[1] != k or labels.shape != logits.shape[:1] or not len(labels):
        raise DataError(
            f"needs logits [n, {k}] and labels [n], n > 0; got {list(logits.shape)}, {list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() > k or labels.min() == k:
        raise DataError(
            f"labels must be 0 to {k - 1}, or {k} for none of the classes, but not all; "
            f"got {labels.min()} to {labels.max()}"
        )
    if labels.max() == k:
        logits, labels = logits[labels < k], labels[labels < k]
    predicted = logits.argmax(1)
    confusion = np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)
    n, hits, support = len(labels), confusion.diagonal(), confusion.sum(1)
    shares = {"precision": _share(hits, confusion.sum(0)), "recall": _share(hits, support)}
    shares["f1"] = _share(2 * hits, confusion.sum(0) + support)
    loss = -log_softmax(logits)[np.arange(n), labels].mean()
    return {
        "accuracy": float(hits.sum() / n),
        "loss": float(loss),
        "n": n,
        "errors": int(n - hits.sum()),
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
    """The share of the split's images of a class for which that class is said, by the NumPy reference."""
    known = split.known(len(artifact.classes))
    each = right(_logits(artifact, known), known.labels)
    return Report("accuracy", float(each.mean()), "share", len(each), float(each.std()))


def loss(artifact: Artifact, split: Any) -> Report:
    """Mean cross entropy over the split's images of a class, by the NumPy reference."""
    known = split.known(len(artifact.classes))
    logs = log_softmax(scaled(artifact, _logits(artifact, known)))
    each = -logs[np.arange(len(logs)), known.labels]
    return Report("loss", float(each.mean()), "nats", len(each), float(each.std()))
