"""Logits to probabilities, with silence: "no digit" is a class whose logit is 0, where the model was trained so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError

STATES = ("digit", "unsure", "not a digit")  # the better first


def confidences(artifact: Artifact, logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64; integer logits are first brought to their scale."""
    return _softmax(_scaled(artifact, logits))


def probabilities(artifact: Artifact, logits: np.ndarray) -> np.ndarray:
    """Logits [n, K] -> float64 [n, K + 1]: of each class, and last that it is none of them.

    A model with `reject` in its manifest has "none" as one more logit, the constant 0, and a temperature t by which
    all are multiplied; for another the last column is 0. Raises ArtifactError where `reject` makes no sense.
    """
    reject = rejection(artifact)
    if reject is None:
        share = confidences(artifact, logits)
        return np.concatenate([share, np.zeros((*share.shape[:-1], 1))], -1)
    value = _scaled(artifact, logits) * reject["temperature"]
    return _softmax(np.concatenate([value, np.zeros((*value.shape[:-1], 1))], -1))


def state(artifact: Artifact, confidence: float) -> str:
    """What a digit of this probability is called; always "digit" where the model knows no "none"."""
    reject = rejection(artifact)
    if reject is None or confidence >= reject["threshold"]:
        return STATES[0]
    return STATES[1] if confidence >= reject["unsure"] else STATES[2]


def worst(states: Sequence[str]) -> str:
    """The least certain of some states; of none, "not a digit"."""
    return max(states, key=STATES.index, default=STATES[2])


def rejection(artifact: Artifact) -> dict[str, float] | None:
    """Temperature, threshold and unsure of a model that tells digits from all else."""
    given: Any = artifact.manifest.get("reject")
    if given is None:
        return None
    try:
        threshold = float(given.get("threshold", 0.5))
        reject = {
            "temperature": float(given.get("temperature", 1.0)),
            "threshold": threshold,
            "unsure": float(given.get("unsure", threshold / 2)),
        }
    except (AttributeError, TypeError, ValueError):
        raise ArtifactError(f"its reject is {str(given)[:60]!r}; netsuke wants three numbers") from None
    if not (0 < reject["temperature"] < np.inf and 0 <= reject["unsure"] <= threshold <= 1):
        raise ArtifactError(
            f"its reject has {reject}; a temperature is above 0, and 0 <= unsure <= threshold <= 1"
        )
    return reject


def _softmax(value: np.ndarray) -> np.ndarray:
    power = np.exp(value - value.max(-1, keepdims=True))
    return power / power.sum(-1, keepdims=True)


def _scaled(artifact: Artifact, logits: np.ndarray) -> np.ndarray:
    last = artifact.graph.ops[-1]
    return logits.astype(np.float64) * (last.attrs["scale"] if last.kind == "qlogits" else 1.0)
