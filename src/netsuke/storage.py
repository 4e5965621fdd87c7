"""Tensors as a file holds them: packed into bits, in narrow types, and back. `docs/artifact.md` specifies it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from netsuke import packing
from netsuke.errors import ArtifactError
from netsuke.graph import INT32_MAX, INTEGER, OPS, Graph

Arrays = Mapping[str, np.ndarray]
EXPONENT = ".exponent"  # after the name of a bias: the zero bits that its values are stored without


def is_shape(value: object) -> bool:
    """A list of at most 8 sizes; each fits an int64 product check without ever being a huge number itself."""
    return (
        isinstance(value, list)
        and len(value) <= 8
        and all(type(v) is int and 0 <= v < 1 << 48 for v in value)
    )


def encode(graph: Graph, tensors: Arrays) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Tensors as the file stores them, and the shapes of those that are packed into bits."""
    stored, packed = {}, {}
    for name, bits in _widths(graph).items():
        array = tensors[name]
        if bits is not None and bits < 8:
            packed[name] = list(array.shape)
            array = packing.pack(array, bits)
        elif bits == 32:
            exponent = 0
            if name.endswith(".bias"):
                array, exponent = packing.shortened(array)
            if exponent:
                stored[name + EXPONENT] = np.array([exponent], np.uint8)
            array = array.astype(packing.storage_dtype(array))
        stored[name] = np.ascontiguousarray(array)
    return stored, packed


def decode(graph: Graph, stored: Arrays, packed: object, *, exponents: bool = True) -> dict[str, np.ndarray]:
    """The inverse of `encode`: float32, int8 and int32 arrays of their own.

    Raises ArtifactError on anything but what `encode` gives; no array is larger than what is stored allows.
    """
    widths = _widths(graph)
    optional = {f"{name}{EXPONENT}" for name, bits in widths.items() if bits == 32 and name.endswith(".bias")}
    for wrong, text in (
        (set(widths) - set(stored), "is missing"),
        (set(stored) - set(widths) - (optional if exponents else set()), "belongs to no op"),
    ):
        if wrong:
            raise ArtifactError(f"the tensor {min(wrong)!r} {text}")
    narrow = {name for name, bits in widths.items() if isinstance(bits, int) and 1 <= bits < 8}
    if not isinstance(packed, dict) or set(packed) != narrow:
        raise ArtifactError("packed must name the weights of fewer than 8 bits, and no others")
    tensors = {}
    for name, bits in widths.items():
        array = stored[name]
        if name in narrow:
            shape = packed[name]
            # A weight takes a bit at least: the stream bounds the shape before anything is unpacked.
            if not is_shape(shape) or prod(shape) > 8 * array.size:
                raise ArtifactError(f"packed gives {name!r} a shape that its {array.size} bytes cannot hold")
            tensors[name] = packing.unpack(array, bits, tuple(shape))  # type: ignore[arg-type]
        elif bits == 32:
            tensors[name] = _whole(name, array, stored.get(name + EXPONENT))
        else:  # `Graph.types` checks the type itself
            tensors[name] = array.astype(array.dtype.newbyteorder("="))
    return tensors


def _whole(name: str, array: np.ndarray, exponent: np.ndarray | None) -> np.ndarray:
    """Stored integers as int32, times 2^exponent where there is one."""
    shift = 0
    if exponent is not None:
        if exponent.dtype != np.uint8 or exponent.shape != (1,) or not 1 <= exponent[0] <= 30:
            raise ArtifactError(f"the tensor {name + EXPONENT!r} must hold one byte from 1 to 30")
        shift = int(exponent[0])
    if array.dtype.kind in "iu":
        wide = array.astype(np.int64) << shift
        if not wide.size or (wide.min() >= -INT32_MAX - 1 and wide.max() <= INT32_MAX):
            return wide.astype(np.int32)
    raise ArtifactError(f"the tensor {name!r} must hold int32 values")


def _widths(graph: Graph) -> dict[str, int | None]:
    """Every tensor to its width: 1..8 bits for an integer weight, 32 for other integers, None for float."""
    widths: dict[str, int | None] = {}
    for op in graph.ops:
        for role in OPS[op.kind].roles:
            if role == "weight" and "bits" in op.attrs:  # float ops too may have integer weights
                widths[op.tensor(role)] = op.attrs["bits"]
            else:
                widths[op.tensor(role)] = 32 if op.kind in INTEGER else None
    return widths
