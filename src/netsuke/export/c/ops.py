"""What an emitter is given, and the ops that are no products: pools and sums. One C function a stage, a row a call.

Maps are int8 and lie pixel by pixel (H, W, C), whole or as a ring of rows. Emitters return lines without indentation;
`indented` lays them out by their braces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from netsuke.export.c.coded import Coded
from netsuke.export.c.header import Style
from netsuke.graph import Op, Tensors, Type
from netsuke.memory import Ring, Stage


@dataclass(frozen=True)
class View:
    """How C reads one activation: of what type, and in what order.

    `channels` is how many values of one pixel lie side by side; a vector that never was a map has 1.
    """

    ctype: str
    elements: int
    channels: int = 1

    @property
    def planes(self) -> int:
        return self.elements // self.channels

    def at(self, logical: str) -> str:
        """The place of the element that is number `logical` in C, H, W order."""
        if self.channels == 1 or self.planes == 1:
            return logical
        return f"{logical} % {self.planes} * {self.channels} + {logical} / {self.planes}"

    def order(self) -> np.ndarray:
        """The C, H, W number of every element as it lies in memory."""
        return np.arange(self.elements).reshape(self.channels, self.planes).T.reshape(-1)


@dataclass(frozen=True)
class Layer:
    """A stage with the views, shapes and rings of what it reads and writes."""

    stage: Stage
    symbols: Mapping[str, str]  # C names by op
    inputs: tuple[View, ...]
    shapes: tuple[tuple[int, ...], ...]  # of the inputs
    rings: tuple[Ring, ...]  # of the inputs
    types: Mapping[str, Type]
    out: View
    ring: Ring
    tensors: Tensors
    style: Style
    reversed: bool = False  # from the last pixel to the first
    coded: Coded | None = None

    @property
    def op(self) -> Op:
        return self.stage.op

    @property
    def symbol(self) -> str:
        return self.symbols[self.op.name]

    @property
    def x(self) -> View:
        return self.inputs[0]

    @property
    def y(self) -> Type:
        return self.types[self.stage.output]

    def array(self, role: str, op: Op | None = None) -> str:
        return f"{self.symbols[(op or self.op).name]}_{role}"

    def product(self, a: str, b: int | str) -> str:
        """Two values multiplied, as the style has it."""
        return f"product({a}, {b})" if self.style.adds else f"(int32_t){a} * {b}"

    def one_row(self) -> Layer:
        """The same stage on maps of one row: what looks at one pixel at a time is emitted so."""

        def row(view: View, shape: tuple[int, ...]) -> View:
            return replace(view, elements=view.elements // shape[1]) if len(shape) == 3 else view

        shapes = tuple((s[0], 1, s[2]) if len(s) == 3 else s for s in self.shapes)
        inputs = tuple(row(v, s) for v, s in zip(self.inputs, self.shapes, strict=True))
        return replace(self, inputs=inputs, shapes=shapes, out=row(self.out, self.y.shape))


def requantize(y: Type) -> str:
    return f"requantize_{y.dtype}"


def indented(lines: Iterable[str]) -> str:
    """Four spaces for every open brace."""
    depth, out = 0, []
    for line in lines:
        depth -= line.startswith("}")
        out.append("    " * depth + line if line and not line.startswith("#") else line)
        depth += line.count("{") - line.count("}") + line.startswith("}")
    return "\n".join(out) + "\n"


def each(variable: str, end: int | str, start: int | str = 0) -> str:
    return f"for (place {variable} = {start}; {variable} < {end}; {variable}++) {{"


def backwards(variable: str, end: int) -> str:
    return f"for (place {variable} = {end - 1}; {variable} >= 0; {variable}--) {{"


def times(name: str, factor: int) -> str:
    return name if factor == 1 else f"{name} * {factor}"


def at_row(base: str, ring: Ring, row: str) -> str:
    """The start of a row of a map or ring."""
    if ring.rows == 1:
        return base
    place = (
        row
        if ring.rows == ring.of
        else f"({row}) % {ring.rows}"
        if not row.isidentifier()
        else f"{row} % {ring.rows}"
    )
    place = f"({place})" if ring.row_bytes > 1 and not place.isidentifier() else place
    return f"{base} + {times(place, ring.row_bytes)}"


@dataclass(frozen=True)
class Axis:
    """One axis of a sliding window, its ends cut where they reach into the padding."""

    name: str
    output: str  # the variable of the output's place
    size: int
    kernel: int
    stride: int
    before: int
    out: int

    @property
    def cut_start(self) -> bool:
        return self.before > 0

    @property
    def cut_end(self) -> bool:
        return (self.out - 1) * self.stride - self.before + self.kernel > self.size

    @property
    def start(self) -> int | str:
        return f"{self.name}0" if self.cut_start else 0

    @property
    def end(self) -> int | str:
        return f"{self.name}1" if self.cut_end else self.kernel

    def lines(self) -> list[str]:
        """`name` is the input place of the window's first element, `name0` to `name1` its part inside."""
        n = self.name
        origin = times(self.output, self.stride) + (f" - {self.before}" if self.before else "")
        lines = [f"const place {n} = {origin};"]
        if self.cut_start:
            lines.append(f"const place {n}0 = {n} < 0 ? -{n} : 0;")
        if self.cut_end:
            lines.append(
                f"const place {n}1 = {n} > {self.size - self.kernel} ? {self.size} - {n} : {self.kernel};"
            )
        return lines


# --- emitters: the body of a function of `in`, `out`, the step `y` and, where it needs them, `b` and `scratch` ------


def halve(layer: Layer) -> list[str]:
    """A row of the image, plane after plane, to pixels of 0..127."""
    channels, _, wide = layer.shapes[0]
    read = f"in[{f'c * {wide} + x' if channels > 1 else 'x'}]"
    write = f"to[{f'x * {channels} + c' if channels > 1 else 'x'}]"
    inner = [f"{write} = (int8_t)({read} >> 1);", "}"]
    inner = [each("c", channels), *inner, "}"] if channels > 1 else inner
    return [f"int8_t *const to = {at_row('out', layer.ring, 'y')};", each("x", wide), *inner]


def _pool(layer: Layer, start: str, step: str, store: str) -> list[str]:
    """Pixel by pixel, channel by channel: the order that lets a pool write over its input."""
    channels, high, wide = layer.shapes[0]
    attrs = layer.op.attrs
    top, left, _, _ = attrs.get("padding", (0, 0, 0, 0))
    rows, columns = layer.y.shape[1:]
    vertical = Axis("r", "y", high, attrs["kernel"][0], attrs["stride"][0], top, rows)
    level = Axis("s", "x", wide, attrs["kernel"][1], attrs["stride"][1], left, columns)
    still = layer.rings[0].rows == 1 and not vertical.cut_start and not vertical.cut_end  # no row is counted
    loops = [f"int8_t *to = {at_row('out', layer.ring, 'y')};", *([] if still else vertical.lines())]
    loops += [each("x", columns), *level.lines(), each("c", channels), f"int32_t acc = {start};"]
    loops += [each("ky", vertical.end, vertical.start)]
    loops.append(f"const int8_t *const line = {at_row('in', layer.rings[0], 'r + ky')};")
    loops.append(each("kx", level.end, level.start))
    read = f"const int32_t v = line[{times('(s + kx)', channels)} + c];"
    return [*loops, read, step, "}", "}", f"*to++ = {store};", "}", "}"]


def maxpool(layer: Layer) -> list[str]:
    # -127 is the least activation; starting there, not lower, a 1x1 pool cannot become a call of memcpy.
    return _pool(layer, "-127", "if (v > acc) acc = v;", "(int8_t)acc")


def qavgpool(layer: Layer) -> list[str]:
    m, s = layer.op.attrs["multiplier"], layer.op.attrs["shift"]
    return _pool(layer, "0", "acc += v;", f"{requantize(layer.y)}(acc, {m}, {s})")


def sumpool(layer: Layer) -> list[str]:
    """One row more in the sums."""
    channels, _, wide = layer.shapes[0]
    return [
        f"const int8_t *x = {at_row('in', layer.rings[0], 'y')};",
        *started(channels),
        each("k", wide),
        each("c", channels),
        "out[c] += *x++;",
        "}",
        "}",
    ]


def started(channels: int) -> list[str]:
    """Sums begin at nothing."""
    return ["if (y == 0) {", f"clear((int8_t *)out, {4 * channels});", "}"]


def qadd(layer: Layer) -> list[str]:
    """Element by element in the order of the result, which is that of its inputs where they agree."""
    (ma, mb), (a, b), out = layer.op.attrs["multipliers"], layer.inputs, layer.out
    lines = [each("k", out.elements)]
    if a.channels == b.channels == out.channels:
        places = ["k", "k"]
    else:
        number = "k" if out.channels == 1 else f"k % {out.channels} * {out.planes} + k / {out.channels}"
        lines.append(f"const place n = {number};")
        places = ["k" if v.channels == out.channels else v.at("n") for v in (a, b)]
    total = f"{layer.product(f'in[{places[0]}]', ma)} + {layer.product(f'b[{places[1]}]', mb)}"
    return [*lines, f"out[k] = {requantize(layer.y)}({total}, 1, {layer.op.attrs['shift']});", "}"]


Emitter = Callable[[Layer], list[str]]
ROWS: dict[str, Emitter] = {"halve": halve, "maxpool": maxpool, "qavgpool": qavgpool, "sumpool": sumpool}
