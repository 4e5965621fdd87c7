"""A convolution of the image's one channel, to planes: groups of four taps serve all channels of 16 pixels.

Each group is brought together once for a register of pixels. A max pool of 2x2 behind it is computed with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsuke.export.c.fast.layout import Map
from netsuke.export.c.fast.planes import (
    PARAMETERS,
    Scale,
    biased,
    four_names,
    masks,
    over_quads,
    quad_weights,
    scale_of,
    scaled,
    turns,
    whole,
)  # fmt: skip
from netsuke.export.c.fast.program import Program
from netsuke.export.c.fast.routes import PIXELS
from netsuke.graph import Op, Tensors

Group = list[tuple[int, int] | None]  # row and column of four taps


def stem(program: Program, op: Op, x: Map, y: Map, tensors: Tensors, pooled: bool = False) -> None:
    """The convolution, and the largest of four neighbours where they are pooled."""
    weight, (stride, _) = tensors[op.tensor("weight")], op.attrs["stride"]
    out, _, rows, columns = weight.shape
    groups = _groups(rows, columns)
    taps = np.pad(
        weight.reshape(out, -1), ((0, 0), (0, 1))
    )  # the last one is zero, for groups that are not full
    order = [-1 if tap is None else tap[0] * columns + tap[1] for group in groups for tap in group]
    w = program.constant(quad_weights(taps[:, order]))
    scale, every, across = scale_of(program, op, tensors, x), masks(y), y.pitch // PIXELS
    lines = [*scale.preface(), "const int8_t *x = x0;", "int8_t *y = y0;"]
    for times, turn in turns(every, whole(len(every), _height(groups, across, pooled))):
        places = _places(x, stride, len(turn), across, pooled)

        def body(channels: int, turn: Sequence[int] = turn, count: int = len(places)) -> list[str]:
            results = _pooled if pooled else _stored
            return ["const int32_t *const q = c;", f"int8_t *const to = y + o * {y.plane};",
                    *_products(groups, count, channels), *results(scale, turn, channels)]  # fmt: skip

        brought = [
            line for r, place in enumerate(places) for line in _brought(groups, r, place, x.row, stride)
        ]
        ahead = len(turn) // across * stride * (2 if pooled else 1) * x.row
        lines += [f"for (long k = 0; k < {times}; k++) {{", *brought, "const int8_t *u = w;", "const int32_t *c = q;",
                  *over_quads(out, body, (f"u += {16 * len(groups)};", "c += 16;")),
                  f"x += {ahead};", f"y += {64 * len(turn)};", "}"]  # fmt: skip
    name = program.function("stem", PARAMETERS, lines)
    top, left, *_ = op.attrs["padding"]
    program.call(f"{name}({x.at(-top, -left)}, {y.at()}, {w}, {scale.place});", late=False)


def _height(groups: Sequence[Group], across: int, pooled: bool) -> int:
    """Registers of outputs of a turn: as many as the groups of taps leave room for, and whole rows."""
    return across if pooled or len(groups) > 8 else max(across, 2)


def _places(x: Map, stride: int, count: int, across: int, pooled: bool) -> list[int]:
    """Beside `x`, where the window of the first pixel of every register starts; of four registers that are pooled."""
    place = [(r // across, r % across) for r in range(count)]
    if pooled:
        place = [(2 * r + i, 2 * m + j) for r, m in place for j in (0, 1) for i in (0, 1)]
    return [stride * (r * x.row + m * PIXELS) for r, m in place]


def _products(groups: Sequence[Group], count: int, channels: int) -> list[str]:
    lines = biased([""] * count, channels)
    for g in range(len(groups)):
        for c in range(channels):
            lines.append(f"{{ const bytes v = four(u + {16 * g + 4 * c});")
            lines += [f"a{r}_{c} = dot(a{r}_{c}, x{r}_{g}, v);" for r in range(count)]
            lines.append("}")
    return lines


def _stored(scale: Scale, turn: Sequence[int], channels: int) -> list[str]:
    lines = []
    for r, mask in enumerate(turn):
        lines += [scaled(scale, "", f"a{r}_{c}", c) for c in range(channels)]
        lines.append(
            f"store(to + {64 * r}, {scale.packed('', four_names('', r, channels), 'turned', mask)});"
        )
    return lines


def _pooled(scale: Scale, turn: Sequence[int], channels: int) -> list[str]:
    """The larger of two rows while they are sums, then of two columns."""
    lines = []
    for r in range(0, 4 * len(turn), 2):
        lines += [f"a{r}_{c} = larger(a{r}_{c}, a{r + 1}_{c});" for c in range(channels)]
        lines += [scaled(scale, "", f"a{r}_{c}", c) for c in range(channels)]
        value = scale.packed("", four_names("", r, channels), "turned", (1 << 64) - 1)
        lines.append(f"const bytes v{r} = {value};")
    for i, mask in enumerate(turn):
        pixels = sum(1 << p for p in range(PIXELS) if mask >> 4 * p & 1)
        lines.append(f"store(to + {64 * i}, paired(v{4 * i}, v{4 * i + 2}, {pixels:#x}));")
    return lines


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
