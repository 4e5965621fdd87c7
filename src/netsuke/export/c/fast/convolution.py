"""Convolutions and dense layers: four inputs of each channel at a time, for a tile of pixels by registers of channels.

A function computes one block of output channels for all pixels. Its weights lie in the order in which the loops
meet them: kernel row, kernel column, group of four inputs, register. A dense layer is a convolution whose kernel is
the whole map, and whose pixels are the images of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from netsuke.export.c.fast.layout import Map, up
from netsuke.export.c.fast.program import Program
from netsuke.export.c.fast.sums import channel_constants, preface, spread, uniform
from netsuke.export.c.fast.tile import Tile, quadruples, window
from netsuke.export.c.fast.variants import BYTES, Variant
from netsuke.graph import Op, Tensors

WIDEST = 12  # pixels of a tile


@dataclass(frozen=True)
class Layer:
    """A convolution ready to be written: `pool` is the window of the max pool that it computes too."""

    op: Op
    x: Map
    y: Map
    weight: np.ndarray  # int8 [O, I, rows, columns]
    constants: np.ndarray
    alike: bool
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    pool: tuple[int, int] = (1, 1)
    images: int = 0  # bytes from image to image, where the pixels are images

    @property
    def wide(self) -> bool:
        return self.op.kind == "qlogits"


def convolution(
    program: Program, op: Op, x: Map, y: Map, tensors: Tensors, pool: tuple[int, int] = (1, 1)
) -> None:
    """A convolution of any groups, and the max pool that alone reads it."""
    weight, attrs = tensors[op.tensor("weight")], op.attrs
    offset = program.variant.offset if x.signed else 0
    top, left, *_ = attrs["padding"]
    constants = channel_constants(op, tensors, weight.reshape(len(weight), -1), offset)
    layer = Layer(
        op, x, y, weight, constants, uniform(op, tensors), tuple(attrs["stride"]), (top, left), pool
    )
    if attrs["groups"] == 1:
        _blocks(program, layer)
    else:
        _grouped(program, layer, attrs["groups"])


def dense(program: Program, op: Op, x: Map, y: Map, tensors: Tensors) -> None:
    """A dense layer of bytes, on a vector or on a map that was flattened."""
    matrix = tensors[op.tensor("weight")]
    offset = program.variant.offset if x.signed else 0
    weight = matrix.reshape(len(matrix), *x.shape)
    constants = channel_constants(op, tensors, matrix, offset)
    images = (
        program.layout.each if op.name in program.layout.late else 0
    )  # else a gate's, whose map waits for it
    _blocks(program, Layer(op, x, y, weight, constants, uniform(op, tensors), images=images))


def pixelwise(program: Program, op: Op, x: Map, y: Map, tensors: Tensors) -> None:
    """A dense layer of every pixel, its sums as they are: the pointwise convolution that gives a map of logits."""
    matrix = tensors[op.tensor("weight")]
    constants = channel_constants(op, tensors, matrix, program.variant.offset if x.signed else 0)
    _blocks(program, Layer(op, x, y, matrix[:, :, None, None], constants, uniform(op, tensors)))


def _blocks(program: Program, layer: Layer) -> None:
    """Blocks of as many registers of channels as give the best tiles."""
    variant = program.variant
    count = up(len(layer.weight), BYTES) // variant.lanes
    widest = min(count, _widest(variant, layer))
    number = ceil(count / widest)
    size = up(ceil(count / number), variant.per_block)
    quads = quadruples(layer.x, layer.weight)
    for first in range(0, count, size):
        registers = min(size, count - first)
        channels = np.arange(first * variant.lanes, (first + registers) * variant.lanes)
        _block(program, layer, layer.weight.shape[1], quads, channels, 0)


def _widest(variant: Variant, layer: Layer) -> int:
    """Registers of channels of a tile, at most: all windows of a pooled pixel must fit beside them."""
    area = layer.pool[0] * layer.pool[1]
    fits = [v for v in range(1, 7) if v * (area + 1) + 1 <= variant.registers and v % variant.per_block == 0]
    return max([v for v in fits if v <= 4 or variant.lanes == 16] or [variant.per_block])


def _grouped(program: Program, layer: Layer, groups: int) -> None:
    """16 outputs at a time, from those inputs that their groups have; weights of the others are zero."""
    out, depth, rows, columns = layer.weight.shape
    each = out // groups
    starts = range(0, out, BYTES)
    lows = [start // each * depth // 4 * 4 for start in starts]
    highs = [(min(start + BYTES, out) - 1) // each * depth + depth for start in starts]
    span = max(high - low for low, high in zip(lows, highs, strict=True))
    for start, low in zip(starts, lows, strict=True):
        channels = np.arange(start, start + BYTES)
        weight = np.zeros((out, span, rows, columns), np.int8)
        for o in range(start, min(start + BYTES, out)):
            place = o // each * depth - low
            weight[o, place : place + depth] = layer.weight[o]
        _block(program, layer, span, quadruples(layer.x, weight), channels, low)


def _block(
    program: Program, layer: Layer, inputs: int, quads: np.ndarray, channels: np.ndarray, low: int
) -> None:
    """One block of output channels, from `inputs` input channels, the first of them number `low`."""
    variant, x, y = program.variant, layer.x, layer.y
    known = np.where(channels < len(layer.weight), channels, -1)
    padded = np.concatenate([quads, np.zeros((len(quads), 1, 4), np.int8)], 1)
    w = program.constant(padded[:, known])
    q = program.constant(spread(layer.constants, known.reshape(-1, variant.lanes)))
    body = _body(variant, layer, inputs, len(channels) // variant.lanes)
    parameters = "const int8_t *x0, int8_t *y0, const int8_t *w, const int32_t *q"
    name = program.function(
        "dense" if layer.images else "conv", parameters + (", long count" if layer.images else ""), body
    )
    skip = int(channels[0]) * (4 if layer.wide else 1)
    top, left = layer.padding
    if layer.images:
        places = f"tails + {_origin(x)}, tails + {_origin(y) + skip}"
        program.call(
            f"{name}({places}, {w}, (const int32_t *)(const void *)({q}), count);", late=True, block=True
        )
        return
    places = f"{x.at(-top, -left)} + {low}, {y.at()} + {skip}"
    program.call(f"{name}({places}, {w}, (const int32_t *)(const void *)({q}));", late=False)


def _origin(x: Map) -> int:
    return x.offset + x.border[0] * x.row + x.border[1] * x.step


def _body(variant: Variant, layer: Layer, inputs: int, registers: int) -> list[str]:
    x, y, (ph, pw) = layer.x, layer.y, layer.pool
    rows, columns = layer.weight.shape[2:]
    view = window(x, rows, columns, inputs)
    low = -127 if layer.op.attrs.get("signed") else 0
    start = preface(variant, layer.alike)

    def tile(pixels: int, step: int, out: int) -> list[str]:
        sy, sx = layer.stride
        reads = tuple(
            tuple(p * step + k * sy * x.row + c * sx * x.step for k in range(ph) for c in range(pw))
            for p in range(pixels)
        )
        writes = tuple(p * out for p in range(pixels))
        return Tile(variant, view, registers, reads, writes, x.signed, low, layer.wide, layer.alike).lines()

    most = max(1, min(WIDEST, (variant.registers - 1 - registers) // registers // (ph * pw)))
    if layer.images:
        step = layer.images
        several = [f"for (; count >= {most}; count -= {most}) {{", *tile(most, step, step),
                   f"x += {most * step};", f"y += {most * step};", "}"]  # fmt: skip
        one = ["for (; count > 0; count--) {", *tile(1, step, step), f"x += {step};", f"y += {step};", "}"]
        return [*start, "const int8_t *x = x0;", "int8_t *y = y0;", *(several if most > 1 else []), *one]
    high, wide = y.shape[1:]
    if rows == columns == ph == pw == 1 and layer.stride == (1, 1) and x.dense and y.dense and high > 1:
        high, wide = 1, high * wide
    step, out = pw * layer.stride[1] * x.step, y.step
    lines = [*start, f"for (long i = 0; i < {high}; i++) {{",
             f"const int8_t *x = x0 + i * {ph * layer.stride[0] * x.row};",
             f"int8_t *y = y0 + i * {y.row};"]  # fmt: skip
    for times, pixels in _tiles(wide, most):
        lines += [f"for (long k = 0; k < {times}; k++) {{", *tile(pixels, step, out),
                  f"x += {pixels * step};", f"y += {pixels * out};", "}"]  # fmt: skip
    return [*lines, "}"]


def _tiles(wide: int, most: int) -> list[tuple[int, int]]:
    """How many tiles of how many pixels fill a row, as even as can be."""
    number = ceil(wide / most)
    size, larger = divmod(wide, number)
    return [(times, pixels) for times, pixels in ((larger, size + 1), (number - larger, size)) if times]
