"""Tensors as a file holds them: packed into bits, in narrow types, entropy coded, and back.

`docs/artifact.md` specifies it. `packing` says what a device stores uncoded, `coding` has the coders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from netsuke import coding, packing
from netsuke.errors import ArtifactError
from netsuke.graph import INT32_MAX, INTEGER, OPS, Graph

Arrays = Mapping[str, np.ndarray]
CODEBOOK = ".codebook"  # after the name of a weight: the values that its indices point at
EXPONENT = ".exponent"  # after the name of a bias: the zero bits that its values are stored without
CODED = "coded."  # before the number of a unit: its stream


def is_shape(value: object) -> bool:
    """A list of at most 8 sizes; each fits an int64 product check without ever being a huge number itself."""
    return (
        isinstance(value, list)
        and len(value) <= 8
        and all(type(v) is int and 0 <= v < 1 << 48 for v in value)
    )


@dataclass(frozen=True)
class Form:
    """One tensor on its way to the file: as it is stored uncoded, what stands beside it, and what could be coded."""

    stored: np.ndarray
    packed: bool = False
    beside: dict[str, np.ndarray] = field(default_factory=dict)
    integers: np.ndarray | None = None
    kind: str = ""  # tensors of one kind may share a code


@dataclass(frozen=True)
class Encoded:
    """What a device stores of an artifact with entropy coding, in bytes."""

    units: tuple[coding.Unit, ...]
    plain_bytes: int  # of everything that is not coded, codebooks and exponents among it
    stream_bytes: int
    decoder_bytes: int

    @property
    def size_bytes(self) -> int:
        return self.plain_bytes + self.stream_bytes + self.decoder_bytes


def encoded(graph: Graph, tensors: Arrays, method: str) -> Encoded:
    """The sizes after `encode` by that method. Raises OptionError for an unknown one."""
    result = _coded(graph, tensors, _forms(graph, tensors), method)
    rows = packing.stored(graph, tensors)
    plain = sum(row.table_bytes if row.tensor in result.tensors else row.size_bytes for row in rows)
    return Encoded(result.units, plain, result.stream_bytes, result.decoder_bytes)


def encode(graph: Graph, tensors: Arrays, method: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors as the file stores them, and what its manifest says of them: shapes in `packed`, units in `coded`."""
    forms = _forms(graph, tensors)
    result = _coded(graph, tensors, forms, method)
    arrays: dict[str, np.ndarray] = {}
    packed: dict[str, list[int]] = {}
    for name, form in forms.items():
        arrays |= {name + ending: array for ending, array in form.beside.items()}
        if name not in result.tensors:
            arrays[name] = np.ascontiguousarray(form.stored)
        if form.packed or name in result.tensors:
            packed[name] = list(tensors[name].shape)
    if not result.units:
        return arrays, {"packed": packed}
    for number, unit in enumerate(result.units):
        arrays[f"{CODED}{number}"] = np.frombuffer(unit.stream, np.uint8)
    units = [{"method": u.method, "tensors": list(u.tensors), "signed": u.signed} for u in result.units]
    return arrays, {"packed": packed, "coded": units}


def _forms(graph: Graph, tensors: Arrays) -> dict[str, Form]:
    return {name: _form(tensors[name], kind) for name, kind in _kinds(graph).items()}


def _form(array: np.ndarray, kind: int | str) -> Form:
    if isinstance(kind, int):
        packed = 1 <= kind < 8
        stored = packing.pack(array, kind) if packed else array
        return Form(stored, packed, {}, array, f"weights of {kind} bits")
    book = packing.codebook(array) if kind == "float weight" else None
    if book:
        stored = packing.pack_codes(book.index, book.bits)
        integers = _around_zero(book.index, book.values)
        return Form(stored, True, {CODEBOOK: book.values}, integers, f"indices of {book.bits} bits")
    if kind in ("float", "float weight"):
        return Form(array)
    short, exponent = packing.shortened(array) if kind == "bias" else (array, 0)
    short = short.astype(packing.storage_dtype(short))
    return Form(
        short, False, {EXPONENT: np.array([exponent], np.uint8)} if exponent else {}, short, str(kind)
    )


def _around_zero(index: np.ndarray, values: np.ndarray, back: bool = False) -> np.ndarray:
    """Indices counted from the value 0, as int8 would wrap them: small for small weights; or `back`."""
    zero = int(np.searchsorted(values, 0))
    wide = index.astype(np.int64)
    return (wide + zero) & 255 if back else ((wide - zero + 128) & 255) - 128


def _coded(graph: Graph, tensors: Arrays, forms: Mapping[str, Form], method: str) -> coding.Coded:
    plain = {row.tensor: row.size_bytes - row.table_bytes for row in packing.stored(graph, tensors)}
    sources = [
        coding.Source(name, form.integers.reshape(-1).astype(np.int64), plain[name], form.kind)
        for name, form in forms.items()
        if form.integers is not None
    ]
    return coding.encode(sources, method)


# --- reading ------------------------------------------------------------------------------------------


def decode(graph: Graph, stored: Arrays, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `encode`: float32, int8 and int32 arrays of their own.

    Raises ArtifactError on anything but what `encode` gives; no array is larger than what is stored allows.
    """
    kinds, packed, schema = _kinds(graph), manifest["packed"], manifest["schema"]
    units = _units(manifest.get("coded"), stored, kinds) if schema > 1 else ()
    streams = {f"{CODED}{number}" for number in range(len(units))}
    coded = {name for unit in units for name in unit.tensors}
    beside = {name + CODEBOOK for name, kind in kinds.items() if kind == "float weight"}
    beside |= {name + EXPONENT for name, kind in kinds.items() if kind == "bias"}
    beside = beside & set(stored) if schema > 1 else set()
    for wrong, text in (
        (set(kinds) - coded - set(stored), "is missing"),
        (set(stored) - (set(kinds) - coded) - streams - beside, "belongs to no op"),
    ):
        if wrong:
            raise ArtifactError(f"the tensor {min(wrong)!r} {text}")
    shared = {name for name in kinds if name + CODEBOOK in beside}
    narrow = {name for name, kind in kinds.items() if isinstance(kind, int) and 1 <= kind < 8} | shared
    if not isinstance(packed, dict) or set(packed) != narrow | coded:
        raise ArtifactError(
            "packed must name the weights of fewer than 8 bits, those with a codebook and what is coded, and no others"
        )
    for name, shape in packed.items():
        # A weight takes a bit at least: the stream bounds the shape before anything is unpacked.
        if not is_shape(shape) or (name not in coded and prod(shape) > 8 * stored[name].size):
            raise ArtifactError(f"packed gives {name!r} a shape that its bytes cannot hold")
    integers = coding.decode(units, {name: prod(packed[name]) for name in coded})
    return {
        name: _tensor(name, kind, stored, integers.get(name), packed.get(name))
        for name, kind in kinds.items()
    }


def _units(value: object, stored: Arrays, kinds: Mapping[str, int | str]) -> tuple[coding.Unit, ...]:
    """The coded units of a manifest, each with its stream."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ArtifactError("coded must be a list of units")
    units: list[coding.Unit] = []
    seen: set[str] = set()
    for number, row in enumerate(value):
        if not isinstance(row, dict) or set(row) != {"method", "tensors", "signed"}:
            raise ArtifactError(f"the coded unit {number} must have method, tensors and signed")
        method, names, signed = row["method"], row["tensors"], row["signed"]
        if not isinstance(method, str) or method not in coding.DECODER_BYTES or not isinstance(signed, bool):
            raise ArtifactError(f"the coded unit {number} is by no method that netsuke knows")
        fits = isinstance(names, list) and all(isinstance(name, str) and name in kinds for name in names)
        if not fits or not names or len(set(names)) != len(names) or seen & set(names):
            raise ArtifactError(f"the coded unit {number} must name tensors of the graph, each once")
        stream = stored.get(f"{CODED}{number}")
        if stream is None or stream.dtype != np.uint8:
            raise ArtifactError(f"the coded unit {number} has no stream of bytes")
        seen |= set(names)
        units.append(coding.Unit(method, tuple(names), stream.tobytes(), signed))
    return tuple(units)


def _tensor(
    name: str, kind: int | str, stored: Arrays, integers: np.ndarray | None, shape: list[int] | None
) -> np.ndarray:
    """One tensor as it is in memory, from its integers if it was coded."""
    book = stored.get(name + CODEBOOK) if kind == "float weight" else None
    if book is not None:
        assert shape is not None
        return _shared(name, stored.get(name), integers, book, tuple(shape))
    if kind in ("bias", "whole"):
        array = stored[name] if integers is None else integers.reshape(shape)
        return _whole(name, array, stored.get(name + EXPONENT) if kind == "bias" else None)
    if integers is not None:
        if not isinstance(kind, int) or (
            integers.size and not -128 <= integers.min() <= integers.max() <= 127
        ):
            raise ArtifactError(f"the tensor {name!r} is coded, but holds no integers of a byte")
        return integers.astype(np.int8).reshape(shape)
    if shape is not None and isinstance(kind, int):
        return packing.unpack(stored[name], kind, tuple(shape))
    return stored[name].astype(stored[name].dtype.newbyteorder("="))  # `Graph.types` checks the type itself


def _shared(
    name: str,
    stream: np.ndarray | None,
    integers: np.ndarray | None,
    values: np.ndarray,
    shape: tuple[int, ...],
) -> np.ndarray:
    """Weights out of a codebook and indices, packed or coded."""
    if values.dtype != np.float32 or values.ndim != 1 or not 1 <= len(values) <= packing.MAX_SHARED:
        raise ArtifactError(f"the tensor {name + CODEBOOK!r} must hold 1 to {packing.MAX_SHARED} floats")
    if integers is not None:
        index = _around_zero(integers, values, back=True)
    else:
        assert stream is not None
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
