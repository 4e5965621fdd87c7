"""The constant arrays of NAME.c: the order in which the code reads them, and what they take.

Four outputs at a time: for each input the four weights side by side, so that one read of the input serves four sums.
Outputs that are left over follow one after another. Weights below 8 bits are codes from 0 up, packed without gaps.
"""

from __future__ import annotations

import numpy as np

from netsuke import packing
from netsuke.export.c.kernels import BLOCKED
from netsuke.graph import Op, Tensors

MOST = 500_000  # inputs of one sum whose codes, which are not negative, provably stay in int32
DEEP = (8, 4)  # bits of depthwise weights with a kernel for four channels


def blocked(bits: int, outputs: int, inputs: int, groups: int = 1) -> bool:
    """Whether a layer's weights are read four outputs at a time: where every such block begins on a byte."""
    whole = groups == 1 or outputs * inputs * bits % 8 == 0
    return bits in BLOCKED and outputs >= 4 and inputs < MOST and whole and (bits > 1 or inputs % 2 == 0)


def arranged(weight: np.ndarray, bits: int, *, groups: int = 1, depth: bool = False) -> np.ndarray:
    """Weights [outputs, inputs] in the order of reading; `depth` for channels side by side and their taps."""
    outputs, inputs = weight.shape
    if depth:
        return _blocks(weight, 1) if bits in DEEP else weight.reshape(-1)
    if not blocked(bits, outputs // groups, inputs, groups):
        return weight.reshape(-1)
    parts = weight.reshape(groups, outputs // groups, inputs)
    return np.concatenate([_blocks(part, 2 if bits == 8 else 1) for part in parts])


def _blocks(weight: np.ndarray, side: int) -> np.ndarray:
    """Blocks of four outputs, input by input; with `side` 2 two inputs and two outputs together."""
    outputs, inputs = weight.shape
    whole, even = outputs // 4 * 4, inputs // side * side
    if not whole:
        return weight.reshape(-1)
    blocks = weight[:whole].reshape(-1, 4, inputs)
    pairs = blocks[:, :, :even].reshape(
        len(blocks), 2, 2, even // side, side
    )  # block, pair, output, step, input
    pairs = pairs.transpose(0, 3, 1, 4, 2) if side == 2 else pairs.transpose(0, 3, 4, 1, 2)
    rest = blocks[:, :, even:].transpose(0, 2, 1)
    body = np.concatenate([pairs.reshape(len(blocks), -1), rest.reshape(len(blocks), -1)], 1)
    return np.concatenate([body.reshape(-1), weight[whole:].reshape(-1)])


def codes(weight: np.ndarray, bits: int) -> np.ndarray:
    """Weights as they are stored: int8, or packed codes from 0 up."""
    if bits == 8:
        return weight.astype(np.int8)
    values = weight.astype(np.int16)
    return packing.pack_codes(
        (values > 0).astype(np.int16) if bits == 1 else values + (1 << (bits - 1)), bits
    )


def zero(bits: int) -> int:
    """What a code is too large by, for the kernels that take it as it is; for one bit, where a code counts twice, 1."""
    return 0 if bits == 8 else 1 << (bits - 1)


def stored(op: Op, tensors: Tensors, symbol: str, weight: np.ndarray | None) -> tuple[list[str], int]:
    """The definitions of an op's arrays, without those of weights that are None, and their bytes, as `packing.stored`
    counts them.
    """
    lines, size = [], 0
    for role in ("weight", "bias", "multiplier", "shift", "table"):
        tensor = tensors.get(op.tensor(role))
        if tensor is None or (role == "weight" and weight is None):
            continue
        if role == "weight" and weight is not None:
            array = codes(weight, op.attrs["bits"])
        elif role == "bias":
            array = packing.shortened(tensor)[0]
            size += packing.shortened(tensor)[1] > 0  # the zero bits left out, an operand of the code
        elif role == "shift" and uniform(tensor):
            size += packing.storage_dtype(tensor).itemsize  # an operand of the code, too
            continue
        else:
            array = tensor.astype(packing.storage_dtype(tensor))
        lines.append(
            f"static const {array.dtype.name}_t {symbol}_{role}[{array.size}] FLASH = {literal(array)};\n"
        )
        size += array.nbytes
    return lines, size


def uniform(array: np.ndarray) -> bool:
    return bool((array == array.flat[0]).all())


def ctype(array: np.ndarray) -> str:
    return f"{array.dtype.name}_t"


def literal(array: np.ndarray) -> str:
    """A C initialiser; lines of 20 values."""
    values = list(map(str, array.reshape(-1).tolist()))
    rows = (", ".join(values[i : i + 20]) for i in range(0, len(values), 20))
    return "{\n    " + ",\n    ".join(rows) + "\n}"
