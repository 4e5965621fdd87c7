"""Weight sharing: the weights of a layer become a few values that all share, a codebook and indices into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netsuke.data import Dataset
from netsuke.errors import OptionError, UnsupportedOp
from netsuke.graph import Graph
from netsuke.lab import forms
from netsuke.lab.clusters import STARTS, kmeans, nearest
from netsuke.lab.lower import lower
from netsuke.lab.modules import FloatGraph, key
from netsuke.lab.steps.train import Progress, Teacher, Training, train

__all__ = ["Share", "share"]


@dataclass(frozen=True)
class Share:
    """Options: `conv` and `dense` bits an index, so 2^bits values a layer; 0 leaves layers as they are.

    The defaults are those of Deep Compression. `layers` gives layers whose name matches a pattern (as in a
    shell) bits of their own; the last that matches counts. `start` says where k-means starts: "linear",
    "density" or "random". `training` fine-tunes the shared values, with epochs over 0.
    """

    conv: int = 8
    dense: int = 5
    layers: Mapping[str, int] = field(default_factory=dict)
    start: str = "linear"
    seed: int = 0
    training: Training = field(default_factory=lambda: Training(epochs=0))

    def __post_init__(self) -> None:
        for name, bits in {"conv": self.conv, "dense": self.dense, **self.layers}.items():
            if not 0 <= bits <= 8:
                raise OptionError(f"{name} takes 1 to 8 bits, or 0 to leave layers as they are; got {bits}")
        if self.start not in STARTS:
            raise OptionError(f"no start {self.start!r}; there are {', '.join(STARTS)}")


def share(
    model: nn.Module,
    data: Dataset,
    options: Share | None = None,
    *,
    teacher: Teacher | None = None,
    work: Path | None = None,
    history: list[dict[str, float]] | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> FloatGraph:
    """A FloatGraph whose layers have a codebook each, found by k-means and then trained (Han et al., 2016).

    `model` is untouched. `changes` override single options: `share(model, data, dense=4)`. Weights that are 0 keep
    a value 0 of their own, which does not train, so what is pruned stays pruned. The codebooks are those that a
    file stores and `size_bytes` counts; they hold float32 values, and `quantize` afterwards rounds every weight
    anew and loses them. `teacher`, `work`, `history` and `progress` are those of `train`.
    Raises UnsupportedOp for a model that is quantised already, OptionError for a pattern that matches nothing.
    """
    chosen = replace(options or Share(), **changes)
    graph, weights = lower(model, data.image_shape)
    if any("bits" in op.attrs for op in graph.ops):
        raise UnsupportedOp(
            "share takes a float model; this one has integer weights, which are packed already"
        )
    result = FloatGraph(graph, weights)
    for name, bits in _bits(graph, chosen).items():
        if bits:
            index, values = clustered(weights[f"{name}.weight"], bits, chosen.start, chosen.seed)
            forms.share(result.layers[key(name)], index, values)
    if not chosen.training.epochs:
        return result.eval()
    trained = train(
        result, data, chosen.training, teacher=teacher, work=work, history=history, progress=progress
    )
    assert isinstance(trained, FloatGraph)
    return trained


def clustered(weight: np.ndarray, bits: int, start: str = "linear", seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of the weight's shape into at most 2^bits values [K] float32; zeros keep one of them."""
    kept = weight != 0
    zeros = not kept.all()
    centroids = kmeans(weight[kept], (1 << bits) - zeros, start, seed) if kept.any() else np.zeros(0)
    values = np.concatenate([[0.0] * zeros, centroids]).astype(np.float32)
    index = np.zeros(weight.shape, np.int64)
    if kept.any():
        index[kept] = nearest(weight[kept], centroids) + zeros
    return torch.from_numpy(index), torch.from_numpy(values)


def _bits(graph: Graph, options: Share) -> dict[str, int]:
    """The bits of each layer with weights."""
    plain = {"conv2d": options.conv, "dense": options.dense}
    bits = {op.name: plain[op.kind] for op in graph.ops if op.kind in plain}
    for pattern, wanted in options.layers.items():
        matching = [name for name in bits if fnmatchcase(name, pattern)]
        if not matching:
            raise OptionError(f"no layer matches {pattern!r}; there are {', '.join(bits)}")
        bits.update(dict.fromkeys(matching, wanted))
    return bits
