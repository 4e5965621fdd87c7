"""Op and Type: the words of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

Tensors = Mapping[str, np.ndarray]

INPUT = "input"
MAX_OPS = 4096
MAX_ELEMENTS = 1 << 24  # of one activation: 224x224x64 is a fifth of it; a hostile file asks for more
INT32_MAX = 2**31 - 1
MAX_SHIFT = 30

# Element types of activations: the raw image, the two integer ranges of the contract, wide sums, floats.
RANGES = {"u8": (0, 255), "u7": (0, 127), "s8": (-127, 127)}


@dataclass(frozen=True)
class Type:
    """One activation without its batch axis: (C, H, W) or (F,); `lo..hi` bounds an integer one."""

    shape: tuple[int, ...]
    dtype: str  # "f32", "u8", "u7", "s8" or "i32"
    lo: int = 0
    hi: int = 0

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes that one element takes on a device."""
        return 4 if self.dtype in ("f32", "i32") else 1


def typed(shape: tuple[int, ...], dtype: str) -> Type:
    return Type(shape, dtype, *RANGES.get(dtype, (0, 0)))


@dataclass(frozen=True)
class Op:
    """One operation; its output carries the op's own name."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def tensor(self, role: str) -> str:
        """The name under which a weight of this op is stored."""
        return f"{self.name}.{role}"
