"""Separable networks with pixels side by side: a register holds 16 pixels of four channels.

No lane is lost on channels that are no multiple of 16, a depthwise layer keeps its weights in registers, and what one
layer stores is what the next one multiplies. Rows start `pitch` pixels apart, and what lies between them is a border
of zeros that the end of one row and the start of the next share. It asks for registers of 64 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from netsuke.export.c.fast.layout import PIXELS, Map, up
from netsuke.export.c.fast.program import Program
from netsuke.export.c.fast.sums import channel_constants, spread, uniform
from netsuke.graph import Op, Tensors

TALLEST = 4  # registers of pixels whose sums of four channels are in the making at once
PARAMETERS = "const int8_t *x0, int8_t *y0, const int8_t *w, const int32_t *q"


def masks(y: Map) -> list[int]:
    """For every register of a plane, a bit for each byte of a pixel; the others are border, and stay zero."""
    _, high, wide = y.shape
    pixel = np.arange(up((high - 1) * y.pitch + wide, PIXELS)).reshape(-1, PIXELS)
    inside = (pixel % y.pitch < wide) & (pixel // y.pitch < high)
    return [sum(0xF << 4 * int(i) for i in np.flatnonzero(row)) for row in inside]


def _turns(every: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
    """The registers of a plane cut in turns of these sizes: like ones that follow each other, and how many."""
    ends = np.cumsum(sizes)
    cut = [tuple(every[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    return [(len(list(same)), turn) for turn, same in groupby(cut)]


def _even(count: int, most: int) -> list[int]:
    number = -(-count // most)
    size, larger = divmod(count, number)
    return [size + 1] * larger + [size] * (number - larger)


def _whole(count: int, size: int) -> list[int]:
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


def _scale(program: Program, op: Op, tensors: Tensors, x: Map) -> Scale:
    weight = tensors[op.tensor("weight")]
    offset = program.variant.offset if x.signed else 0
    constants = channel_constants(op, tensors, weight.reshape(len(weight), -1), offset)
    averaged = not op.attrs["signed"] and bool((constants[3] > 0).all())
    constants[3] -= averaged
    channels = np.arange(up(len(weight), 4)).reshape(-1, 4)
    known = np.where(channels < len(weight), channels, -1)
    place = f"(const int32_t *)(const void *)({program.constant(spread(constants, known))})"
    return Scale(place, uniform(op, tensors), averaged, -127 if op.attrs["signed"] else 0)


def _kind(mask: int) -> str:
    """Half a register is enough where the other half holds no pixel."""
    return "" if mask >> 32 else "half_"


def pointwise(
    program: Program, op: Op, x: Map, y: Map, tensors: Tensors, beside: Map | None = None
) -> None:
    """A 1x1 convolution, and the sum with `beside` where that follows."""
    weight = tensors[op.tensor("weight")][:, :, 0, 0]
    out, inputs = up(len(weight), 4), up(weight.shape[1], 4)
    padded = np.pad(weight, ((0, out - len(weight)), (0, inputs - weight.shape[1])))
    w = program.constant(padded.reshape(out // 4, 4, inputs // 4, 4).transpose(0, 2, 1, 3))
    scale, every = _scale(program, op, tensors, x), masks(y)
    lines = [*scale.preface(), f"for (long o = 0; o < {out // 4}; o++) {{",
             "const int8_t *x = x0;", f"int8_t *y = y0 + o * {y.plane};"]  # fmt: skip
    if beside:
        lines.append(f"const int8_t *z = z0 + o * {beside.plane};")
    for times, turn in _turns(every, _even(len(every), TALLEST)):
        ahead = [f"{name} += {len(turn) * 64};" for name in ("x", "y", *("z" if beside else ""))]
        kinds = [_kind(mask) for mask in turn]
        products = _products(program, x, inputs // 4, kinds)
        results = _results(scale, turn, kinds, beside is not None)
        lines += [f"for (long k = 0; k < {times}; k++) {{", *products, *results, *ahead, "}"]
    lines += [f"w += {inputs * 4};", "q += 16;", "}"]
    name = program.function("pointwise", PARAMETERS + (", const int8_t *z0" if beside else ""), lines)
    rest = f", {beside.at()}" if beside else ""
    program.call(f"{name}({x.at()}, {y.at()}, {w}, {scale.place}{rest});", late=False)


def _products(program: Program, x: Map, quads: int, kinds: Sequence[str]) -> list[str]:
    """The sums of four channels for some registers of pixels."""
    lines = _biased(kinds)
    unrolled = quads * len(kinds) * 4 <= program.variant.unrolled
    if not unrolled:
        lines += ["const int8_t *p = x, *u = w;", f"for (long j = 0; j < {quads}; j++) {{"]
    for quad in range(quads if unrolled else 1):
        place, weights = (f"x + {quad * x.plane}", f"w + {16 * quad}") if unrolled else ("p", "u")
        lines.append("{")
        lines += [f"const bytes w{c} = four({weights} + {4 * c});" for c in range(4)]
        for r, kind in enumerate(kinds):
            lines.append(f"{{ const {kind}bytes b = {kind}load({place} + {64 * r});")
            lines += [_dot(x, kind, f"a{r}_{c}", "b", f"w{c}") for c in range(4)]
            lines.append("}")
        lines.append("}")
    return lines if unrolled else [*lines, f"p += {x.plane};", "u += 16;", "}"]


def _biased(kinds: Sequence[str]) -> list[str]:
    return [f"{kind}sums a{r}_{c} = {kind}splat(q[{c}]);" for r, kind in enumerate(kinds) for c in range(4)]


def _dot(x: Map, kind: str, name: str, taps: str, weights: str) -> str:
    return f"{name} = {kind}{'dot_signed' if x.signed else 'dot'}({name}, {taps}, {_part(kind, weights)});"


def _part(kind: str, name: str) -> str:
    return f"lower({name})" if kind else name


def _results(scale: Scale, turn: Sequence[int], kinds: Sequence[str], added: bool = False) -> list[str]:
    """What becomes of the sums of four channels in some registers of pixels."""
    lines = []
    for r, (mask, kind) in enumerate(zip(turn, kinds, strict=True)):
        names = [f"a{r}_{c}" for c in range(4)]
        for c, name in enumerate(names):
            rest = [_part(kind, one) for one in ("rounding", "shifts")]
            if not scale.alike:
                rest = [f"{kind}splat(q[{row + c}])" for row in (8, 12)]
            lines.append(scale.scaled(kind, name, f"{kind}splat(q[{4 + c}])", *rest))
        value = scale.packed(kind, names, "turned", mask)
        if added:
            value = f"{kind}add_bytes({value}, {kind}load(z + {64 * r}))"
        lines.append(f"{kind}store(y + {64 * r}, {value});")
    return lines


def depthwise(program: Program, op: Op, x: Map, y: Map, tensors: Tensors) -> None:
    """A 3x3 window for each channel. Two rows share what brings four taps of a column together, where rows are long."""
    weight, stride = tensors[op.tensor("weight")], op.attrs["stride"][0]
    scale = _scale(program, op, tensors, x)
    together = 2 if stride == 1 and x.pitch >= PIXELS else 1
    quads = up(len(weight), 4) // 4
    taps = np.pad(weight[:, 0], ((0, 4 * quads - len(weight)), (0, 0), (0, 0)))
    moved = [np.pad(taps, ((0, 0), (r, 1 - r), (0, 0))) for r in range(together)]  # [C, 4 taps, 3 columns]
    w = program.constant(
        np.stack(moved, 1).reshape(quads, 4, together, 4, 3).transpose(0, 2, 4, 1, 3)
    )  # [quads, rows, columns, 4 channels, 4 taps]
    lines = [*scale.preface(), f"for (long o = 0; o < {quads}; o++) {{",
             f"const int8_t *x = x0 + o * {x.plane};", f"int8_t *y = y0 + o * {y.plane};",
             "const sums bias = repeated(q), multiplier = repeated(q + 4);"]  # fmt: skip
    if not scale.alike:
        lines += scale.held("repeated(q + {})")
    lines += [f"const bytes w{r}_{c} = repeated((const int32_t *)(const void *)(w + {(r * 3 + c) * 16}));"
              for r in range(together) for c in range(3)]  # fmt: skip
    lines += (_strided if stride == 2 else _sliding)(x, y, together, scale)
    lines += [f"w += {48 * together};", "q += 16;", "}"]
    name = program.function("depthwise", PARAMETERS, lines)
    top, left, *_ = op.attrs["padding"]
    program.call(f"{name}({x.at(-top, -left)}, {y.at()}, {w}, {scale.place});", late=False)


def _zipped(x: Map, name: str, place: int, taps: int, kind: str = "") -> list[str]:
    rows = [f"{kind}load(x + {place + r * x.row})" for r in range(taps)] + [f"{kind}none()"] * (4 - taps)
    return [f"{kind}bytes {name}[4];", f"{kind}zip({', '.join(rows)}, {name});"]


def _sliding(x: Map, y: Map, together: int, scale: Scale) -> list[str]:
    """Stride 1: sum j of a register takes columns j to j + 2, the last of them from the pixels that follow."""
    across = max(1, y.pitch // PIXELS)
    every = masks(y)
    lines = []
    for times, turn in _turns(every, _whole(len(every), together * across)):
        rows = len(turn) // across
        kind = _kind(max(turn)) if y.pitch < PIXELS else ""  # of longer rows the other half holds columns, too
        lines.append(f"for (long k = 0; k < {times}; k++) {{")
        for m in range(across):
            lines += _zipped(x, f"z{m}", 64 * m, 2 + together, kind)
        for m in range(across):
            after = f"z{(m + 1) % across}"
            columns = [f"z{m}[{j}]" for j in range(4)] + [
                f"{kind}follow(z{m}[{j}], {after}[{j}])" for j in (0, 1)
            ]
            lines += ["{", *(f"const {kind}bytes c{j} = {column};" for j, column in enumerate(columns))]
            for r in range(rows):
                named = [(f"a{j}", [f"c{j + c}" for c in range(3)]) for j in range(4)]
                value = scale.packed(kind, [name for name, _ in named], "", turn[r * across + m])
                lines += [*_sums(x, named, r, scale, kind),
                          f"{kind}store(y + {(r * across + m) * 64}, {value});", "}"]  # fmt: skip
            lines.append("}")
        step = max(1, PIXELS // y.pitch) * rows
        lines += [f"x += {step * x.row};", f"y += {64 * len(turn)};", "}"]
    return lines


def _strided(x: Map, y: Map, together: int, scale: Scale) -> list[str]:
    """Stride 2: 16 columns make eight pixels, those of even number and those of odd number apart."""
    across = x.pitch // PIXELS
    every = masks(y)
    lines = []
    for times, turn in _turns(every, [1] * len(every)):
        lines.append(f"for (long k = 0; k < {times}; k++) {{")
        places = [2 * r * x.row for r in (0, 1)] if across == 1 else [0, 64]
        if across == 1 and _kind(turn[0]):
            del places[1]  # one row is left
        for m, place in enumerate(places):
            lines += _zipped(x, f"z{m}", place, 3)
        for m in range(len(places)):
            after = f"z{m if across == 1 else 1 - m}"
            columns = [f"z{m}[{j}]" for j in range(4)] + [f"follow(z{m}[0], {after}[0])"]
            lines += [f"sums even{m}, odd{m};", "{"]
            lines += [f"const bytes c{j} = {column};" for j, column in enumerate(columns)]
            named = [("a0", ["c0", "c1", "c2"]), ("a1", ["c2", "c3", "c4"])]
            lines += [*_sums(x, named, 0, scale, ""), f"even{m} = a0;", f"odd{m} = a1;", "}", "}"]
        last = len(places) - 1
        value = scale.packed("", ["even0", "odd0", f"even{last}", f"odd{last}"], "merged", turn[0])
        step = 4 if across == 1 else 2
        lines += [f"store(y, {value});", f"x += {step * x.row};", "y += 64;", "}"]
    return lines


def _sums(
    x: Map, named: Sequence[tuple[str, Sequence[str]]], row: int, scale: Scale, kind: str
) -> list[str]:
    """Opens a block with sums over three columns, at the next scale."""
    lines = ["{", *(f"{kind}sums {name} = {_part(kind, 'bias')};" for name, _ in named)]
    for c in range(3):
        lines += [_dot(x, kind, name, columns[c], f"w{row}_{c}") for name, columns in named]
    rest = [_part(kind, name) for name in ("multiplier", "rounding", "shifts")]
    return lines + [scale.scaled(kind, name, *rest) for name, _ in named]


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


def stem(program: Program, op: Op, x: Map, y: Map, tensors: Tensors) -> None:
    """A convolution of one channel: groups of four taps are brought together for 16 pixels, then serve all channels."""
    weight = tensors[op.tensor("weight")]
    (out, _, rows, columns), stride = weight.shape, op.attrs["stride"][0]
    groups = _groups(rows, columns)
    quads = up(out, 4) // 4
    flat = np.pad(weight.reshape(out, -1), ((0, 4 * quads - out), (0, 1)))  # the last tap is zero
    order = np.array([[-1 if tap is None else tap[0] * columns + tap[1] for tap in group] for group in groups])
    w = program.constant(flat[:, order].reshape(quads, 4, len(groups), 4).transpose(0, 2, 1, 3))
    scale = _scale(program, op, tensors, x)
    every, across = masks(y), y.pitch // PIXELS
    height = 2 if len(groups) <= 8 else 1
    lines = [*scale.preface(), "const int8_t *x = x0;", "int8_t *y = y0;"]
    step = 64 * stride // 4  # bytes of the image under a register of pixels
    for times, turn in _turns(every, _whole(len(every), max(across, height))):
        inner = []
        for r in range(len(turn)):
            inner += _brought(groups, r, r // across * stride * x.row + r % across * step, x.row, stride)
        inner += ["const int8_t *u = w;", "const int32_t *c = q;", f"for (long o = 0; o < {quads}; o++) {{",
                  "const int32_t *q = c;", f"int8_t *const to = y + o * {y.plane};", "{ int8_t *const y = to;"]  # fmt: skip
        kinds = [""] * len(turn)
        inner += _biased(kinds)
        for g in range(len(groups)):
            for c in range(4):
                inner.append(f"{{ const bytes v = four(u + {16 * g + 4 * c});")
                inner += [f"a{r}_{c} = dot(a{r}_{c}, x{r}_{g}, v);" for r in range(len(turn))]
                inner.append("}")
        inner += _results(scale, turn, kinds)
        inner += ["}", f"u += {16 * len(groups)};", "c += 16;", "}"]
        lines += [f"for (long k = 0; k < {times}; k++) {{", *inner,
                  f"x += {len(turn) // across * stride * x.row};", f"y += {64 * len(turn)};", "}"]  # fmt: skip
    name = program.function("stem", PARAMETERS, lines)
    top, left, *_ = op.attrs["padding"]
    program.call(f"{name}({x.at(-top, -left)}, {y.at()}, {w}, {scale.place});", late=False)


Group = list[tuple[int, int] | None]  # row and column of four taps


def _groups(rows: int, columns: int) -> list[Group]:
    """Four columns of a row; of the columns left over, those of several rows."""
    whole, rest = columns // 4 * 4, columns % 4
    found: list[Group] = [[(r, c + i) for i in range(4)] for r in range(rows) for c in range(0, whole, 4)]
    left = [(r, c) for r in range(rows) for c in range(whole, columns)]
    each = 4 // rest * rest if rest else 1
    for start in range(0, len(left), each):
        some: Group = [*left[start : start + each]]
        found.append(some + [None] * (4 - len(some)))
    return found


def _brought(groups: Sequence[Group], register: int, place: int, row: int, stride: int) -> list[str]:
    """The groups of taps of 16 pixels: each lane takes what it needs of a row, then each pixel its own."""
    lines, seen = [], set()
    for g, group in enumerate(groups):
        pieces = []
        for r in dict.fromkeys(tap[0] for tap in group if tap):
            if r not in seen:
                lines.append(f"const bytes r{register}_{r} = lanes{stride}(load(x + {place + r * row}));")
                seen.add(r)
            one = [tap[1] if tap and tap[0] == r else None for tap in group]
            order = [-1 if c is None else c + stride * p for p in range(4) for c in one]
            pieces.append(f"chosen(r{register}_{r}, {', '.join(map(str, order))})")
        value = pieces[0]
        for piece in pieces[1:]:
            value = f"either({value}, {piece})"
        lines.append(f"const bytes x{register}_{g} = {value};")
    return lines
