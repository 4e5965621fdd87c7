"""Depthwise convolutions and averages on planes: four taps of a column side by side, for 16 pixels of four channels.

The weights of four channels and all that requantises them stay in registers while a plane goes by.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsuke.export.c.fast.layout import Map, up
from netsuke.export.c.fast.planes import (
    PARAMETERS,
    Scale,
    dot,
    kind_of,
    masks,
    part,
    scale_from,
    scale_of,
    turns,
    whole,
)  # fmt: skip
from netsuke.export.c.fast.program import Program
from netsuke.export.c.fast.routes import PIXELS
from netsuke.graph import Op, Tensors


def depthwise(program: Program, op: Op, x: Map, y: Map, tensors: Tensors) -> None:
    """A 3x3 window for each channel."""
    weight, (top, left, *_) = tensors[op.tensor("weight")][:, 0], op.attrs["padding"]
    scale = scale_of(program, op, tensors, x)
    _windows(program, weight, scale, x, y, x.at(-top, -left), op.attrs["stride"][0])


def average(program: Program, op: Op, x: Map, y: Map) -> None:
    """The averages of 2x2 pixels: a window of ones."""
    weight = np.ones((x.shape[0], 2, 2), np.int8)
    shift = op.attrs["shift"]
    offset = program.variant.offset * 4 if x.signed else 0
    column = np.array([[-offset], [op.attrs["multiplier"]], [(1 << shift) >> 1], [shift]], np.int32)
    scale = scale_from(program, np.repeat(column, len(weight), 1), True, -127 if x.signed else 0)
    _windows(program, weight, scale, x, y, x.at(), 2)


def _windows(
    program: Program, weight: np.ndarray, scale: Scale, x: Map, y: Map, start: str, stride: int
) -> None:
    """int8 windows [C, rows, columns]. Two rows share what brings four taps together, where rows are long."""
    count, rows, columns = weight.shape
    together = 2 if stride == 1 and x.pitch >= PIXELS else 1
    quads = up(count, 4) // 4
    taps = np.pad(weight, ((0, 4 * quads - count), (0, 0), (0, 0)))
    moved = [
        np.pad(taps, ((0, 0), (r, 4 - rows - r), (0, 0))) for r in range(together)
    ]  # [C, 4 taps, columns]
    w = program.constant(
        np.stack(moved, 1).reshape(quads, 4, together, 4, columns).transpose(0, 2, 4, 1, 3)
    )  # [quads, rows of outputs, columns, 4 channels, 4 taps]
    lines = [*scale.preface(), f"for (long o = 0; o < {quads}; o++) {{",
             f"const int8_t *x = x0 + o * {x.plane};", f"int8_t *y = y0 + o * {y.plane};",
             "const sums bias = repeated(q), multiplier = repeated(q + 4);"]  # fmt: skip
    if not scale.alike:
        lines += scale.held("repeated(q + {})")
    lines += [f"const bytes w{r}_{c} = repeated((const int32_t *)(const void *)(w + {(r * columns + c) * 16}));"
              for r in range(together) for c in range(columns)]  # fmt: skip
    lines += _sliding(x, y, together, scale) if stride == 1 else _strided(x, y, rows, columns, scale)
    lines += [f"w += {16 * columns * together};", "q += 16;", "}"]
    name = program.function("depthwise", PARAMETERS, lines)
    program.call(f"{name}({start}, {y.at()}, {w}, {scale.place});", late=False)


def _zipped(x: Map, name: str, place: int, taps: int, kind: str = "") -> list[str]:
    rows = [f"{kind}load(x + {place + r * x.row})" for r in range(taps)] + [f"{kind}none()"] * (4 - taps)
    return [f"{kind}bytes {name}[4];", f"{kind}zip({', '.join(rows)}, {name});"]


def _sliding(x: Map, y: Map, together: int, scale: Scale) -> list[str]:
    """Stride 1: sum j of a register takes columns j to j + 2, the last of them from the pixels that follow."""
    across = max(1, y.pitch // PIXELS)
    every = masks(y)
    lines = []
    for times, turn in turns(every, whole(len(every), together * across)):
        rows = len(turn) // across
        kind = (
            kind_of(max(turn)) if y.pitch < PIXELS else ""
        )  # of longer rows the other half holds columns, too
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


def _strided(x: Map, y: Map, rows: int, columns: int, scale: Scale) -> list[str]:
    """Stride 2: 16 columns make eight pixels, those of even number and those of odd number apart."""
    across = x.pitch // PIXELS
    every = masks(y)
    lines = []
    for times, turn in turns(every, [1] * len(every)):
        lines.append(f"for (long k = 0; k < {times}; k++) {{")
        places = [2 * r * x.row for r in (0, 1)] if across == 1 else [0, 64]
        if across == 1 and kind_of(turn[0]):
            del places[1]  # one row is left
        for m, place in enumerate(places):
            lines += _zipped(x, f"z{m}", place, rows)
        for m in range(len(places)):
            after = f"z{m if across == 1 else 1 - m}"
            taken = [f"z{m}[{j}]" for j in range(4)] + [f"follow(z{m}[0], {after}[0])"]
            lines += [f"sums even{m}, odd{m};", "{"]
            lines += [f"const bytes c{j} = {column};" for j, column in enumerate(taken[: columns + 2])]
            named = [
                (name, [f"c{first + c}" for c in range(columns)]) for name, first in (("a0", 0), ("a1", 2))
            ]
            lines += [*_sums(x, named, 0, scale, ""), f"even{m} = a0;", f"odd{m} = a1;", "}", "}"]
        last = len(places) - 1
        value = scale.packed("", ["even0", "odd0", f"even{last}", f"odd{last}"], "merged", turn[0])
        step = 4 if across == 1 else 2
        lines += [f"store(y, {value});", f"x += {step * x.row};", "y += 64;", "}"]
    return lines


def _sums(x: Map, named: Sequence[tuple[str, Sequence[str]]], row: int, scale: Scale, kind: str) -> list[str]:
    """Opens a block with sums over the columns of a window, at the next scale."""
    lines = ["{", *(f"{kind}sums {name} = {part(kind, 'bias')};" for name, _ in named)]
    for c in range(len(named[0][1])):
        lines += [dot(x, kind, name, columns[c], f"w{row}_{c}") for name, columns in named]
    rest = [part(kind, name) for name in ("multiplier", "rounding", "shifts")]
    return lines + [scale.scaled(kind, name, *rest) for name, _ in named]
