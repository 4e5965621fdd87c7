"""All other ops: sums in whole registers, the rest as plain loops over channels, which compilers turn into vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netsuke.export.c.fast.layout import Map, up
from netsuke.export.c.fast.pools import maxpool, qavgpool, sumpool
from netsuke.export.c.fast.step import Step, each, element, per_pixel, requantized, stored_channels
from netsuke.export.c.fast.sums import channel_constants, spread, written
from netsuke.export.c.fast.variants import BYTES, Variant
from netsuke.graph import Op


def halve(step: Step) -> None:
    """The caller's planes to pixels."""
    channels, high, wide = step.y.shape
    if step.y.step == 1 and wide >= 8:  # some at once; the last ones of a row overlap those before
        size, name = (16, "sixteen") if wide >= 16 else (8, "eight")
        places = [*range(0, wide - size + 1, size), *([wide - size] if wide % size else [])]
        row = step.y.row
        words = [f"halve_{name}(image + i * {wide} + {j}, y + i * {row} + {j});" for j in places]
        lines = [each("i", high), *words, "}"]
    else:
        inner = f"{element(step.y, 'y')} = (int8_t)(image[(c * {high} + i) * {wide} + j] >> 1);"
        lines = [each("i", high), each("c", channels), each("j", wide), inner, "}", "}", "}"]
    name = step.program.function("halve", "const uint8_t *image, int8_t *y", lines)
    step.program.call(f"{name}(image, {step.y.at()});", late=False)


def flatten(step: Step) -> None:
    """A map to a vector in the order C, H, W, for readers that do not take it as it lies."""
    _, high, wide = step.x.shape
    lines = [*per_pixel(step.x, [each("c", step.x.shape[0]),
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
    lines = [each("i", m.shape[1])]
    if times:
        lines += [each("k", times), *body([BYTES * b for b in range(variant.blocks)]), "}"]
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
        lines += [each("k", weight.shape[1]), "const sums b = splat(x[k]);"]
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
        lines += ["{", f"int32_t sum[{variant.lanes}];", f"store_sums(sum, a{v});", each("c", variant.lanes),
                  f"y[{v * variant.lanes} + c] = rounded(sum[c], {m}, {r}, {s}, {low});", "}", "}"]  # fmt: skip
    return lines


def _over_channels(step: Step, start: int, body: str, result: str) -> None:
    x = step.x
    inner = [f"int32_t acc = {start};", each("c", x.shape[0]), f"const int32_t v = {element(x, 'x')};", body, "}",
             f"{element(step.y, 'y', channel='0')} = {result};"]  # fmt: skip
    step.emit(per_pixel(step.y, inner))


def channelmax(step: Step) -> None:
    _over_channels(step, -127, "acc = v > acc ? v : acc;", "(int8_t)acc")


def qchannelmean(step: Step) -> None:
    _over_channels(step, 0, "acc += v;", requantized(step.op, "acc", -127))


def qmul(step: Step) -> None:
    x, gate = step.inputs
    low = -127 if step.op.attrs["signed"] else 0
    if gate.shape == x.shape:
        beside = element(gate, "x1")
    elif gate.shape[0] == x.shape[0]:
        beside = "x1[c]"
    else:
        beside = element(gate, "x1", channel="0")
    count = x.shape[0] if gate.shape[0] == 1 else stored_channels(step.y)
    value = requantized(step.op, f"{element(x, 'x')} * {beside}", low)
    step.emit(per_pixel(step.y, [each("c", count), f"{element(step.y, 'y')} = {value};", "}"]))


def lookup(step: Step) -> None:
    table = step.tensors[step.op.tensor("table")]
    entries = table.shape[-1]
    low = 127 if entries == 255 else 0
    row = f"c * {entries} + " if table.ndim > 1 else ""
    place = f"{row}{element(step.x, 'x')} + {low}"
    lines = per_pixel(step.y, [each("c", step.x.shape[0]), f"{element(step.y, 'y')} = table[{place}];", "}"])
    step.emit(lines, ("int8_t", "table", step.program.constant(table.astype(np.int8))))


def _moved(number: int, x: Map, y: Map, count: int, source: str, target: str) -> list[str]:
    name = f"x{number}" if number else "x"
    body = f"{element(y, 'y', channel=target)} = {element(x, name, channel=source)};"
    return per_pixel(y, [each("c", count), body, "}"])


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
    place = element(step.x, "x", channel=f"g * {channels // groups} + k")
    target = element(step.y, "y", channel=f"k * {groups} + g")
    body = [each("g", groups), each("k", channels // groups), f"{target} = {place};", "}", "}"]
    step.emit(per_pixel(step.y, body))


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
