"""From sums back to activations, for any kernel: the constants of each channel, and the code that stores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsuke.export.c.fast.variants import BYTES, Variant
from netsuke.graph import Op, Tensors


def channel_constants(op: Op, tensors: Tensors, flat: np.ndarray, offset: int) -> np.ndarray:
    """int32 [rows, channels]: the bias, less what signed activations are moved by; then multiplier, rounding, shift."""
    bias = tensors[op.tensor("bias")].astype(np.int64) - offset * flat.sum(1, dtype=np.int64)
    rows = [((bias + 2**31) % 2**32 - 2**31).astype(np.int32)]  # sums wrap around and come back
    if op.kind != "qlogits":
        shift = tensors[op.tensor("shift")].astype(np.int64)
        rows += [tensors[op.tensor("multiplier")], (np.int64(1) << shift) >> 1, shift]
    return np.stack([row.astype(np.int32) for row in rows])


def spread(constants: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """Constants [rows, C] for registers of channels [registers, lanes], -1 for none: [registers, rows, lanes]."""
    padded = np.concatenate([constants, np.zeros((len(constants), 1), np.int32)], 1)
    return padded[:, channels].transpose(1, 0, 2)


def uniform(op: Op, tensors: Tensors) -> bool:
    """Whether all channels shift alike, as most layers do: then rounding and shift stay in a register each."""
    shift = tensors.get(op.tensor("shift"))
    return shift is not None and bool((shift == shift[0]).all())


def preface(variant: Variant, alike: bool) -> list[str]:
    """C before the loops: what `requantized` needs where channels shift alike."""
    if not alike:
        return []
    names = (("rounding", 2), ("shifts", 3))
    return [f"const sums {name} = splat(q[{row * variant.lanes}]);" for name, row in names]


def requantized(variant: Variant, value: str, register: int, alike: bool) -> str:
    """C for one register of sums at the next scale; `q` points at the constants of the first."""
    at = [f"load_sums(q + {(4 * register + row) * variant.lanes})" for row in (1, 2, 3)]
    if alike:
        at[1:] = ["rounding", "shifts"]
    return f"shift(add(mul({value}, {at[0]}), {at[1]}), {at[2]})"


def stored(variant: Variant, values: Sequence[str], places: Sequence[int], low: int, pack: str) -> list[str]:
    """C that packs registers of sums, four by four, and writes each block of 16 bytes to its place beside `y`."""
    lines = []
    for start in range(0, len(values), 4):
        group = list(values[start : start + 4])
        blocks = places[start // variant.per_block : (start + len(group)) // variant.per_block]
        group += [group[-1]] * (4 - len(group))
        lines.append(f"{{ const bytes v = larger_bytes({pack}({', '.join(group)}), splat_byte({low}));")
        lines += written(variant, "v", blocks)
        lines.append("}")
    return lines


def written(variant: Variant, value: str, places: Sequence[int]) -> list[str]:
    """C that writes the first blocks of a register to these places beside `y`."""
    whole = [places[0] + BYTES * i for i in range(variant.blocks)] if places else []
    if list(places) == whole:
        return [f"store(y + {places[0]}, {value});"]
    return [f"store_lane(y + {place}, {value}, {lane});" for lane, place in enumerate(places)]
