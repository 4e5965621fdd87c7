"""How integer weights are stored: the widths that files, emitted C and `size_bytes` all share.

A weight of b bits takes b bits, row after row without padding; a bias or multiplier takes the narrowest of
1, 2 or 4 bytes that holds its whole tensor; shifts that agree across a layer are one byte. Biases that are all
multiples of 2^k are stored without their k zero bits, and a byte for k, where that is smaller. Float weights that
share at most 256 values are stored as a codebook and indices into it, where that is smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from netsuke.errors import ArtifactError
from netsuke.graph import Graph, Tensors

MAX_SHARED = 256  # values of a codebook: an index fits a byte


def pack(weights: np.ndarray, bits: int) -> np.ndarray:
    """Integers of `bits` bits to bytes: two's complement, least significant bit first, no gap between values.

    One bit means -1 (0) or +1 (1). Returns uint8 [ceil(size * bits / 8)].
    """
    flat = weights.reshape(-1).astype(np.int16)
    return pack_codes((flat > 0) if bits == 1 else flat & ((1 << bits) - 1), bits)


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Integers from 0 to 2^bits - 1, in the layout of `pack`."""
    planes = (codes.reshape(-1, 1) >> np.arange(bits)) & 1
    return np.packbits(planes.astype(np.uint8).reshape(-1), bitorder="little")


def unpack(stream: np.ndarray, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `pack`, as int8 of `shape`. Raises ArtifactError where the stream has another length."""
    code = unpack_codes(stream, bits, int(np.prod(shape, dtype=np.int64)))
    value = code * 2 - 1 if bits == 1 else np.where(code >= 1 << (bits - 1), code - (1 << bits), code)
    return value.astype(np.int8).reshape(shape)


def unpack_codes(stream: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack_codes`, as int16 [count]."""
    if stream.dtype != np.uint8 or stream.shape != ((count * bits + 7) // 8,):
        raise ArtifactError(
            f"{count} weights of {bits} bits take {(count * bits + 7) // 8} bytes, not {stream.size}"
        )
    planes = (
        np.unpackbits(stream, bitorder="little", count=count * bits).reshape(count, bits).astype(np.int16)
    )
    return (planes << np.arange(bits, dtype=np.int16)).sum(1, dtype=np.int16)


def storage_dtype(array: np.ndarray) -> np.dtype:
    """The narrowest integer type that holds every value: unsigned where none is negative."""
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    names = ("int8", "int16", "int32") if low < 0 else ("uint8", "uint16", "uint32")
    return next(np.dtype(n) for n in names if np.iinfo(n).min <= low and high <= np.iinfo(n).max)


def shortened(bias: np.ndarray) -> tuple[np.ndarray, int]:
    """A bias as it is stored: integers of the narrowest type, and k, so that bias = integers * 2^k.

    k is the number of zero bits that all values end in, or 0 where leaving them out saves less than the byte of k.
    """
    bias = bias.astype(np.int64)
    ends = int(np.bitwise_or.reduce(bias, axis=None)) if bias.size else 0
    exponent = (ends & -ends).bit_length() - 1 if ends else 0
    plain, short = (v.astype(storage_dtype(v)) for v in (bias, bias >> exponent))
    return (short, exponent) if short.nbytes + 1 < plain.nbytes else (plain, 0)


@dataclass(frozen=True)
class Codebook:
    """Weights that share values: `values` [K] ascending, `index` int64 of the weights' shape, bits of an index."""

    values: np.ndarray
    index: np.ndarray

    @property
    def bits(self) -> int:
        return index_bits(len(self.values))

    @property
    def weights(self) -> np.ndarray:
        return self.values[self.index]


def index_bits(count: int) -> int:
    """The width of an index into `count` values; one bit at least, so that the bytes bound the indices."""
    return max(1, (count - 1).bit_length())


def codebook(weights: np.ndarray) -> Codebook | None:
    """The codebook of a float32 tensor, or None where it has more than 256 values or would not get smaller.

    Values are told apart by their bits, so that -0.0 and 0.0 both come back.
    """
    flat = np.ascontiguousarray(weights).reshape(-1).view(np.int32)
    if not flat.size or len(np.unique(flat[:2048])) > MAX_SHARED:  # most tensors are done here
        return None
    patterns, index = np.unique(flat, return_inverse=True)
    if len(patterns) > MAX_SHARED:
        return None
    values = patterns.view(np.float32)
    order = np.argsort(values, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    book = Codebook(values[order], rank[index.reshape(weights.shape)])
    return book if (flat.size * book.bits + 7) // 8 + values.nbytes < weights.nbytes else None


@dataclass(frozen=True)
class Stored:
    """One tensor as a device stores it: `count` values of `bits` bits, and what it needs to read them."""

    tensor: str
    count: int
    bits: int
    table_bytes: int = 0  # a codebook, or the exponent of a bias

    @property
    def size_bytes(self) -> int:
        return (self.count * self.bits + 7) // 8 + self.table_bytes


def stored(graph: Graph, tensors: Tensors) -> list[Stored]:
    """Everything a device must store to run the model, tensor by tensor, in the order of the graph."""
    rows = []
    attrs: Mapping[str, Mapping] = {op.name: op.attrs for op in graph.ops}
    for name, (op, role) in graph.roles().items():
        array = tensors[name]
        count, table = array.size, 0
        if array.dtype == np.float32:
            book = codebook(array) if role == "weight" else None
            bits, table = (book.bits, book.values.nbytes) if book else (32, 0)
        elif role == "weight":
            bits = attrs[op]["bits"]
        elif role == "bias":
            short, exponent = shortened(array)
            bits, table = 8 * short.itemsize, int(exponent > 0)
        else:
            bits = 8 * storage_dtype(array).itemsize
            if role == "shift" and array.size and (array == array.flat[0]).all():
                count = 1
        rows.append(Stored(name, count, bits, table))
    return rows


def size_bytes(graph: Graph, tensors: Tensors) -> int:
    """Bytes of packed weights, biases, multipliers, shifts, codebooks and tables; the sum of `stored`."""
    return sum(row.size_bytes for row in stored(graph, tensors))
