"""The sums of a tile, some pixels by some registers of channels, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from netsuke.export.c.fast.layout import Map, up
from netsuke.export.c.fast.sums import requantized, stored
from netsuke.export.c.fast.variants import BYTES, Variant

CHAINS = 8  # sums that must be in the making at once, for a product takes some cycles


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
