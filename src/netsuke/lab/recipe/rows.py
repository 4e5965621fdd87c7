"""The figures of a model between two steps: what a recipe prints, and keeps in the manifest."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.engine import Engine
from netsuke.measure.accuracy import right
from netsuke.measure.cost import macs, parameters
from netsuke.measure.latency import median_us
from netsuke.memory import ram_bytes

CODED = 1 << 20  # weights, up to which coding them for a figure takes seconds
CLOCK_S = 0.3  # seconds that the clock runs for one figure


def figures(artifact: Artifact, data: Dataset) -> dict[str, Any]:
    """Accuracy on validation (None where there are no such images), bytes, parameters, MACs, RAM, latency.

    `encoded_bytes` are those of the artifact's own coding, or what Huffman codes would make of it, where they make it
    less (None for more than a million weights). `sparsity` is the share of weights that are zero; `latency_us` the
    median of single images on the engine that `backend` names, one thread.
    """
    graph, tensors = artifact.graph, artifact.tensors
    engine = Engine(artifact, backend="packaged")
    weights = [tensors[name] for name, (_, role) in graph.roles().items() if role == "weight"]
    count = sum(w.size for w in weights)
    if artifact.coding:
        encoded: int | None = artifact.encoded_bytes
    elif count <= CODED:
        encoded = min(artifact.size_bytes, artifact.with_manifest(coding="huffman").encoded_bytes)
    else:
        encoded = None
    images = data.val.images if len(data.val) else data.train.images
    return {
        "accuracy": accuracy(engine, data),
        "size_bytes": artifact.size_bytes,
        "encoded_bytes": encoded,
        "parameters": parameters(graph, tensors),
        "sparsity": round(1 - sum(int(np.count_nonzero(w)) for w in weights) / max(1, count), 6),
        "macs": sum(macs(graph, tensors).values()),
        "ram_bytes": ram_bytes(graph, tensors),
        "latency_us": round(median_us(engine, images, seconds=CLOCK_S), 2),
        "backend": engine.backend,
    }


def accuracy(engine: Engine, data: Dataset) -> float | None:
    """The share of validation images, outliers among them, that are right; None where there are none."""
    val = data.val
    if not len(val):
        return None
    hits = sum(
        int(
            right(
                engine.run(val.images[i : i + 1000]), val.labels[i : i + 1000], outliers=data.outliers
            ).sum()
        )
        for i in range(0, len(val), 1000)
    )
    return hits / len(val)
