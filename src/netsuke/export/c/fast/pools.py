"""Sums, averages and maxima over windows, in whole registers of channels."""

from __future__ import annotations

from collections.abc import Sequence

from netsuke.export.c.fast.step import Step, each, element, per_pixel, stored_channels
from netsuke.export.c.fast.sums import stored, written
from netsuke.export.c.fast.variants import BYTES


def sumpool(step: Step) -> None:
    variant, x = step.program.variant, step.x
    lines = []
    for block in range(0, stored_channels(x), variant.lanes):
        lines += ["{", "sums acc = splat(0);",
                  *per_pixel(x, [f"acc = add(acc, widen(x + i * {x.row} + j * {x.step} + {block}));"]),
                  f"store_sums(y + {block}, acc);", "}"]  # fmt: skip
    step.emit(lines)


def _window(step: Step, body: Sequence[str]) -> list[str]:
    """Loops over the window of a pool, over `p`, the place of each of its pixels."""
    (rows, columns), x = step.op.attrs["kernel"], step.x
    place = f"const int8_t *p = o + r * {x.row} + k * {x.step};"
    return [each("r", rows), each("k", columns), place, *body, "}", "}"]


def _corner(step: Step) -> str:
    (sy, sx), x = step.op.attrs["stride"], step.x
    top, left, *_ = step.op.attrs.get("padding") or (0, 0)
    back = top * x.row + left * x.step
    return f"const int8_t *o = x + i * {sy * x.row} + j * {sx * x.step} - {back};"


def maxpool(step: Step) -> None:
    if step.x.signed and any(step.op.attrs["padding"]):
        return _cut_maxpool(step)
    count = stored_channels(step.y)
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
    lines = [each("i", step.y.shape[1]), each("j", step.y.shape[2]), *body, "}", f"y += {skip};", "}"]
    step.emit(lines)
    return None


def _cut_maxpool(step: Step) -> None:
    """Signed values beside padding: windows are cut at the edge of the map."""
    (sy, sx), (top, left, *_), x = step.op.attrs["stride"], step.op.attrs["padding"], step.x
    rows, columns = step.op.attrs["kernel"]
    lines = per_pixel(step.y, [
        each("c", x.shape[0]), "int8_t v = -128;", each("r", rows), each("k", columns),
        f"const long row = i * {sy} - {top} + r;", f"const long column = j * {sx} - {left} + k;",
        f"if (row >= 0 && row < {x.shape[1]} && column >= 0 && column < {x.shape[2]}) {{",
        f"const int8_t n = {element(x, 'x', 'row', 'column')};", "v = n > v ? n : v;", "}", "}", "}",
        f"{element(step.y, 'y')} = v;", "}",
    ])  # fmt: skip
    step.emit(lines)


def qavgpool(step: Step) -> None:
    """Four registers of sums at a time: neighbours in a row where a pixel has fewer."""
    variant, y = step.program.variant, step.y
    registers = stored_channels(y) // variant.lanes
    pixels = max(1, 4 // registers)
    start = [_corner(step).replace("x + i", "xr + i"), f"int8_t *const y = yr + i * {y.row} + j * {y.step};"]
    times, rest = divmod(y.shape[2], pixels)
    lines = ["const int8_t *const xr = x;", "int8_t *const yr = y;", each("i", y.shape[1])]
    if times:
        lines += [
            each("l", times),
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
