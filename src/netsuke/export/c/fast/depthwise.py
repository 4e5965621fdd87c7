"""Depthwise convolutions: a register holds blocks of 16 channels of one pixel, or of neighbours where there are few.

Four taps of each channel are brought side by side, so that one product of the vector unit sums four of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from netsuke.export.c.fast.layout import Map, up
from netsuke.export.c.fast.program import Program
from netsuke.export.c.fast.sums import channel_constants, requantized, spread, stored
from netsuke.export.c.fast.variants import BYTES, Variant
from netsuke.graph import Op, Tensors


@dataclass(frozen=True)
class Part:
    """`blocks` blocks of channels from number `first` on, of `pixels` neighbours in a row at once."""

    first: int
    blocks: int
    pixels: int


def parts(variant: Variant, blocks: int) -> list[Part]:
    """Whole registers of one pixel; what is left over, of as many pixels as fit."""
    whole, rest = divmod(blocks, variant.blocks)
    found = [Part(i * variant.blocks, variant.blocks, 1) for i in range(whole)]
    if rest:
        found.append(Part(whole * variant.blocks, rest, variant.blocks // rest))
    return found


def depthwise(program: Program, op: Op, x: Map, y: Map, tensors: Tensors) -> None:
    """A convolution in which every channel has a filter of its own."""
    variant, weight = program.variant, tensors[op.tensor("weight")]
    offset = variant.offset if x.signed else 0
    constants = channel_constants(op, tensors, weight.reshape(len(weight), -1), offset)
    top, left, *_ = op.attrs["padding"]
    for part in parts(variant, up(len(weight), BYTES) // BYTES):
        channels = _channels(variant, part, len(weight))
        w = program.constant(_arranged(weight, channels))
        q = program.constant(spread(constants, channels))
        name = program.function(
            "depthwise", "const int8_t *x0, int8_t *y0, const int8_t *w, const int32_t *q",
            _body(variant, op, part, x, y, weight.shape[2:]),
        )  # fmt: skip
        places = f"{x.at(-top, -left)} + {part.first * BYTES}, {y.at()} + {part.first * BYTES}"
        program.call(f"{name}({places}, {w}, (const int32_t *)(const void *)({q}));", late=False)


def _channels(variant: Variant, part: Part, count: int) -> np.ndarray:
    """The channel of every lane of the four registers of sums that `zip` gives: [4, lanes], -1 for none."""
    byte = np.arange(variant.chunk).reshape(variant.blocks, 4, 4).transpose(1, 0, 2).reshape(4, -1)
    block, within = byte // BYTES, byte % BYTES
    channel = (part.first + block % part.blocks) * BYTES + within
    used = (block < part.blocks * part.pixels) & (channel < count)
    return np.where(used, channel, -1)


def _arranged(weight: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """int8 [groups of four taps, 4, lanes, 4]."""
    flat = weight.reshape(len(weight), -1)
    taps = np.pad(flat, ((0, 1), (0, up(flat.shape[1], 4) - flat.shape[1])))
    return taps[channels].reshape(*channels.shape, -1, 4).transpose(2, 0, 1, 3)


def _body(variant: Variant, op: Op, part: Part, x: Map, y: Map, kernel: tuple[int, ...]) -> list[str]:
    sy, sx = op.attrs["stride"]
    high, wide = y.shape[1:]
    taps = [r * x.row + c * x.step for r in range(kernel[0]) for c in range(kernel[1])]
    times, rest = divmod(wide, part.pixels)
    lines = [f"for (long i = 0; i < {high}; i++) {{", f"const int8_t *x = x0 + i * {sy * x.row};",
             f"int8_t *y = y0 + i * {y.row};"]  # fmt: skip
    low = -127 if op.attrs["signed"] else 0
    if times:
        lines += [f"for (long k = 0; k < {times}; k++) {{",
                  *_pixels(variant, part, x, y, taps, sx, part.pixels, low),
                  f"x += {part.pixels * sx * x.step};", f"y += {part.pixels * y.step};", "}"]  # fmt: skip
    if rest:
        lines += ["{", *_pixels(variant, part, x, y, taps, sx, rest, low), "}"]
    return [*lines, "}"]


def _pixels(
    variant: Variant, part: Part, x: Map, y: Map, taps: list[int], sx: int, pixels: int, low: int
) -> list[str]:
    """The first `pixels` of the neighbours in a register."""
    name = "dot_signed" if x.signed else "dot"
    lines = [f"sums a{k} = load_sums(q + {4 * k * variant.lanes});" for k in range(4)]
    for group in range(ceil(len(taps) / 4)):
        some = [_load(part, x, tap, sx) for tap in taps[4 * group : 4 * group + 4]]
        some += ["none()"] * (4 - len(some))
        lines += ["{ bytes z[4];", f"zip({', '.join(some)}, z);"]
        lines += [f"a{k} = {name}(a{k}, z[{k}], load(w + {(4 * group + k) * variant.chunk}));" for k in range(4)]
        lines.append("}")
    lines += [f"a{k} = {requantized(variant, f'a{k}', k)};" for k in range(4)]
    places = [p * y.step + BYTES * b for p in range(pixels) for b in range(part.blocks)]
    lines += stored(variant, [f"a{k}" for k in range(4)], places[: variant.blocks], low, "pack")
    return lines


def _load(part: Part, x: Map, tap: int, sx: int) -> str:
    """The register at one tap: in one piece where the neighbours' blocks follow each other."""
    step = sx * x.step
    if part.pixels == 1 or step == part.blocks * BYTES:
        return f"load(x + {tap})"
    return f"{'gather' if part.blocks == 1 else 'gather_pairs'}(x + {tap}, {step})"
