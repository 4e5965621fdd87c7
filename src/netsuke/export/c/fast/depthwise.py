"""Depthwise convolutions: a register holds blocks of 16 channels of one pixel, or of neighbours where there are few.

Four taps of a column are brought side by side in each channel, so that one product of the vector unit sums four.
Two rows of 3x3 windows have four taps in a column: both are served by bringing them together once.
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
    (sy, sx), (top, left, *_) = op.attrs["stride"], op.attrs["padding"]
    constants = channel_constants(
        op, tensors, weight.reshape(len(weight), -1), variant.offset if x.signed else 0
    )
    low, alike = -127 if op.attrs["signed"] else 0, uniform(op, tensors)
    together = variant.together if sy == 1 else 1
    for part in parts(variant, up(len(weight), BYTES) // BYTES):
        channels = _channels(variant, part, len(weight))
        q = program.constant(spread(constants, channels))
        done = 0
        for rows in (together, 1):
            times = (y.shape[1] - done) // rows
            if not times:
                continue
            code = Rows(variant, part, x, y, weight.shape[2:], sx, rows, low, alike)
            w = program.constant(code.arranged(weight, channels))
            body = [*preface(variant, alike), f"for (long i = 0; i < {times}; i++) {{",
                    f"const int8_t *x = x0 + i * {rows * sy * x.row};", f"int8_t *y = y0 + i * {rows * y.row};",
                    *code.lines(), "}"]  # fmt: skip
            name = program.function(
                "depthwise", "const int8_t *x0, int8_t *y0, const int8_t *w, const int32_t *q", body
            )
            places = (
                f"{x.at(done * sy - top, -left)} + {part.first * BYTES}, {y.at(done)} + {part.first * BYTES}"
            )
            program.call(f"{name}({places}, {w}, (const int32_t *)(const void *)({q}));", late=False)
            done += times * rows


def _channels(variant: Variant, part: Part, count: int) -> np.ndarray:
    """The channel of every lane of the four registers of sums that `zip` gives: [4, lanes], -1 for none."""
    byte = np.arange(variant.chunk).reshape(variant.blocks, 4, 4).transpose(1, 0, 2).reshape(4, -1)
    block, within = byte // BYTES, byte % BYTES
    channel = (part.first + block % part.blocks) * BYTES + within
    used = (block < part.blocks * part.pixels) & (channel < count)
    return np.where(used, channel, -1)


@dataclass(frozen=True)
class Rows:
    """Code for `rows` neighbouring rows of outputs, whose taps are brought together once for all of them.

    A column of the window holds the taps of all rows, in groups of four; an output row takes those of its own, and
    the weights of the others are zero. Where it pays, columns that the next pixel needs again
    are kept (`slide`).
    """

    variant: Variant
    part: Part
    x: Map
    y: Map
    kernel: tuple[int, int]
    stride: int
    rows: int
    low: int
    alike: bool

    @property
    def depth(self) -> int:
        """Taps of a column: those of all rows."""
        return self.kernel[0] + self.rows - 1

    @property
    def groups(self) -> int:
        return ceil(self.depth / 4)

    @property
    def slide(self) -> bool:
        return self.part.pixels == 1 and self.stride == 1 and self.groups == 1

    def lines(self) -> list[str]:
        pixels, wide = self.part.pixels, self.y.shape[2]
        times, rest = divmod(wide, pixels)
        ahead = [f"x += {pixels * self.stride * self.x.step};", f"y += {pixels * self.y.step};"]
        lines = []
        if self.slide:
            columns = range(self.kernel[1] - 1)
            lines += [f"bytes z{c}[4];" for c in range(self.kernel[1])] + [self._zip(c, 0) for c in columns]
        if times:
            lines += [f"for (long k = 0; k < {times}; k++) {{", *self._pixels(pixels), *ahead, "}"]
        return lines + (["{", *self._pixels(rest), "}"] if rest else [])

    def _zip(self, column: int, group: int) -> str:
        """Four taps of a column side by side."""
        taps = range(4 * group, min(4 * group + 4, self.depth))
        some = [_load(self.part, self.x, r * self.x.row + column * self.x.step, self.stride) for r in taps]
        name = f"z{column}" if self.slide else "z"
        return f"zip({', '.join(some + ['none()'] * (4 - len(some)))}, {name});"

    def _pixels(self, pixels: int) -> list[str]:
        """The first `pixels` of the neighbours in a register."""
        variant, columns = self.variant, self.kernel[1]
        lines = [f"sums a{r}_{k} = load_sums(q + {4 * k * variant.lanes});"
                 for r in range(self.rows) for k in range(4)]  # fmt: skip
        if self.slide:
            lines.append(self._zip(columns - 1, 0))
        for column in range(columns):
            for group in range(self.groups):
                if self.slide:
                    lines += self._products(column, group, f"z{column}")
                else:
                    lines += [
                        "{ bytes z[4];",
                        self._zip(column, group),
                        *self._products(column, group, "z"),
                        "}",
                    ]
        if self.slide:
            lines += [f"z{c}[{k}] = z{c + 1}[{k}];" for c in range(columns - 1) for k in range(4)]
        places = [p * self.y.step + BYTES * b for p in range(pixels) for b in range(self.part.blocks)]
        for r in range(self.rows):
            names = [f"a{r}_{k}" for k in range(4)]
            lines += [
                f"{name} = {requantized(variant, name, k, self.alike)};" for k, name in enumerate(names)
            ]
            there = [r * self.y.row + place for place in places[: variant.blocks]]
            lines += stored(variant, names, there, self.low, "pack")
        return lines

    def _products(self, column: int, group: int, taps: str) -> list[str]:
        name, lines = "dot_signed" if self.x.signed else "dot", []
        for r in range(self.rows):
            for k in range(4):
                number = ((r * self.kernel[1] + column) * self.groups + group) * 4 + k
                weight = f"load(w + {number * self.variant.chunk})"
                lines.append(f"a{r}_{k} = {name}(a{r}_{k}, {taps}[{k}], {weight});")
        return lines

    def arranged(self, weight: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """int8 [rows, columns, groups of four taps, 4, lanes, 4] of weights [C, 1, rows, columns]."""
        moved = []
        for r in range(self.rows):
            after = 4 * self.groups - self.kernel[0] - r
            taps = np.pad(weight[:, 0], ((0, 1), (r, after), (0, 0)))[channels]
            moved.append(taps.reshape(*channels.shape, self.groups, 4, -1).transpose(4, 2, 0, 1, 3))
        return np.stack(moved)


def _load(part: Part, x: Map, tap: int, sx: int) -> str:
    """The register at one tap: in one piece where the neighbours' blocks follow each other."""
    step = sx * x.step
    if part.pixels == 1 or step == part.blocks * BYTES:
        return f"load(x + {tap})"
    return f"{'gather' if part.blocks == 1 else 'gather_pairs'}(x + {tap}, {step})"
