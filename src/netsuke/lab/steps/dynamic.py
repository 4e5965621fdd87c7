"""Dynamic quantisation: integer weights, and activations rounded as they come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from netsuke.data import Dataset
from netsuke.lab.steps.weightonly import WeightOnly, stored
from netsuke.lab.storedgraph import StoredGraph


@dataclass(frozen=True)
class Dynamic(WeightOnly):
    """As of `WeightOnly`: the weights' `bits`, `layers` by pattern, `clip`. Activations take 8 bits."""


def dynamic(
    model: nn.Module, data: Dataset, options: Dynamic | None = None, *, teacher: Any = None, work: Any = None,
    history: Any = None, progress: Any = None, **changes: Any,
) -> StoredGraph:  # fmt: skip
    """Integer weights, and each layer's input rounded at run time to -127..127 by the peak of its own image.

    Products and sums are integers, the rest is float. No calibration is needed, and an image's answer does not
    depend on those beside it. `model` is untouched; the result no longer trains. What other steps take beside
    the options changes nothing here.
    Raises OptionError for an option out of range, a layer that is not there, a model without float layers.
    """
    return stored(model, data, "d", replace(options or Dynamic(), **changes))
