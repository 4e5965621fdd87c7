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
from netsuke.export.c.fast.sums import channel_constants, preface, requantized, spread, stored, uniform
from netsuke.export.c.fast.variants import BYTES, Variant
from netsuke.graph import Op, Tensors

CHAINS = 8  # sums that must be in the making at once, for a product takes some cycles
WIDEST = 12  # pixels of a tile


@dataclass(frozen=True)
class Window:
    """What one sum reads: `rows` times `columns` runs of `quads` groups of four bytes."""

    rows: int
    row: int
    columns: int
    step: int
    quads: int
    ahead: int = 4  # bytes from one group to the next

    @property
    def total(self) -> int:
        return self.rows * self.columns * self.quads

    def places(self) -> list[int]:
        return [
            r * self.row + c * self.step + q * self.ahead
            for r in range(self.rows) for c in range(self.columns) for q in range(self.quads)
        ]  # fmt: skip


def window(x: Map, rows: int, columns: int, channels: int) -> Window:
    """The window of a kernel over `channels` channels of a map, with runs as long as memory allows."""
    if x.step == 1:  # four columns of the one channel
        return Window(rows, x.row, 1, 0, ceil(columns / 4))
    quads = ceil(channels / 4)
    if x.planes:
        return Window(rows, x.row, columns, x.step, quads, x.plane)
    if columns == 1 or 4 * quads != x.step:
        return Window(rows, x.row, columns, x.step, quads)
    if columns * x.step == x.row:
        return Window(1, 0, 1, 0, rows * columns * quads)
    return Window(rows, x.row, 1, 0, columns * quads)


def quadruples(x: Map, weight: np.ndarray) -> np.ndarray:
    """int8 weights [O, I, rows, columns] as [groups of four, O, 4], in the order of the window."""
    out, channels, _, columns = weight.shape
    if x.step == 1:
        spare = ((0, 0), (0, 0), (0, 0), (0, up(columns, 4) - columns))
        return np.pad(weight, spare).reshape(out, -1, 4).transpose(1, 0, 2)
    spare = ((0, 0), (0, up(channels, 4) - channels), (0, 0), (0, 0))
    return np.pad(weight, spare).transpose(0, 2, 3, 1).reshape(out, -1, 4).transpose(1, 0, 2)


@dataclass(frozen=True)
class Tile:
    """Code for the sums of some pixels in `registers` of channels, and for what becomes of them.

    `reads` are the places beside `x` of each output pixel's windows, of more than one where they are pooled;
    `writes` the places beside `y` of its first channel.
    """

    variant: Variant
    window: Window
    registers: int
    reads: tuple[tuple[int, ...], ...]
    writes: tuple[int, ...]
    signed: bool
    low: int
    wide: bool
    alike: bool

    @property
    def sets(self) -> int:
        """Sums of one channel that are kept apart, so that there are enough chains."""
        count = self.registers * sum(map(len, self.reads))
        return max(1, min(4, ceil(CHAINS / count), self.window.total // 2))

    def lines(self) -> list[str]:
        rows = 1 if self.wide else 4
        lines = []
        for name, _, v, part in self._sums():
            first = f"load_sums(q + {rows * v * self.variant.lanes})" if part == 0 else "splat(0)"
            lines.append(f"sums {name} = {first};")
        return lines + self._products() + self._results()

    def _sums(self) -> list[tuple[str, int, int, int]]:
        """Name, place beside `x`, register of channels and set of every sum."""
        return [
            (f"a{p}_{k}_{v}_{part}", place, v, part)
            for part in range(self.sets) for p, places in enumerate(self.reads)
            for k, place in enumerate(places) for v in range(self.registers)
        ]  # fmt: skip

    def _products(self) -> list[str]:
        w = self.window
        if w.total * len(self._sums()) // self.sets <= self.variant.unrolled:
            lines = []
            for number, place in enumerate(w.places()):
                lines += self._step("x", place, "w", number, number % self.sets)
            return lines
        unroll = self.sets if self.sets > 1 else (2 if w.quads % 2 == 0 else 1)
        bulk = self.registers * self.variant.chunk
        start = []
        if w.rows > 1:
            start.append(f"for (long r = 0; r < {w.rows}; r++) {{")
        if w.columns > 1:
            start.append(f"for (long c = 0; c < {w.columns}; c++) {{")
        row = f" + r * {w.row}" if w.rows > 1 else ""
        column = f" + c * {w.step}" if w.columns > 1 else ""
        lines = ["const int8_t *u = w;", *start, f"const int8_t *p = x{row}{column};"]
        times, rest = divmod(w.quads, unroll)
        if times:
            lines.append(f"for (long j = 0; j < {times}; j++) {{")
            for i in range(unroll):
                lines += self._step("p", w.ahead * i, "u", i, i % self.sets)
            lines += [f"p += {w.ahead * unroll};", f"u += {unroll * bulk};", "}"]
        for i in range(rest):
            lines += self._step("p", w.ahead * i, "u", i, i % self.sets)
        if rest:
            lines.append(f"u += {rest * bulk};")
        return lines + ["}"] * len(start)

    def _step(self, x: str, place: int, w: str, number: int, part: int) -> list[str]:
        """One group of four inputs, for every sum of one set."""
        chunk, name = self.variant.chunk, "dot_signed" if self.signed else "dot"
        lines = ["{"]
        for v in range(self.registers):
            lines += [f"const bytes w{v} = load({w} + {(number * self.registers + v) * chunk});"]
        chosen = [item for item in self._sums() if item[3] == part]
        for at in dict.fromkeys(item[1] for item in chosen):
            lines.append(f"{{ const bytes b = four({x} + {at + place});")
            lines += [f"{s} = {name}({s}, b, w{v});" for s, where, v, _ in chosen if where == at]
            lines.append("}")
        return [*lines, "}"]

    def _results(self) -> list[str]:
        lines, values, places = [], [], []
        for p in range(len(self.reads)):
            for v in range(self.registers):
                lines += self._whole(p, v)
                values.append(f"a{p}_0_{v}_0")
                if not self.wide:
                    lines.append(f"{values[-1]} = {requantized(self.variant, values[-1], v, self.alike)};")
                    continue
                place = self.writes[p] + 4 * v * self.variant.lanes
                lines.append(f"store_sums((int32_t *)(void *)(y + {place}), {values[-1]});")
            blocks = self.registers // self.variant.per_block
            places += [self.writes[p] + BYTES * block for block in range(blocks)]
        return lines if self.wide else lines + stored(self.variant, values, places, self.low, "pack_rows")

    def _whole(self, p: int, v: int) -> list[str]:
        """The sets of each sum together; the largest of the windows that are pooled.

        Requantisation rises with the sum, so the largest sum gives the largest activation: once is enough.
        """
        windows = range(len(self.reads[p]))
        lines = [
            f"a{p}_{k}_{v}_0 = add(a{p}_{k}_{v}_0, a{p}_{k}_{v}_{part});"
            for k in windows
            for part in range(1, self.sets)
        ]
        return lines + [f"a{p}_0_{v}_0 = larger(a{p}_0_{v}_0, a{p}_{k}_{v}_0);" for k in windows[1:]]


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
