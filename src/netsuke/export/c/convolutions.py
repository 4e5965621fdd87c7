"""Stages with weights: convolutions of every kind, with what goes along with them, and dense layers."""

from __future__ import annotations

from math import prod

from netsuke.export.c.ops import Layer, at_row, backwards, each, requantize, started, times
from netsuke.export.c.products import call, is_depth
from netsuke.graph import Op
from netsuke.memory.stages import Window, gathered, window, words


def dense(layer: Layer) -> list[str]:
    """qdense and qlogits; a row of a map of logits, pixel by pixel."""
    out, size = layer.tensors[layer.op.tensor("weight")].shape
    if len(layer.y.shape) == 3:
        wide = layer.y.shape[2]
        start = [f"const int8_t *x = {at_row('in', layer.rings[0], 'y')};", f"out += {times('y', wide)};"]
        return [
            *start,
            each("k", wide),
            call(layer, layer.op, "x", size, out, "out"),
            f"x += {size};",
            "out++;",
            "}",
        ]
    return [call(layer, layer.op, "in", size, out, "out")]


def convolution(layer: Layer) -> list[str]:
    """A row, pixel by pixel; a maximum over pixels that are not kept, or a sum of them, where a pool follows."""
    after, y = layer.stage.after, layer.y
    channels = layer.types[layer.op.name].shape[0]
    wide = y.shape[2] if len(y.shape) == 3 else layer.types[layer.op.name].shape[2]
    lines = _lines(layer)
    if after and after.kind == "sumpool":
        lines += started(channels)
        body = [f"int8_t *const pixel = scratch + {part(layer, 'pixel')};", *_pixel(layer, "x", "0", "pixel")]
        body += [each("c", channels), "out[c] += pixel[c];", "}"]
    else:
        lines.append(f"int8_t *const to = {at_row('out', layer.ring, 'y')};")
        body = _stored(layer, channels)
    return [*lines, backwards("x", wide) if layer.reversed else each("x", wide), *body, "}"]


def _stored(layer: Layer, channels: int) -> list[str]:
    """What is done for one pixel of a map."""
    after, target = layer.stage.after, f"to + {times('x', channels)}"
    if after is None:
        return _pixel(layer, "x", "0", target)
    if after.kind == "qadd":
        return _added(layer, after, channels, target)
    return _largest(layer, after, target)


def _largest(layer: Layer, pool: Op, target: str) -> list[str]:
    """Collect what is multiplied with for each pixel of the pool, then compute all outputs at once."""
    (high, wide), attrs = layer.types[layer.op.name].shape[1:], pool.attrs
    top, left, bottom, right = attrs.get("padding", (0, 0, 0, 0))
    lines = ["place count = 0;"]
    for name, outer, side, stride, before, behind, size in (
        ("py", "y", attrs["kernel"][0], attrs["stride"][0], top, bottom, high),
        ("px", "x", attrs["kernel"][1], attrs["stride"][1], left, right, wide),
    ):
        inner = {"py": "cy", "px": "cx"}[name]
        origin = f"{times(outer, stride)} + {name}" + (f" - {before}" if before else "")
        lines.append(each(name, side))
        if before or behind or name == "px":
            lines.append(f"const place {inner} = {origin};")
        if before or behind:
            lines += [f"if ({inner} < 0 || {inner} >= {size}) {{", "continue;", "}"]
    row = times("py", window(layer.op, 0, layer.tensors).stride * window(layer.stage.first, 0, layer.tensors).stride
                if layer.stage.before else window(layer.op, 0, layer.tensors).stride)  # fmt: skip
    weight, out = layer.tensors[layer.op.tensor("weight")], len(layer.tensors[layer.op.tensor("weight")])
    n = prod(weight.shape[1:])
    name = "depth" if layer.stage.before else "patch"
    if layer.stage.before:
        lines += _depth(layer, layer.stage.before, "cx", row, f"scratch + {part(layer, name)} + count * {n}")
    else:
        lines += _gathered(layer, layer.op, "cx", row, f" + count * {n}")
    return [
        *lines,
        "count++;",
        "}",
        "}",
        call(layer, layer.op, f"scratch + {part(layer, name)}", n, out, target),
    ]


def _added(layer: Layer, add: Op, channels: int, target: str) -> list[str]:
    """The residual: the pixel that the window lies around is added to what came of it."""
    scratch = f"scratch + {part(layer, 'pixel')}"
    lines = [f"int8_t *const pixel = {scratch};", *_pixel(layer, "x", "0", "pixel")]
    centre = -_whole(layer).start
    ma, mb = add.attrs["multipliers"]
    if add.inputs[0] == layer.op.name:
        ma, mb = mb, ma
    total = f"{layer.product('from[c]', ma)} + {layer.product('pixel[c]', mb)}"
    value = f"{requantize(layer.y)}({total}, 1, {add.attrs['shift']})"
    lines += [f"const int8_t *const from = line[{centre}] + {times('x', channels)};"]
    return [*lines, each("c", channels), f"to[{times('x', channels)} + c] = {value};", "}"]


def _whole(layer: Layer) -> Window:
    """The rows of the input behind one row of the output."""
    whole = layer.stage.windows[0]
    assert whole is not None, "a convolution reads a map"
    return whole


def _lines(layer: Layer) -> list[str]:
    """`line[k]` points at row k of the window, or is null where that lies in the padding."""
    whole, high = _whole(layer), layer.shapes[0][1]
    rows = whole.stop - whole.start
    lines = []
    if "zeros" in layer.stage.scratch:
        lines.append(f"clear(scratch + {part(layer, 'zeros')}, {layer.stage.scratch['zeros']});")
    origin = times("y", whole.stride) + (f" - {-whole.start}" if whole.start < 0 else "")
    last = (layer.stage.steps - 1) * whole.stride + whole.stop
    if rows == 1 and whole.start == 0 and last <= high:
        return [*lines, f"const int8_t *const line[1] = {{{at_row('in', layer.rings[0], origin)}}};"]
    lines += [f"const int8_t *line[{rows}];", each("k", rows), f"const place row = {origin} + k;"]
    tests = ["row < 0"] * (whole.start < 0) + [f"row >= {high}"] * (last > high)
    value = at_row("in", layer.rings[0], "row")
    guard = f"{' || '.join(tests)} ? 0 : " if tests else ""
    return [*lines, f"line[k] = {guard}{value};", "}"]


def _pixel(layer: Layer, cx: str, row: str, out: str) -> list[str]:
    """Compute the pixel in column `cx` of the convolution to `out`; its window begins at `line[row]`."""
    op, before = layer.op, layer.stage.before
    weight = layer.tensors[op.tensor("weight")]
    if before:
        depth = f"scratch + {part(layer, 'depth')}"
        taps = _depth(layer, before, cx, row, depth)
        return [*taps, call(layer, op, depth, weight.shape[1], len(weight), out)]
    if is_depth(layer, op):
        return _depth(layer, op, cx, row, out)
    n, groups = prod(weight.shape[1:]), op.attrs["groups"]
    if not gathered(op, layer.tensors):
        step = op.attrs["stride"][1] * weight.shape[1]
        return [call(layer, op, f"line[{row}] + {times(cx, step)}", n, len(weight), out)]
    patch = f"scratch + {part(layer, 'patch')}"
    product = call(layer, op, patch, n, len(weight) // groups, out, groups)
    if groups == 1:
        return [*_gathered(layer, op, cx, row), product]
    return [each("g", groups), *_gathered(layer, op, cx, row), product, "}"]


def _depth(layer: Layer, op: Op, cx: str, row: str, out: str) -> list[str]:
    """Pointers to the pixels of the window, those of the padding to zeros; then all channels."""
    _, _, high, wide = layer.tensors[op.tensor("weight")].shape
    channels, _, size = layer.shapes[0]
    taps = high * wide
    move = window(op, 1, layer.tensors)
    origin = times(cx, move.stride) + (f" - {-move.start}" if move.start < 0 else "")
    base = f"{row} + " if row != "0" else ""
    lines = [f"const int8_t *tap[{taps}];", f"const place left = {origin};", each("ky", high)]
    lines += [f"const int8_t *const from = line[{base}ky];", each("kx", wide)]
    place = f"from + (left + kx) * {channels}"
    columns = layer.types[op.name].shape[2]
    tests = ["from == 0"] * (window(op, 0, layer.tensors).start < 0 or _below(layer, op))
    tests += ["left + kx < 0"] * (move.start < 0)
    tests += [f"left + kx >= {size}"] * ((columns - 1) * move.stride + move.stop > size)
    zeros = f"scratch + {part(layer, 'zeros')}" if tests else ""
    value = f"{' || '.join(tests)} ? {zeros} : {place}" if tests else place
    lines += [f"tap[{times('ky', wide)} + kx] = {value};", "}", "}"]
    return [*lines, call(layer, op, "tap", taps, channels, out)]


def _below(layer: Layer, op: Op) -> bool:
    """Whether a window reaches below the map."""
    move = window(op, 0, layer.tensors)
    return (layer.types[op.name].shape[1] - 1) * move.stride + move.stop > layer.shapes[0][1]


def _gathered(layer: Layer, op: Op, cx: str, row: str, place: str = "") -> list[str]:
    """Copy the window, or the channels of group `g` of it, into one piece."""
    _, depth, high, wide = layer.tensors[op.tensor("weight")].shape
    channels, _, size = layer.shapes[0]
    across = window(op, 1, layer.tensors)
    origin = times(cx, across.stride) + (f" - {-across.start}" if across.start < 0 else "")
    base = f"{row} + " if row != "0" else ""
    columns = layer.types[op.name].shape[2]
    cut = across.start < 0 or (columns - 1) * across.stride + across.stop > size
    outside = window(op, 0, layer.tensors).start < 0 or _below(layer, op)
    lines = [f"int8_t *p = scratch + {part(layer, 'patch')}{place};", f"const place left = {origin};"]
    lines += [each("ky", high), f"const int8_t *const from = line[{base}ky];"]
    if depth == channels and not cut:
        return [*lines, *_moved(outside, "from == 0", f"from + {times('left', channels)}", wide * depth), "}"]
    group = f" + {times('g', depth)}" if depth < channels else ""
    tests = ["from == 0"] * outside + (["left + kx < 0", f"left + kx >= {size}"] if cut else [])
    lines.append(each("kx", wide))
    lines += _moved(bool(tests), " || ".join(tests), f"from + (left + kx) * {channels}{group}", depth)
    return [*lines, "}", "}"]


def _moved(tested: bool, test: str, source: str, count: int) -> list[str]:
    """Append `count` values, or zeros, to the piece."""
    if count == 1:
        return [f"*p++ = {f'{test} ? 0 : ' if tested else ''}*({source});"]
    copy = [f"copy(p, {source}, {count});"]
    if tested:
        copy = [f"if ({test}) {{", f"clear(p, {count});", "} else {", *copy, "}"]
    return [*copy, f"p += {count};"]


def part(layer: Layer, name: str) -> int:
    """Where a part of the stage's scratch lies."""
    parts = list(layer.stage.scratch)
    return sum(words(layer.stage.scratch[p]) for p in parts[: parts.index(name)])


WEIGHTED = {"qconv2d": convolution, "qdense": dense, "qlogits": dense}
