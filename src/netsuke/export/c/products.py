"""Stages with weights: convolutions of every kind, with what goes along with them, and dense layers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from netsuke import packing
from netsuke.export.c import kernels
from netsuke.export.c.constants import DEEP, arranged, blocked, ctype, uniform, zero
from netsuke.export.c.ops import Layer, at_row, backwards, each, indented, requantize, started, times
from netsuke.graph import Op, Tensors, Type
from netsuke.memory.stages import Window, depthwise, gathered, window, words


@dataclass(frozen=True)
class Finish:
    """How a sum becomes an output: the C types of bias, multiplier and shifts, "" for what is not there."""

    out: str  # u7, s8 or i32
    bias: str
    multiplier: str = ""
    shifts: str = ""  # an array, a shift a channel
    exponent: bool = False  # zero bits of the biases that are not stored

    @property
    def name(self) -> str:
        short = "_".join(t.removesuffix("_t").replace("uint", "u").replace("int", "s") for t in
                         (self.bias, self.multiplier, self.shifts) if t)  # fmt: skip
        return f"{self.out}_{short}{'_e' * self.exponent}"

    def parameters(self) -> list[str]:
        found = [f"const {self.bias} *bias"] + ["int exponent"] * self.exponent
        if self.multiplier:
            found += [f"const {self.multiplier} *multiplier"]
            found += [f"const {self.shifts} *shift" if self.shifts else "int shift"]
        return [*found, "int32_t *out" if self.out == "i32" else "int8_t *out"]

    def store(self, acc: str, o: str) -> list[str]:
        bias = f"(int32_t)flash_{self.bias}(bias + {o})"
        bias += " * ((int32_t)1 << exponent)" if self.exponent else ""
        if self.out == "i32":
            return [f"out[{o}] = {acc} + {bias};"]
        shift = f"flash_{self.shifts}(shift + {o})" if self.shifts else "shift"
        m = f"(int32_t)flash_{self.multiplier}(multiplier + {o})"
        return [f"out[{o}] = requantize_{self.out}({acc} + {bias}, {m}, {shift});"]


def finish(op: Op, y: Type, tensors: Tensors) -> Finish:
    bias, exponent = packing.shortened(tensors[op.tensor("bias")])
    if op.kind == "qlogits":
        return Finish("i32", ctype(bias), exponent=exponent > 0)
    m, s = (tensors[op.tensor(role)] for role in ("multiplier", "shift"))
    m = m.astype(packing.storage_dtype(m))
    shifts = "" if uniform(s) else f"{packing.storage_dtype(s).name}_t"
    return Finish(y.dtype, ctype(bias), ctype(m), shifts, exponent > 0)


@dataclass(frozen=True)
class Product:
    """A function of NAME.c: all outputs of a vector (`dense`), of words (`wide`) or of a depthwise window (`depth`)."""

    kind: str
    bits: int
    blocks: bool
    finish: Finish
    many: int = 1  # vectors, one behind the other, of which the largest sums count

    @property
    def name(self) -> str:
        largest = f"_max{self.many}" if self.many > 1 else ""
        return f"{self.kind}{'4' if self.blocks else '1'}_{self.bits}_{self.finish.name}{largest}"

    def text(self) -> str:
        x = {"dense": "const int8_t *x", "wide": "const int32_t *x", "depth": "const int8_t *const *tap"}[
            self.kind
        ]
        stream = kernels.stream(self.bits)
        first = (
            [] if self.blocks else ["place at"]
        )  # the number of the first weight: a group may begin within a byte
        count = ["place count"] if self.many > 1 else []
        parameters = [
            x,
            "place n",
            *count,
            f"const {stream} *w",
            *first,
            "place outputs",
            *self.finish.parameters(),
        ]
        lines = [f"APART void {self.name}({', '.join(parameters)})", "{", "place o = 0;"]
        lines += [*self._blocks(), "place at = 0;"] if self.blocks else []
        call = {"dense": f"dot1_{self.bits}(x, w, at, n)", "wide": f"wide_{self.bits}(x, w, at, n)",
                "depth": f"depth1_{self.bits}(tap, o, w, at, n)"}[self.kind]  # fmt: skip
        lines += ["for (; o < outputs; o++, at += n) {"]
        if self.many == 1:
            lines += [f"const int32_t sum = {call};"]
        else:
            other = call.replace("(x,", "(x + k * n,")
            lines += [f"int32_t sum = {call};", "for (place k = 1; k < count; k++) {",
                      f"const int32_t other = {other};", "sum = other > sum ? other : sum;", "}"]  # fmt: skip
        return indented([*lines, *self.finish.store("sum", "o"), "}", "}"])

    def _blocks(self) -> list[str]:
        """Four outputs at a time; of several vectors, one behind the other, the largest sums."""
        if self.kind == "depth":
            lines = ["int32_t acc[4];", "w = depth4_{bits}(tap, o, w, n, acc);"]
        elif self.many > 1:
            lines = ["int32_t acc[4];", "const {stream} *next = dot4_{bits}(x, w, n, {base}, acc);",
                     "for (place k = 1; k < count; k++) {", "int32_t other[4];",
                     "next = dot4_{bits}(x + k * n, w, n, {bases}, other);",
                     *(f"acc[{i}] = other[{i}] > acc[{i}] ? other[{i}] : acc[{i}];" for i in range(4)),
                     "}", "w = next;"]  # fmt: skip
        else:
            lines = ["int32_t acc[4];", "w = dot4_{bits}(x, w, n, {base}, acc);"]
        start, base, bases = [], "0", "0"
        if self.kind == "dense" and zero(self.bits):
            start, base = [f"const int32_t base = {-zero(self.bits)} * total(x, n);"], "base"
            if self.many > 1:
                start = [f"int32_t base[{self.many}];", "for (place k = 0; k < count; k++) {",
                         f"base[k] = {-zero(self.bits)} * total(x + k * n, n);", "}"]  # fmt: skip
                base, bases = "base[0]", "base[k]"
        names = {"bits": self.bits, "stream": kernels.stream(self.bits), "base": base, "bases": bases}
        fours = [line.format(**names) if "_{" in line or "{stream}" in line else line for line in lines]
        ends = [line for k in range(4) for line in self.finish.store(f"acc[{k}]", f"(o + {k})")]
        return [*start, "for (; o + 4 <= outputs; o += 4) {", *fours, *ends, "}"]

    def needs(self) -> list[str]:
        """The kernels it calls, as text."""
        found = []
        if self.blocks and self.kind == "dense":
            found += [kernels.TOTAL] if zero(self.bits) else []
            found += [kernels.dot4(self.bits)]
        if self.blocks and self.kind == "depth":
            found += [kernels.depth4(self.bits)]
        one = {"dense": kernels.dot1(self.bits), "wide": kernels.dot1(self.bits, "int32_t"),
               "depth": kernels.depth1(self.bits)}[self.kind]  # fmt: skip
        reads = [kernels.weight(self.bits)] if f"weight_{self.bits}(" in one else []
        requantize = [kernels.REQUANTIZE[self.finish.out]] if self.finish.out != "i32" else []
        return [*requantize, *reads, *found, one]


# --- weights ----------------------------------------------------------------------------------------


def reading(layer: Layer, op: Op) -> np.ndarray | None:
    """The weights of an op of this stage in the order in which C reads them."""
    weight = layer.tensors.get(op.tensor("weight"))
    if weight is None:
        return None
    bits = op.attrs["bits"]
    if weight.ndim == 2:
        flat = weight[:, layer.x.order()]
        return flat.reshape(-1) if layer.x.ctype == "int32_t" else arranged(flat, bits)
    flat = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
    if is_depth(layer, op):
        return arranged(flat, bits, depth=True)
    return arranged(flat, bits, groups=op.attrs["groups"])


def is_depth(layer: Layer, op: Op) -> bool:
    return op.kind == "qconv2d" and depthwise(op, layer.types[op.inputs[0]], layer.types[op.name])


def product(layer: Layer, op: Op) -> Product:
    """The function that computes an op of this stage."""
    weight, bits = layer.tensors[op.tensor("weight")], op.attrs["bits"]
    many = pooled(layer) if op is layer.op else 1
    ends = finish(op, layer.types[op.name], layer.tensors)
    if is_depth(layer, op):
        return Product("depth", bits, bits in DEEP and len(weight) >= 4, ends)
    if weight.ndim == 2:
        if layer.x.ctype == "int32_t":
            return Product("wide", bits, False, ends)
        return Product("dense", bits, blocked(bits, *weight.shape), ends)
    groups = op.attrs["groups"]
    return Product(
        "dense", bits, blocked(bits, len(weight) // groups, prod(weight.shape[1:]), groups), ends, many
    )


def pooled(layer: Layer) -> int:
    """How many pixels of the convolution a pixel of the stage is the largest of."""
    after = layer.stage.after
    return prod(after.attrs["kernel"]) if after and after.kind == "maxpool" else 1


def products(layer: Layer) -> list[Product]:
    return [
        product(layer, op)
        for op in (layer.stage.before, layer.op)
        if op and op.tensor("weight") in layer.tensors
    ]


def _call(layer: Layer, op: Op, x: str, n: int, outputs: int, out: str, group: int = 1) -> str:
    """A call for all outputs, or for those of group `g`."""
    bits, first = op.attrs["bits"], f" + {times('g', outputs)}" if group > 1 else ""
    array, tensors = (lambda role: layer.array(role, op)), layer.tensors
    weights = array("weight")
    if not product(layer, op).blocks:
        weights += f", {times('g', outputs * n) if group > 1 else 0}"
    elif group > 1:
        weights += f" + {times('g', outputs * n * bits // 8)}"
    arguments = [
        x,
        str(n),
        *(["count"] if product(layer, op).many > 1 else []),
        weights,
        str(outputs),
        array("bias") + first,
    ]
    exponent = packing.shortened(tensors[op.tensor("bias")])[1]
    arguments += [str(exponent)] if exponent else []
    if op.kind != "qlogits":
        shift = tensors[op.tensor("shift")]
        arguments += [
            array("multiplier") + first,
            str(shift.flat[0]) if uniform(shift) else array("shift") + first,
        ]
    return f"{product(layer, op).name}({', '.join([*arguments, out + first])});"


# --- emitters ---------------------------------------------------------------------------------------


def dense(layer: Layer) -> list[str]:
    """qdense and qlogits."""
    out, size = layer.tensors[layer.op.tensor("weight")].shape
    return [_call(layer, layer.op, "in", size, out, "out")]


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
        _call(layer, layer.op, f"scratch + {part(layer, name)}", n, out, target),
    ]


def _added(layer: Layer, add: Op, channels: int, target: str) -> list[str]:
    """The residual: the pixel that the window lies around is added to what came of it."""
    scratch = f"scratch + {part(layer, 'pixel')}"
    lines = [f"int8_t *const pixel = {scratch};", *_pixel(layer, "x", "0", "pixel")]
    centre = -_whole(layer).start
    ma, mb = add.attrs["multipliers"]
    if add.inputs[0] == layer.op.name:
        ma, mb = mb, ma
    total = f"(int32_t)from[c] * {ma} + (int32_t)pixel[c] * {mb}"
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
        return [*taps, _call(layer, op, depth, weight.shape[1], len(weight), out)]
    if is_depth(layer, op):
        return _depth(layer, op, cx, row, out)
    n, groups = prod(weight.shape[1:]), op.attrs["groups"]
    if not gathered(op, layer.tensors):
        step = op.attrs["stride"][1] * weight.shape[1]
        return [_call(layer, op, f"line[{row}] + {times(cx, step)}", n, len(weight), out)]
    patch = f"scratch + {part(layer, 'patch')}"
    call = _call(layer, op, patch, n, len(weight) // groups, out, groups)
    if groups == 1:
        return [*_gathered(layer, op, cx, row), call]
    return [each("g", groups), *_gathered(layer, op, cx, row), call, "}"]


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
    return [*lines, _call(layer, op, "tap", taps, channels, out)]


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
