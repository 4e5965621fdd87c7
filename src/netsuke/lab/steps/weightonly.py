"""Weight-only quantisation: integers in the file, floats in the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import nn

from netsuke.data import Dataset
from netsuke.errors import OptionError
from netsuke.graph import OPS, Graph, Op
from netsuke.lab.integers import rounded, shares, steps
from netsuke.lab.lower import lower
from netsuke.lab.storedgraph import StoredGraph
from netsuke.settings import unknown

LAYERS = ("conv2d", "dense")
FLOAT = 32  # the width of a layer that stays as it is


@dataclass(frozen=True)
class WeightOnly:
    """`bits` of every weight, 2 to 8, and of single layers by patterns of their names: 32 leaves one in float.

    The last pattern that matches counts. With `clip` each channel's scale minimises the squared error of its
    weights; without, its largest weight is the last level.
    """

    bits: int = 8
    layers: dict[str, int] = field(default_factory=dict)
    clip: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise OptionError(f"bits must be 2 to 8; got {self.bits}")
        for pattern, width in self.layers.items():
            if not (2 <= width <= 8 or width == FLOAT):
                raise OptionError(
                    f"layers: {pattern!r} takes 2 to 8 bits, or 32 to stay in float; got {width}"
                )


def weight_only(
    model: nn.Module, data: Dataset, options: WeightOnly | None = None, *, teacher: Any = None, work: Any = None,
    history: Any = None, progress: Any = None, **changes: Any,
) -> StoredGraph:  # fmt: skip
    """Round the weights of convolutions and dense layers to integers, one scale an output channel.

    The arithmetic stays in float, so accuracy falls only by what the weights lose, and no calibration is needed;
    the file shrinks, the answer is no faster. `model` is untouched, weights that are 0 stay 0, and the result no
    longer trains. What other steps take beside the options changes nothing here.
    Raises OptionError for an option out of range, a layer that is not there, a model without float layers.
    """
    return stored(model, data, "w", replace(options or WeightOnly(), **changes))


def stored(model: nn.Module, data: Dataset, letter: str, options: WeightOnly) -> StoredGraph:
    """The model with integer weights, `letter` before the kind of each layer: "w", or "d" for dynamic."""
    graph, tensors = lower(model, data.image_shape)
    names = [op.name for op in graph.ops if op.kind in LAYERS]
    if not names:
        done = any(op.kind[1:] in LAYERS for op in graph.ops)
        raise OptionError(f"the model has no float layer {'left ' if done else ''}to quantise")
    widths = widths_of(names, options.bits, options.layers)
    ops: list[Op] = []
    found: dict[str, np.ndarray] = {}
    for op in graph.ops:
        arrays = {role: tensors[op.tensor(role)] for role in OPS[op.kind].roles}
        width = widths.get(op.name, FLOAT)
        if width < FLOAT:
            arrays["weight"], arrays["scale"] = quantized_weight(arrays["weight"], width, clip=options.clip)
            op = Op(letter + op.kind, op.name, op.inputs, {**op.attrs, "bits": width})
        found |= {op.tensor(role): array for role, array in arrays.items()}
        ops.append(op)
    return StoredGraph(Graph(graph.input_shape, tuple(ops)), found)


def widths_of(names: Sequence[str], bits: int, layers: Mapping[str, int]) -> dict[str, int]:
    """Each layer's width: that of the last pattern in `layers` that matches its name, else `bits`.

    Raises OptionError, with the nearest name, for a pattern that matches none.
    """
    widths = dict.fromkeys(names, bits)
    for pattern, width in layers.items():
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise OptionError(unknown(pattern, names, "layer"))
        widths |= dict.fromkeys(matched, width)
    return widths


@torch.no_grad()
def quantized_weight(weight: np.ndarray, bits: int, *, clip: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Integers int8 of `bits` and their scale float32, one a channel [O], for float weights [O, ...]."""
    real = torch.from_numpy(weight)
    share = shares(real, bits, len(real), True) if clip else real.new_ones(len(real))
    scale = steps(real, bits, share)
    return rounded(real, bits, share).numpy().astype(np.int8), scale.numpy()
