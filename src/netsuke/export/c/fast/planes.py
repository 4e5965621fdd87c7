"""Separable networks with pixels side by side: a register holds 16 pixels of four channels.

No lane is lost on channels that are no multiple of 16, a depthwise layer keeps its weights in registers, and what one
layer stores is what the next one multiplies. Rows start `pitch` pixels apart, and what lies between them is a border
of zeros that the end of one row and the start of the next share. It asks for registers of 64 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from netsuke.export.c.fast.layout import Map, up
from netsuke.export.c.fast.program import Program
from netsuke.export.c.fast.routes import PIXELS
from netsuke.export.c.fast.sums import channel_constants, spread, uniform
from netsuke.graph import Op, Tensors

TALLEST = 4  # registers of pixels whose sums of four channels are in the making at once
PARAMETERS = "const int8_t *x0, int8_t *y0, const int8_t *w, const int32_t *q"


def masks(y: Map) -> list[int]:
    """For every register of a plane, a bit for each byte of a pixel; the others are border, and stay zero."""
    _, high, wide = y.shape
    pixel = np.arange(up((high - 1) * y.pitch + wide, max(PIXELS, y.pitch))).reshape(-1, PIXELS)
    inside = (pixel % y.pitch < wide) & (pixel // y.pitch < high)
    return [sum(0xF << 4 * int(i) for i in np.flatnonzero(row)) for row in inside]


def turns(every: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
    """The registers of a plane cut in turns of these sizes: like ones that follow each other, and how many."""
    ends = np.cumsum(sizes)
    cut = [tuple(every[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    return [(len(list(same)), turn) for turn, same in groupby(cut)]


def _even(count: int, most: int) -> list[int]:
    number = -(-count // most)
    size, larger = divmod(count, number)
    return [size + 1] * larger + [size] * (number - larger)


def whole(count: int, size: int) -> list[int]:
    return [size] * (count // size) + ([count % size] if count % size else [])


@dataclass(frozen=True)
class Scale:
    """How sums become activations: shifts of all channels `alike` stay in a register.

    Unsigned ones are `averaged`: shifted by one bit less and packed, then halved and rounded as bytes, 64 at a time.
    """

    place: str  # C for the address of int32 [quads, 4 rows of constants, 4]
    alike: bool
    averaged: bool
    low: int

    def preface(self) -> list[str]:
        return self.held("splat(q[{}])") if self.alike else []

    def held(self, form: str) -> list[str]:
        """C that keeps what all sums need in registers."""
        rows = (("shifts", 12),) if self.averaged else (("rounding", 8), ("shifts", 12))
        return [f"const sums {name} = {form.format(row)};" for name, row in rows]

    def scaled(self, kind: str, name: str, multiplier: str, rounding: str, shifts: str) -> str:
        product = f"{kind}mul({name}, {multiplier})"
        if not self.averaged:
            product = f"{kind}add({product}, {rounding})"
        return f"{name} = {kind}shift({product}, {shifts});"

    def packed(self, kind: str, names: Sequence[str], order: str, mask: int) -> str:
        """The bytes of four registers of sums in another order, zero where no pixel is."""
        packed = f"{kind}{'pack_halved' if self.averaged else 'pack'}({', '.join(names)})"
        if order:
            packed = f"{kind}{order}({packed})"
        if self.averaged:
            return f"{kind}averaged({packed}, {mask:#x})"
        return f"{kind}kept({packed}, {mask:#x}, {self.low})"


def scale_of(program: Program, op: Op, tensors: Tensors, x: Map) -> Scale:
    """That of a convolution."""
    weight = tensors[op.tensor("weight")]
    offset = program.variant.offset if x.signed else 0
    constants = channel_constants(op, tensors, weight.reshape(len(weight), -1), offset)
    return scale_from(program, constants, uniform(op, tensors), -127 if op.attrs["signed"] else 0)


def scale_from(program: Program, constants: np.ndarray, alike: bool, low: int) -> Scale:
    """From int32 [bias, multiplier, rounding and shift, C] and the least activation."""
    count = constants.shape[1]
    averaged = low == 0 and bool((constants[3] > 0).all())
    channels = np.arange(up(count, 4)).reshape(-1, 4)
    known = np.where(channels < count, channels, -1)
    shorter = constants - averaged * np.array([[0], [0], [0], [1]], np.int32)
    place = f"(const int32_t *)(const void *)({program.constant(spread(shorter, known))})"
    return Scale(place, alike, averaged, low)


def kind_of(mask: int) -> str:
    """Half a register is enough where the other half holds no pixel."""
    return "" if mask >> 32 else "half_"


def part(kind: str, name: str) -> str:
    """The half of a register where `kind` is one."""
    return f"lower({name})" if kind else name


def dot(x: Map, kind: str, name: str, taps: str, weights: str) -> str:
    return f"{name} = {kind}{'dot_signed' if x.signed else 'dot'}({name}, {taps}, {part(kind, weights)});"


def biased(kinds: Sequence[str], channels: int) -> list[str]:
    return [f"{kind}sums a{r}_{c} = {kind}splat(q[{c}]);"
            for r, kind in enumerate(kinds) for c in range(channels)]  # fmt: skip


def scaled(scale: Scale, kind: str, name: str, channel: int) -> str:
    """Sums of one channel at the next scale."""
    rest = [part(kind, one) for one in ("rounding", "shifts")]
    if not scale.alike:
        rest = [f"{kind}splat(q[{row + channel}])" for row in (8, 12)]
    return scale.scaled(kind, name, f"{kind}splat(q[{4 + channel}])", *rest)


def four_names(kind: str, register: int, channels: int) -> list[str]:
    return [f"a{register}_{c}" if c < channels else f"{kind}none()" for c in range(4)]


def over_quads(out: int, body: Callable[[int], list[str]], ahead: Sequence[str]) -> list[str]:
    """A loop of `body` over four channels at a time, over `o`; the channels left over take no more than they need."""
    full, rest = divmod(out, 4)
    lines = [f"for (long o = 0; o < {full}; o++) {{", *body(4), *ahead, "}"] if full else []
    return lines + ([f"{{ const long o = {full};", *body(rest), "}"] if rest else [])


def quad_weights(matrix: np.ndarray) -> np.ndarray:
    """int8 [O, I] as [quads of outputs, quads of inputs, 4, 4]."""
    out, inputs = (up(n, 4) for n in matrix.shape)
    padded = np.pad(matrix, ((0, out - matrix.shape[0]), (0, inputs - matrix.shape[1])))
    return padded.reshape(out // 4, 4, inputs // 4, 4).transpose(0, 2, 1, 3)


def pointwise(program: Program, op: Op, x: Map, y: Map, tensors: Tensors, beside: Map | None = None) -> None:
    """A 1x1 convolution, and the sum with `beside` where that follows."""
    weight = tensors[op.tensor("weight")][:, :, 0, 0]
    scale, every = scale_of(program, op, tensors, x), masks(y)
    w, quads = program.constant(quad_weights(weight)), up(weight.shape[1], 4) // 4
    names = ("x", "y", "z") if beside else ("x", "y")

    def body(channels: int) -> list[str]:
        lines = ["const int8_t *x = x0;", f"int8_t *y = y0 + o * {y.plane};"]
        if beside:
            lines.append(f"const int8_t *z = z0 + o * {beside.plane};")
        for times, turn in turns(every, _even(len(every), TALLEST)):
            kinds = [kind_of(mask) for mask in turn]
            lines += [f"for (long k = 0; k < {times}; k++) {{", *_products(program, x, quads, kinds, channels),
                      *_results(scale, turn, kinds, channels, beside is not None),
                      *(f"{name} += {len(turn) * 64};" for name in names), "}"]  # fmt: skip
        return lines

    lines = [*scale.preface(), *over_quads(len(weight), body, (f"w += {16 * quads};", "q += 16;"))]
    name = program.function("pointwise", PARAMETERS + (", const int8_t *z0" if beside else ""), lines)
    rest = f", {beside.at()}" if beside else ""
    program.call(f"{name}({x.at()}, {y.at()}, {w}, {scale.place}{rest});", late=False)


def _products(program: Program, x: Map, quads: int, kinds: Sequence[str], channels: int) -> list[str]:
    """The sums of four channels for some registers of pixels."""
    lines = biased(kinds, channels)
    unrolled = quads * len(kinds) * 4 <= program.variant.unrolled
    if not unrolled:
        lines += ["const int8_t *p = x, *u = w;", f"for (long j = 0; j < {quads}; j++) {{"]
    for quad in range(quads if unrolled else 1):
        place, weights = (f"x + {quad * x.plane}", f"w + {16 * quad}") if unrolled else ("p", "u")
        lines.append("{")
        lines += [f"const bytes w{c} = four({weights} + {4 * c});" for c in range(channels)]
        for r, kind in enumerate(kinds):
            lines.append(f"{{ const {kind}bytes b = {kind}load({place} + {64 * r});")
            lines += [dot(x, kind, f"a{r}_{c}", "b", f"w{c}") for c in range(channels)]
            lines.append("}")
        lines.append("}")
    return lines if unrolled else [*lines, f"p += {x.plane};", "u += 16;", "}"]


def _results(
    scale: Scale, turn: Sequence[int], kinds: Sequence[str], channels: int, added: bool
) -> list[str]:
    """What becomes of the sums of four channels in some registers of pixels."""
    lines = []
    for r, (mask, kind) in enumerate(zip(turn, kinds, strict=True)):
        lines += [scaled(scale, kind, f"a{r}_{c}", c) for c in range(channels)]
        value = scale.packed(kind, four_names(kind, r, channels), "turned", mask)
        if added:
            value = f"{kind}add_bytes({value}, {kind}load(z + {64 * r}))"
        lines.append(f"{kind}store(y + {64 * r}, {value});")
    return lines


def sumpool(program: Program, x: Map, y: Map) -> None:
    """The sum of every channel, four planes at a time."""
    registers = len(masks(x))
    lines = ["const bytes ones = splat_byte(1);"]
    for start in range(0, x.planes, 4):
        planes = range(start, min(start + 4, x.planes))
        lines.append("{")
        lines += [f"sums a{i} = splat(0);" for i in range(4)]
        lines.append(f"for (long k = 0; k < {registers}; k++) {{")
        lines += [
            f"a{i} = dot(a{i}, ones, turned(load(x + {plane * x.plane} + k * 64)));"
            for i, plane in enumerate(planes)
        ]
        lines += ["}", f"store_sums(y + {4 * start}, lanes_added(a0, a1, a2, a3));", "}"]
    name = program.function("sumpool", "const int8_t *x, int32_t *y", lines)
    program.call(f"{name}({x.at()}, (int32_t *)(void *)({y.at()}));", late=False)
