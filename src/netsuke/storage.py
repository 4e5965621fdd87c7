"""Tensors as a file holds them: packed into bits, in narrow types, and back. `docs/artifact.md` specifies it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from netsuke import packing
from netsuke.errors import ArtifactError
from netsuke.graph import INT32_MAX, INTEGER, OPS, Graph

Arrays = Mapping[str, np.ndarray]
CODEBOOK = ".codebook"  # after the name of a weight: the values that its indices point at
EXPONENT = ".exponent"  # after the name of a bias: the zero bits that its values are


def is_shape(value: object) -> bool:
    """A list of at most 8 sizes; each fits an int64 product check without ever being a huge number itself."""
    return (
        isinstance(value, list)
        and len(value) <= 8
        and all(type(v) is int and 0 <= v < 1 << 48 for v in value)
    )


def encode(graph: Graph, tensors: Arrays) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Tensors as the file stores them, and the shapes of those that are packed into bits."""
    stored: dict[str, np.ndarray] = {}
    packed = {}
    for name, kind in _kinds(graph).items():
        array = tensors[name]
        book = packing.codebook(array) if kind == "float weight" else None
        if book:
            packed[name] = list(array.shape)
            stored[name + CODEBOOK] = book.values
            array = packing.pack_codes(book.index, book.bits)
        elif isinstance(kind, int) and kind < 8:
            packed[name] = list(array.shape)
            array = packing.pack(array, kind)
        elif kind == "bias":
            array, exponent = packing.shortened(array)
            if exponent:
                stored[name + EXPONENT] = np.array([exponent], np.uint8)
        elif kind == "whole":
            array = array.astype(packing.storage_dtype(array))
        stored[name] = np.ascontiguousarray(array)
    return stored, packed


def decode(graph: Graph, stored: Arrays, packed: object, *, schema: int) -> dict[str, np.ndarray]:
    """The inverse of `encode`: float32, int8 and int32 arrays of their own.

    Raises ArtifactError on anything but what `encode` gives; no array is larger than what is stored allows.
    """
    kinds = _kinds(graph)
    books = {name for name, kind in kinds.items() if kind == "float weight" and name + CODEBOOK in stored}
    shorts = {name for name, kind in kinds.items() if kind == "bias" and name + EXPONENT in stored}
    beside = {name + CODEBOOK for name in books} | {name + EXPONENT for name in shorts}
    for wrong, text in (
        (set(kinds) - set(stored), "is missing"),
        (set(stored) - set(kinds) - (beside if schema > 1 else set()), "belongs to no op"),
    ):
        if wrong:
            raise ArtifactError(f"the tensor {min(wrong)!r} {text}")
    narrow = {name for name, kind in kinds.items() if isinstance(kind, int) and 1 <= kind < 8}
    if not isinstance(packed, dict) or set(packed) != narrow | books:
        raise ArtifactError("packed must name the weights of fewer than 8 bits and those with a codebook")
    tensors = {}
    for name, kind in kinds.items():
        array = stored[name]
        if name in packed:
            shape = packed[name]
            # A weight takes a bit at least: the stream bounds the shape before anything is unpacked.
            if not is_shape(shape) or prod(shape) > 8 * array.size:
                raise ArtifactError(f"packed gives {name!r} a shape that its {array.size} bytes cannot hold")
            shape = tuple(shape)
        if name in books:
            tensors[name] = _shared(name, array, stored[name + CODEBOOK], shape)
        elif name in narrow:
            tensors[name] = packing.unpack(array, kind, shape)  # type: ignore[arg-type]
        elif kind in ("bias", "whole"):
            tensors[name] = _whole(name, array, stored.get(name + EXPONENT))
        else:  # `Graph.types` checks the type itself
            tensors[name] = array.astype(array.dtype.newbyteorder("="))
    return tensors


def _shared(name: str, stream: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Weights out of indices and a codebook."""
    if values.dtype != np.float32 or values.ndim != 1 or not 1 <= len(values) <= packing.MAX_SHARED:
        raise ArtifactError(f"the tensor {name + CODEBOOK!r} must hold 1 to {packing.MAX_SHARED} floats")
    index = packing.unpack_codes(stream, packing.index_bits(len(values)), prod(shape))
    if index.size and int(index.max()) >= len(values):
        raise ArtifactError(f"the tensor {name!r} points past its codebook of {len(values)} values")
    return values.astype(np.float32)[index].reshape(shape)


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


def _kinds(graph: Graph) -> dict[str, int | str]:
    """How every tensor is stored: the bits of an integer weight, or "bias", "whole", "float weight", "float"."""
    kinds: dict[str, int | str] = {}
    for op in graph.ops:
        bits = op.attrs.get("bits")
        for role in OPS[op.kind].roles:
            if role == "weight":
                kind: int | str = bits if isinstance(bits, int) else "float weight"
            elif op.kind in INTEGER:
                kind = "bias" if role == "bias" else "whole"
            else:
                kind = "float"
            kinds[op.tensor(role)] = kind
    return kinds
