"""All other ops: sums in whole registers, the rest as plain loops over channels, which compilers turn into vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from netsuke.export.c.fast.layout import Map, up
from netsuke.export.c.fast.program import Program
from netsuke.export.c.fast.sums import channel_constants, spread, stored, written
from netsuke.export.c.fast.variants import BYTES, Variant
from netsuke.graph import Op, Tensors


@dataclass(frozen=True)
class Step:
    """An op with the maps that it reads and the one it writes."""

    program: Program
    op: Op
    inputs: tuple[Map, ...]
    y: Map
    tensors: Tensors

    @property
    def x(self) -> Map:
        return self.inputs[0]

    def emit(self, lines: Sequence[str], *constants: tuple[str, str, str]) -> None:
        """A function of these lines over x, x1, ... and y, and of constants (type, name, address), and its call."""
        types = [("int32_t" if m.wide else "int8_t") for m in (*self.inputs, self.y)]
        names = ["x", *(f"x{i}" for i in range(1, len(self.inputs)))]
        parameters = [f"const {t} *{n}" for t, n in zip(types, names, strict=False)]
        parameters += [f"{types[-1]} *y", *(f"const {ctype} *{name}" for ctype, name, _ in constants)]
        called = self.program.function(self.op.kind, ", ".join(parameters), lines)
        places = [_typed(m) for m in (*self.inputs, self.y)]
        places += [f"(const {ctype} *)(const void *)({place})" for ctype, _, place in constants]
        self.program.call(f"{called}({', '.join(places)});", late=self.late)

    @property
    def late(self) -> bool:
        return self.op.name in self.program.layout.late


def _typed(m: Map) -> str:
    return f"(int32_t *)(void *)({m.at()})" if m.wide else m.at()


def _each(variable: str, end: int) -> str:
    return f"for (long {variable} = 0; {variable} < {end}; {variable}++) {{"


def _per_pixel(m: Map, body: Sequence[str]) -> list[str]:
    return [_each("i", m.shape[1]), _each("j", m.shape[2]), *body, "}", "}"]


def _at(m: Map, name: str, row: str = "i", column: str = "j", channel: str = "c") -> str:
    return f"{name}[{row} * {m.row} + {column} * {m.step} + {channel}]"


def _channels(m: Map) -> int:
    """Spare channels are computed along where that makes whole vectors."""
    return min(m.step, up(m.shape[0], BYTES))


def _requantized(op: Op, value: str, low: int) -> str:
    return f"requantize({value}, {op.attrs['multiplier']}, {op.attrs['shift']}, {low})"


def halve(step: Step) -> None:
    """The caller's planes to pixels."""
    channels, high, wide = step.y.shape
    if step.y.step == 1 and wide >= 8:  # some at once; the last ones of a row overlap those before
        size, name = (16, "sixteen") if wide >= 16 else (8, "eight")
        places = [*range(0, wide - size + 1, size), *([wide - size] if wide % size else [])]
        row = step.y.row
        words = [f"halve_{name}(image + i * {wide} + {j}, y + i * {row} + {j});" for j in places]
        lines = [_each("i", high), *words, "}"]
    else:
        inner = f"{_at(step.y, 'y')} = (int8_t)(image[(c * {high} + i) * {wide} + j] >> 1);"
        lines = [_each("i", high), _each("c", channels), _each("j", wide), inner, "}", "}", "}"]
    name = step.program.function("halve", "const uint8_t *image, int8_t *y", lines)
    step.program.call(f"{name}(image, {step.y.at()});", late=False)


def flatten(step: Step) -> None:
    """A map to a vector in the order C, H, W, for readers that do not take it as it lies."""
    _, high, wide = step.x.shape
    lines = [*_per_pixel(step.x, [_each("c", step.x.shape[0]),
             f"y[(c * {high} + i) * {wide} + j] = {_at_sized(step.x)};", "}"])]  # fmt: skip
    step.emit(lines)


def _at_sized(m: Map) -> str:
    """An element of `x`, whose rows and steps count bytes."""
    size = 4 if m.wide else 1
    return f"x[i * {m.row // size} + j * {m.step // size} + c]"


def _rows(variant: Variant, m: Map, body: Callable[[list[int]], list[str]]) -> list[str]:
    """Loops over the registers of each row; `body` gets the places of the blocks that it may write."""
    total = m.shape[2] * m.step
    times, rest = divmod(total, variant.chunk)
    lines = [_each("i", m.shape[1])]
    if times:
        lines += [_each("k", times), *body([BYTES * b for b in range(variant.blocks)]), "}"]
    if rest:
        lines += [f"{{ const long k = {times};", *body([BYTES * b for b in range(rest // BYTES)]), "}"]
    return [*lines, "}"]


def qadd(step: Step) -> None:
    variant, attrs, (a, b) = step.program.variant, step.op.attrs, step.inputs
    low, chunk = (-127 if attrs["signed"] else 0), variant.chunk
    (ma, mb), s = attrs["multipliers"], attrs["shift"]
    plain = ma == mb == 1 and s == 0

    def body(places: list[int]) -> list[str]:
        p, r = (f"{name} + i * {m.row} + k * {chunk}" for name, m in (("x", a), ("x1", b)))
        start = [f"const int8_t *p = {p};", f"const int8_t *r = {r};"]
        if plain:
            value = "add_bytes(load(p), load(r))"
        else:
            value = f"pack_rows({', '.join(f'sum{v}' for v in range(4))})"
            for v in range(4):
                parts = [
                    f"mul(widen({name} + {v * variant.lanes}), splat({m}))"
                    for name, m in (("p", ma), ("r", mb))
                ]
                total = f"add(add({parts[0]}, {parts[1]}), splat({(1 << s) >> 1}))"
                start.append(f"const sums sum{v} = shift({total}, splat({s}));")
        lines = [*start, f"const bytes v = larger_bytes({value}, splat_byte({low}));",
                 f"int8_t *const y = yr + k * {chunk};"]  # fmt: skip
        return [*lines, *written(variant, "v", places)]

    lines = _rows(variant, step.y, body)
    lines.insert(1, f"int8_t *const yr = y + i * {step.y.row};")
    step.emit(lines)


def sumpool(step: Step) -> None:
    variant, x = step.program.variant, step.x
    lines = []
    for block in range(0, _channels(x), variant.lanes):
        lines += ["{", "sums acc = splat(0);",
                  *_per_pixel(x, [f"acc = add(acc, widen(x + i * {x.row} + j * {x.step} + {block}));"]),
                  f"store_sums(y + {block}, acc);", "}"]  # fmt: skip
    step.emit(lines)


def wide_dense(step: Step) -> None:
    """A dense layer on wide sums: one input at a time for all outputs."""
    variant, op, tensors = step.program.variant, step.op, step.tensors
    weight, lanes = tensors[op.tensor("weight")], variant.lanes
    out = up(len(weight), BYTES)
    padded = np.pad(weight, ((0, out - len(weight)), (0, 0))).T
    channels = np.arange(out).reshape(-1, lanes)
    constants = channel_constants(op, tensors, weight, 0)
    known = np.where(channels < len(weight), channels, -1)
    rows = len(constants)
    lines = []
    for start in range(0, out // lanes, 4):
        group = range(start, min(start + 4, out // lanes))
        lines.append("{")
        lines += [f"sums a{v} = load_sums(q + {rows * v * lanes});" for v in group]
        lines += [_each("k", weight.shape[1]), "const sums b = splat(x[k]);"]
        lines += [f"a{v} = add(a{v}, mul(b, widen(w + k * {out} + {v * lanes})));" for v in group]
        lines.append("}")
        lines += _wide_stored(variant, op, group)
        lines.append("}")
    step.emit(
        lines,
        ("int8_t", "w", step.program.constant(padded)),
        ("int32_t", "q", step.program.constant(spread(constants, known))),
    )


def _wide_stored(variant: Variant, op: Op, group: range) -> list[str]:
    if op.kind == "qlogits":
        return [f"store_sums(y + {v * variant.lanes}, a{v});" for v in group]
    low, lines = -127 if op.attrs["signed"] else 0, []
    for v in group:
        m, r, s = (f"q[{(4 * v + row) * variant.lanes} + c]" for row in (1, 2, 3))
        lines += ["{", f"int32_t sum[{variant.lanes}];", f"store_sums(sum, a{v});", _each("c", variant.lanes),
                  f"y[{v * variant.lanes} + c] = rounded(sum[c], {m}, {r}, {s}, {low});", "}", "}"]  # fmt: skip
    return lines


def _window(step: Step, body: Sequence[str]) -> list[str]:
    """Loops over the window of a pool, over `p`, the place of each of its pixels."""
    (rows, columns), x = step.op.attrs["kernel"], step.x
    place = f"const int8_t *p = o + r * {x.row} + k * {x.step};"
    return [_each("r", rows), _each("k", columns), place, *body, "}", "}"]


def _corner(step: Step) -> str:
    (sy, sx), x = step.op.attrs["stride"], step.x
    top, left, *_ = step.op.attrs.get("padding") or (0, 0)
    back = top * x.row + left * x.step
    return f"const int8_t *o = x + i * {sy * x.row} + j * {sx * x.step} - {back};"


def maxpool(step: Step) -> None:
    if step.x.signed and any(step.op.attrs["padding"]):
        return _cut_maxpool(step)
    count = _channels(step.y)
    variant, (rows, columns), x = step.program.variant, step.op.attrs["kernel"], step.x
    body = [_corner(step)]
    for start in range(0, count, variant.chunk):
        places = [f"load(o + {r * x.row + c * x.step + start})" for r in range(rows) for c in range(columns)]
        if len(places) > 64:  # a whole map: a loop
            body += [f"{{ bytes v = {places[0]};",
                     *_window(step, [f"v = larger_bytes(v, load(p + {start}));"])]  # fmt: skip
        else:
            body += [
                f"{{ bytes v = {places[0]};",
                *(f"v = larger_bytes(v, {place});" for place in places[1:]),
            ]
        blocks = [start + BYTES * b for b in range(min(variant.blocks, (count - start) // BYTES))]
        body += [*written(variant, "v", blocks), "}"]
    body.append(f"y += {step.y.step};")
    skip = step.y.row - step.y.shape[2] * step.y.step
    lines = [_each("i", step.y.shape[1]), _each("j", step.y.shape[2]), *body, "}", f"y += {skip};", "}"]
    step.emit(lines)
    return None


def _cut_maxpool(step: Step) -> None:
    """Signed values beside padding: windows are cut at the edge of the map."""
    (sy, sx), (top, left, *_), x = step.op.attrs["stride"], step.op.attrs["padding"], step.x
    rows, columns = step.op.attrs["kernel"]
    lines = _per_pixel(step.y, [
        _each("c", x.shape[0]), "int8_t v = -128;", _each("r", rows), _each("k", columns),
        f"const long row = i * {sy} - {top} + r;", f"const long column = j * {sx} - {left} + k;",
        f"if (row >= 0 && row < {x.shape[1]} && column >= 0 && column < {x.shape[2]}) {{",
        f"const int8_t n = {_at(x, 'x', 'row', 'column')};", "v = n > v ? n : v;", "}", "}", "}",
        f"{_at(step.y, 'y')} = v;", "}",
    ])  # fmt: skip
    step.emit(lines)


def qavgpool(step: Step) -> None:
    """Four registers of sums at a time: neighbours in a row where a pixel has fewer."""
    variant, y = step.program.variant, step.y
    registers = _channels(y) // variant.lanes
    pixels = max(1, 4 // registers)
    start = [_corner(step).replace("x + i", "xr + i"), f"int8_t *const y = yr + i * {y.row} + j * {y.step};"]
    times, rest = divmod(y.shape[2], pixels)
    lines = ["const int8_t *const xr = x;", "int8_t *const yr = y;", _each("i", y.shape[1])]
    if times:
        lines += [
            _each("l", times),
            f"const long j = l * {pixels};",
            *start,
            *_averages(step, registers, pixels),
            "}",
        ]
    if rest:
        lines += [f"{{ const long j = {times * pixels};", *start, *_averages(step, registers, rest), "}"]
    step.emit([*lines, "}"])


def _averages(step: Step, registers: int, pixels: int) -> list[str]:
    """The averages of some neighbours, whose first window starts at `o`."""
    variant, x, y, attrs = step.program.variant, step.x, step.y, step.op.attrs
    ahead = attrs["stride"][1] * x.step
    m, s = attrs["multiplier"], attrs["shift"]
    places = [(p, v) for p in range(pixels) for v in range(registers)]
    lines = []
    for start in range(0, len(places), 4):
        group = places[start : start + 4]
        names = [f"a{i}" for i in range(len(group))]
        lines += ["{", *(f"sums {name} = splat(0);" for name in names)]
        reads = [f"widen(p + {p * ahead + v * variant.lanes})" for p, v in group]
        lines += _window(
            step, [f"{name} = add({name}, {read});" for name, read in zip(names, reads, strict=True)]
        )
        rounding = f"splat({(1 << s) >> 1})), splat({s}))"
        lines += [f"{name} = shift(add(mul({name}, splat({m})), {rounding};" for name in names]
        blocks = [p * y.step + v * variant.lanes for p, v in group[:: variant.per_block]]
        lines += [*stored(variant, names, blocks, -127, "pack_rows"), "}"]
    return lines


def _over_channels(step: Step, start: int, body: str, result: str) -> None:
    x = step.x
    inner = [f"int32_t acc = {start};", _each("c", x.shape[0]), f"const int32_t v = {_at(x, 'x')};", body, "}",
             f"{_at(step.y, 'y', channel='0')} = {result};"]  # fmt: skip
    step.emit(_per_pixel(step.y, inner))


def channelmax(step: Step) -> None:
    _over_channels(step, -127, "acc = v > acc ? v : acc;", "(int8_t)acc")


def qchannelmean(step: Step) -> None:
    _over_channels(step, 0, "acc += v;", _requantized(step.op, "acc", -127))


def qmul(step: Step) -> None:
    x, gate = step.inputs
    low = -127 if step.op.attrs["signed"] else 0
    if gate.shape == x.shape:
        beside = _at(gate, "x1")
    elif gate.shape[0] == x.shape[0]:
        beside = "x1[c]"
    else:
        beside = _at(gate, "x1", channel="0")
    count = x.shape[0] if gate.shape[0] == 1 else _channels(step.y)
    value = _requantized(step.op, f"{_at(x, 'x')} * {beside}", low)
    step.emit(_per_pixel(step.y, [_each("c", count), f"{_at(step.y, 'y')} = {value};", "}"]))


def lookup(step: Step) -> None:
    table = step.tensors[step.op.tensor("table")]
    entries = table.shape[-1]
    low = 127 if entries == 255 else 0
    row = f"c * {entries} + " if table.ndim > 1 else ""
    place = f"{row}{_at(step.x, 'x')} + {low}"
    lines = _per_pixel(step.y, [_each("c", step.x.shape[0]), f"{_at(step.y, 'y')} = table[{place}];", "}"])
    step.emit(lines, ("int8_t", "table", step.program.constant(table.astype(np.int8))))


def _moved(number: int, x: Map, y: Map, count: int, source: str, target: str) -> list[str]:
    name = f"x{number}" if number else "x"
    body = f"{_at(y, 'y', channel=target)} = {_at(x, name, channel=source)};"
    return _per_pixel(y, [_each("c", count), body, "}"])


def concat(step: Step) -> None:
    lines: list[str] = []
    start = 0
    for number, x in enumerate(step.inputs):
        lines += _moved(number, x, step.y, x.shape[0], "c", f"{start} + c")
        start += x.shape[0]
    step.emit(lines)


def slice_(step: Step) -> None:
    start = step.op.attrs["start"]
    step.emit(_moved(0, step.x, step.y, step.y.shape[0], f"{start} + c", "c"))


def shuffle(step: Step) -> None:
    """Channel k of group g becomes channel g of group k."""
    channels, groups = step.x.shape[0], step.op.attrs["groups"]
    place = _at(step.x, "x", channel=f"g * {channels // groups} + k")
    target = _at(step.y, "y", channel=f"k * {groups} + g")
    body = [_each("g", groups), _each("k", channels // groups), f"{target} = {place};", "}", "}"]
    step.emit(_per_pixel(step.y, body))


EMIT: dict[str, Callable[[Step], None]] = {
    "halve": halve,
    "flatten": flatten,
    "qadd": qadd,
    "sumpool": sumpool,
    "maxpool": maxpool,
    "qavgpool": qavgpool,
    "channelmax": channelmax,
    "qchannelmean": qchannelmean,
    "qmul": qmul,
    "lookup": lookup,
    "concat": concat,
    "slice": slice_,
    "shuffle": shuffle,
}
