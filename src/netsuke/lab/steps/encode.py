"""Entropy coding as a step: how the file of the finished network stores its weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from netsuke.coding import check
from netsuke.data import Dataset

__all__ = ["Encode", "encode"]


@dataclass(frozen=True)
class Encode:
    """Options: `method` is "huffman", "range", or "auto" for the smallest with its decoder, which may be neither."""

    method: str = "auto"

    def __post_init__(self) -> None:
        check(self.method)


def encode(
    model: nn.Module, data: Dataset, options: Encode | None = None, *, teacher: Any = None, work: Any = None,
    history: Any = None, progress: Any = None, **changes: Any,
) -> nn.Module:  # fmt: skip
    """A copy of `model` whose artifact `carve` marks for entropy coding; its weights and logits are the same.

    It must be the last step: others give a new model, without the mark. What other steps take beside the options
    changes nothing here. Raises OptionError for an unknown method.
    """
    chosen = replace(options or Encode(), **changes)
    result = copy.deepcopy(model)
    result.coding = chosen.method  # type: ignore[assignment]
    return result
