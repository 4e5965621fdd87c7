"""One C function for each op: loops with the layer's own constants, over int8 activations in H, W, C order.

Emitters return lines without indentation; `indented` lays them out by their braces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import numpy as np

from netsuke import packing
from netsuke.graph import Op, Tensors, Type


@dataclass(frozen=True)
class View:
    """How C reads one activation: where it lies and in what order.

    The caller's image lies in planes (C, H, W); what the code computes lies pixel by pixel (H, W, C), and
    stays so when flattened. `channels` is how many values of one pixel lie side by side, 1 for planes.
    """

    pointer: str
    ctype: str
    elements: int
    channels: int = 1
    halved: bool = False  # the image, read as image >> 1

    @property
    def planes(self) -> int:
        return self.elements // self.channels

    def steps(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Distance in elements from one channel to the next, and from one pixel to the next."""
        return (1, shape[0]) if self.channels == shape[0] else (shape[1] * shape[2], 1)

    def at(self, logical: str) -> str:
        """The place of the element that is number `logical` in C, H, W order."""
        if self.channels == 1 or self.planes == 1:
            return logical
        return f"{logical} % {self.planes} * {self.channels} + {logical} / {self.planes}"

    def load(self, place: str, base: str = "x") -> str:
        return f"({base}[{place}] >> 1)" if self.halved else f"{base}[{place}]"

    def order(self) -> np.ndarray:
        """The C, H, W number of every element as it lies in memory."""
        return np.arange(self.elements).reshape(self.channels, self.planes).T.reshape(-1)


@dataclass(frozen=True)
class Layer:
    """What an emitter is given: the op, its views and types, the names of its arrays."""

    op: Op
    symbol: str
    inputs: tuple[View, ...]
    shapes: tuple[tuple[int, ...], ...]  # of the inputs
    y: Type
    out: View
    tensors: Tensors

    @property
    def x(self) -> View:
        return self.inputs[0]

    def array(self, role: str) -> str:
        return f"{self.symbol}_{role}"

    def weight(self, place: str) -> str:
        """The weight number `place`, decoded where it is packed."""
        bits = self.op.attrs["bits"]
        return (
            f"{self.array('weight')}[{place}]"
            if bits == 8
            else f"weight_{bits}({self.array('weight')}, {place})"
        )

    @property
    def bias(self) -> str:
        """The bias of channel `o`, with the zero bits that are not stored."""
        _, exponent = packing.shortened(self.tensors[self.op.tensor("bias")])
        stored = f"(int32_t){self.array('bias')}[o]"
        return f"{stored} * ((int32_t)1 << {self.array('exponent')})" if exponent else stored

    def store(self, place: str) -> str:
        """Bring `acc` of channel `o` to the next scale and store it."""
        if self.op.kind == "qlogits":
            return f"out[{place}] = acc;"
        shift = self.tensors[self.op.tensor("shift")]
        uniform = bool((shift == shift.flat[0]).all())
        s = self.array("shift") if uniform else f"{self.array('shift')}[o]"
        return f"out[{place}] = {requantize(self.y)}(acc, (int32_t){self.array('multiplier')}[o], {s});"


def requantize(y: Type) -> str:
    return f"requantize_{y.dtype}"


def indented(lines: Iterable[str]) -> str:
    """Four spaces for every open brace."""
    depth, out = 0, []
    for line in lines:
        depth -= line.startswith("}")
        out.append("    " * depth + line if line else line)
        depth += line.count("{") - line.count("}") + line.startswith("}")
    return "\n".join(out) + "\n"


def each(variable: str, end: int | str, start: int | str = 0) -> str:
    return f"for (place {variable} = {start}; {variable} < {end}; {variable}++) {{"


def times(name: str, factor: int) -> str:
    return name if factor == 1 else f"{name} * {factor}"


@dataclass(frozen=True)
class Axis:
    """One axis of a sliding window, its ends cut where they reach into the padding."""

    name: str
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
        origin = times(f"o{n}", self.stride) + (f" - {self.before}" if self.before else "")
        lines = [f"const place {n} = {origin};"]
        if self.cut_start:
            lines.append(f"const place {n}0 = {n} < 0 ? -{n} : 0;")
        if self.cut_end:
            lines.append(
                f"const place {n}1 = {n} > {self.size - self.kernel} ? {self.size} - {n} : {self.kernel};"
            )
        return lines


def _axes(layer: Layer, kernel: tuple[int, ...]) -> tuple[Axis, Axis]:
    _, high, wide = layer.shapes[0]
    stride = layer.op.attrs["stride"]
    top, left, _, _ = layer.op.attrs.get("padding", (0, 0, 0, 0))
    rows, columns = layer.y.shape[1:]
    return (
        Axis("y", high, kernel[0], stride[0], top, rows),
        Axis("x", wide, kernel[1], stride[1], left, columns),
    )


# --- emitters: the body of a function of `in`, `out` and, where it needs them, `b` and `filter` ---------


def qconv2d(layer: Layer) -> list[str]:
    """Filter by filter: one decoded filter serves every pixel."""
    weight = layer.tensors[layer.op.tensor("weight")]
    out, depth, *kernel = weight.shape
    rows, columns = _axes(layer, tuple(kernel))
    channel_step, _ = layer.x.steps(layer.shapes[0])
    size, groups = prod(weight.shape[1:]), layer.op.attrs["groups"]
    lines = [each("o", out)]
    if layer.op.attrs["bits"] == 8:
        lines.append(f"const int8_t *const filter = {layer.array('weight')} + {times('o', size)};")
    else:
        place = f"{times('o', size)} + k"
        lines += [each("k", size), f"filter[k] = {layer.weight(place)};", "}"]
    if groups > 1:
        group = "o" if out == groups else f"o / {out // groups}"
        lines.append(f"const {layer.x.ctype} *const part = in + {times(group, depth * channel_step)};")
    lines += [f"const int32_t bias = {layer.bias};", each("oy", rows.out), *rows.lines()]
    lines += [each("ox", columns.out), *columns.lines(), "int32_t acc = bias;"]
    lines += _dot(layer, rows, columns, depth, "part" if groups > 1 else "in")
    pixel = f"({times('oy', columns.out)} + ox)"
    return [*lines, layer.store(f"{times(pixel, out)} + o"), "}", "}", "}"]


def _dot(layer: Layer, rows: Axis, columns: Axis, depth: int, base: str) -> list[str]:
    """Add to `acc` the products of one filter with the part of its window inside the map."""
    view, (channels, _, wide) = layer.x, layer.shapes[0]
    channel_step, pixel_step = view.steps(layer.shapes[0])
    taps = rows.kernel * columns.kernel > 1
    row = "(y + ky)" if taps else "y"
    first = f"x + {columns.start}" if columns.start else "x"
    lines = [each("ky", rows.end, rows.start)] if taps else []
    pixel = f"({times(row, wide)} + {first})"
    lines.append(f"const {view.ctype} *const p = {base} + {times(pixel, pixel_step)};")
    inner = columns.kernel * depth
    offset = [times("ky", inner)] if taps else []
    offset += [times(str(columns.start), depth)] if columns.start else []
    lines.append(f"const int8_t *const f = {' + '.join(['filter', *offset])};")
    span = f"({columns.end} - {columns.start})" if columns.start else f"{columns.end}"
    if (depth == channels and channel_step == 1) or depth == 1:  # one run along the row
        run = span if depth == 1 else str(inner) if span == str(columns.kernel) else f"{span} * {depth}"
        step = pixel_step if depth == 1 else 1
        lines += [each("k", run), f"acc += (int32_t){view.load(times('k', step), 'p')} * f[k];", "}"]
    else:
        place = f"{times('k', pixel_step)} + {times('i', channel_step)}"
        lines += [each("k", span), each("i", depth)]
        lines += [f"acc += (int32_t){view.load(place, 'p')} * f[{times('k', depth)} + i];", "}", "}"]
    return [*lines, "}"] if taps else lines


def dense(layer: Layer) -> list[str]:
    """qdense and qlogits; the columns of the weights have been put into the order in which `x` lies."""
    out, size = layer.tensors[layer.op.tensor("weight")].shape
    weight = layer.weight(f"{times('o', size)} + i")
    return [
        each("o", out),
        f"int32_t acc = {layer.bias};",
        each("i", size),
        f"acc += (int32_t){layer.x.load('i', 'in')} * {weight};",
        "}",
        layer.store("o"),
        "}",
    ]


def _pool(layer: Layer, start: str, step: str, store: str) -> list[str]:
    """Row by row, pixel by pixel, channel by channel: the order that lets a pool write over its input."""
    rows, columns = _axes(layer, layer.op.attrs["kernel"])
    channels, _, wide = layer.shapes[0]
    channel_step, pixel_step = layer.x.steps(layer.shapes[0])
    pixel = f"({times('(y + ky)', wide)} + x + kx)"
    place = f"{times(pixel, pixel_step)} + {times('c', channel_step)}"
    loops = [
        each("oy", rows.out),
        *rows.lines(),
        each("ox", columns.out),
        *columns.lines(),
        each("c", channels),
    ]
    loops += [
        f"int32_t acc = {start};",
        each("ky", rows.end, rows.start),
        each("kx", columns.end, columns.start),
    ]
    read = f"const int32_t v = {layer.x.load(place, 'in')};"
    write = f"out[({times('oy', columns.out)} + ox) * {channels} + c] = {store};"
    return [*loops, read, step, "}", "}", write, "}", "}", "}"]


def maxpool(layer: Layer) -> list[str]:
    # -127 is the least activation; starting there, not lower, a 1x1 pool cannot become a call of memcpy.
    return _pool(layer, "-127", "if (v > acc) acc = v;", "(int8_t)acc")


def qavgpool(layer: Layer) -> list[str]:
    m, s = layer.op.attrs["multiplier"], layer.op.attrs["shift"]
    return _pool(layer, "0", "acc += v;", f"{requantize(layer.y)}(acc, {m}, {s})")


def sumpool(layer: Layer) -> list[str]:
    channels, high, wide = layer.shapes[0]
    channel_step, pixel_step = layer.x.steps(layer.shapes[0])
    place = f"{times('k', pixel_step)} + {times('c', channel_step)}"
    lines = [each("c", channels), "int32_t acc = 0;", each("k", high * wide)]
    return [*lines, f"acc += {layer.x.load(place, 'in')};", "}", "out[c] = acc;", "}"]


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
    total = f"(int32_t){a.load(places[0], 'in')} * {ma} + (int32_t){b.load(places[1], 'b')} * {mb}"
    return [*lines, f"out[k] = {requantize(layer.y)}({total}, 1, {layer.op.attrs['shift']});", "}"]


EMIT: dict[str, Callable[[Layer], list[str]]] = {
    "qconv2d": qconv2d,
    "qdense": dense,
    "qlogits": dense,
    "maxpool": maxpool,
    "qavgpool": qavgpool,
    "sumpool": sumpool,
    "qadd": qadd,
}
