"""The SIMD module's C: the layers of a graph as calls of the kernels in `simd.c`.

Maps lie as int8 in the order H, W, C; `flatten` puts a map into the order of the contract, C, H, W, so that every
vector lies as its numbers say. Memory costs a page nothing, so each activation has an array of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from math import prod

import numpy as np

from netsuke import packing
from netsuke.artifact import Artifact
from netsuke.export.c.source import check_supported
from netsuke.graph import INPUT, Graph, Op, Tensors, Type

BLOCK = 8  # channels that a kernel takes at once
TILE = 4  # pixels
SLACK = 16  # elements behind every array, which a block may read past its end
INT16_MAX = 2**15 - 1


def source(artifact: Artifact) -> str:
    """One C file with `init`, `run`, `image` and `logits`. Raises UnsupportedOp for a float graph."""
    check_supported(artifact.graph, "wasm")
    return _Writer(artifact.graph, artifact.tensors).text()


class _Writer:
    """Arrays, the lines of `init` and the lines of `run`, grown layer by layer."""

    def __init__(self, graph: Graph, tensors: Tensors):
        self.graph, self.tensors = graph, tensors
        self.types = graph.types(tensors)
        self.arrays: list[str] = []
        self.start: list[str] = []
        self.calls: list[str] = []
        self.names = {INPUT: "image"}
        self.patch = 0  # int16 elements of the largest tile of windows

    def text(self) -> str:
        result = self.types[self.graph.output]
        for i, op in enumerate(self.graph.ops):
            if op.kind == "flatten" and self._same_order(self.types[op.inputs[0]]):
                self.names[op.name] = self.names[op.inputs[0]]
                continue
            self.names[op.name] = f"x{i}"
            y = self.types[op.name]
            self.array("int32_t" if y.dtype == "i32" else "int8_t", f"x{i}", y.elements)
            EMIT[op.kind](self, op, f"x{i}")
        answer = self.names[self.graph.output]
        if len(result.shape) == 3:
            self.call("planes", answer, prod(result.shape[1:]), result.shape[0], "logits")
        else:
            self.call("copy" if result.dtype == "i32" else "widened", answer, result.elements, "logits")
        kernels = files(__package__).joinpath("simd.c").read_text(encoding="ascii")
        image = prod(self.graph.input_shape)
        return "\n".join(
            [
                kernels,
                f"uint8_t image[{image + SLACK}];",
                f"int32_t logits[{result.elements}];",
                f"static int16_t patch[{self.patch + SLACK}];",
                *self.arrays,
                _function("init", self.start),
                _function("run", self.calls),
            ]
        )

    def _same_order(self, x: Type) -> bool:
        """Whether H, W, C and C, H, W are one order: a vector, one channel, one pixel."""
        return len(x.shape) == 1 or x.shape[0] == 1 or prod(x.shape[1:]) == 1

    def array(self, ctype: str, name: str, elements: int) -> None:
        self.arrays.append(f"static {ctype} {name}[{elements + SLACK}];")

    def constant(self, name: str, data: np.ndarray) -> None:
        values = ", ".join(map(str, np.frombuffer(data.tobytes(), np.uint8).tolist()))
        self.arrays.append(f"static const uint8_t {name}[] = {{{values}}};")

    def call(self, kernel: str, *arguments: object) -> None:
        self.calls.append(f"{kernel}({', '.join(map(str, arguments))});")

    def x(self, op: Op, number: int = 0) -> str:
        return self.names[op.inputs[number]]

    def map(self, op: Op, number: int = 0) -> tuple[int, int, int]:
        """Channels, rows and columns of an input; a vector is one pixel."""
        shape = self.types[op.inputs[number]].shape
        return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)

    def pixels(self, op: Op) -> tuple[int, int]:
        channels, high, wide = self.map(op)
        return high * wide, channels

    def padded(self, op: Op, y: str, value: int) -> tuple[str, int]:
        """The input with its padding around it, and its columns."""
        channels, high, wide = self.map(op)
        padding = op.attrs.get("padding", (0, 0, 0, 0))
        if not any(padding):
            return self.x(op), wide
        top, left, bottom, right = padding
        self.array("int8_t", f"{y}_in", (top + high + bottom) * (left + wide + right) * channels)
        self.call("pad", self.x(op), high, wide, channels, top, left, bottom, right, value, f"{y}_in")
        return f"{y}_in", left + wide + right

    def window(self, op: Op, kernel: tuple[int, ...], wide: int, channels: int) -> str:
        high, columns = self.types[op.name].shape[1:]
        down, right = op.attrs.get("stride", (1, 1))
        return f"(Window){{{high}, {columns}, {kernel[0]}, {kernel[1]}, {down}, {right}, {wide}, {channels}}}"

    # --- weights ---

    def integers(self, name: str, values: np.ndarray, exponent: int = 0) -> str:
        """int32 values, stored as narrow as they are."""
        self.constant(f"{name}_stored", values)
        self.array("int32_t", name, -(-values.size // BLOCK) * BLOCK)
        sign = int(values.dtype.kind == "i")
        self.start.append(
            f"unpack_integers({name}_stored, {values.itemsize}, {sign}, {exponent}, {values.size}, {name});"
        )
        return name

    def scale(self, op: Op, y: str) -> str:
        """Bias, multiplier and shift; a layer of logits has a bias only."""
        bias = self.integers(f"{y}_bias", *packing.shortened(self.tensors[op.tensor("bias")]))
        if op.kind == "qlogits":
            return f"(Scale){{{bias}, 0, 0, 0, 0}}"
        m, shift = self.tensors[op.tensor("multiplier")], self.tensors[op.tensor("shift")]
        multiplier = self.integers(f"{y}_multiplier", m.astype(packing.storage_dtype(m)))
        uniform = bool((shift == shift.flat[0]).all())
        self.constant(f"{y}_shift", (shift[:1] if uniform else shift).astype(np.uint8))
        return (
            f"(Scale){{{bias}, {multiplier}, {y}_shift, {int(uniform)}, {-127 if op.attrs['signed'] else 0}}}"
        )

    def stream(self, op: Op, y: str, weight: np.ndarray) -> None:
        self.constant(f"{y}_stream", packing.pack(weight, op.attrs["bits"]))

    def unpacked(self, op: Op, y: str, weight: np.ndarray, name: str, kind: str = "products") -> str:
        """Weights [out, size] in the layout of `kind`, made by `init` from a packed stream of their own."""
        out, size = weight.shape
        blocks = -(-out // BLOCK)
        elements = blocks * BLOCK * (size if kind == "rows" else 2 * (-(-size // 2)))
        self.constant(f"{name}_stream", packing.pack(weight, op.attrs["bits"]))
        self.array("int16_t", name, elements)
        self.start.append(f"unpack_{kind}({name}_stream, {op.attrs['bits']}, {out}, {size}, {name});")
        return name


def _function(name: str, lines: list[str]) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f'__attribute__((export_name("{name}"))) void {name}(void)\n{{\n{body}}}\n'


# --- emitters ---------------------------------------------------------------------------------------


def _qconv2d(w: _Writer, op: Op, y: str) -> None:
    weight = w.tensors[op.tensor("weight")].transpose(0, 2, 3, 1)  # O, rows, columns, I: as a window lies
    out, rows, columns, depth = weight.shape
    channels, groups = w.map(op)[0], op.attrs["groups"]
    x, wide = w.padded(op, y, 0)
    window, scale = w.window(op, (rows, columns), wide, channels), w.scale(op, y)
    flat = weight.reshape(out, -1)
    if depth == 1 and out == groups:
        narrow = int(np.abs(flat.astype(np.int64)).sum(1).max()) * 127 <= INT16_MAX
        kernel = (
            ("depthwise_3x3" if (rows, columns) == (3, 3) else "depthwise_any") if narrow else "depthwise"
        )
        weights = w.unpacked(op, y, flat, f"{y}_weight", "rows" if narrow else "products")
        w.call(kernel, x, window, weights, scale, y)
        return
    each = out // groups
    w.patch = max(w.patch, TILE * (-(-flat.shape[1] // 2) * 2 + BLOCK))
    for g in range(groups):
        part = flat[g * each : (g + 1) * each]
        weights = w.unpacked(op, y, part, f"{y}_weight{g}")
        place = f"at({scale}, {g * each})" if g else scale
        w.call(
            "convolve",
            f"{x} + {g * depth}",
            window,
            depth,
            each,
            weights,
            place,
            f"{y} + {g * each}",
            out,
            "patch",
        )


def _dense(w: _Writer, op: Op, y: str) -> None:
    weight = w.tensors[op.tensor("weight")]
    out, size = weight.shape
    scale = w.scale(op, y)
    if len(w.types[op.name].shape) == 3:  # every pixel for itself
        window, weights = w.window(op, (1, 1), w.map(op)[2], size), w.unpacked(op, y, weight, f"{y}_weight")
        w.patch = max(w.patch, TILE * (-(-size // 2) * 2 + BLOCK))
        w.call("convolve", w.x(op), window, size, out, weights, scale, f"(int8_t *){y}", out, "patch")
        return
    if w.types[op.inputs[0]].dtype == "i32":
        w.stream(op, y, weight)
        w.call("dense_sums", w.x(op), size, out, f"{y}_stream", op.attrs["bits"], scale, y)
        return
    w.patch = max(w.patch, size + BLOCK)
    w.call("dense", w.x(op), size, out, w.unpacked(op, y, weight, f"{y}_weight"), scale, y, "patch")


def _maxpool(w: _Writer, op: Op, y: str) -> None:
    x, wide = w.padded(op, y, -128)
    w.call("maxpool", x, w.window(op, op.attrs["kernel"], wide, w.map(op)[0]), y)


def _qavgpool(w: _Writer, op: Op, y: str) -> None:
    x, wide = w.padded(op, y, 0)
    window = w.window(op, op.attrs["kernel"], wide, w.map(op)[0])
    w.call("avgpool", x, window, op.attrs["multiplier"], op.attrs["shift"], y)


def _qadd(w: _Writer, op: Op, y: str) -> None:
    low = -127 if op.attrs["signed"] else 0
    n = w.types[op.name].elements
    w.call("add", w.x(op), w.x(op, 1), n, *op.attrs["multipliers"], op.attrs["shift"], low, y)


def _qmul(w: _Writer, op: Op, y: str) -> None:
    x, gate = (w.types[name] for name in op.inputs)
    pixels, channels = w.pixels(op)
    each = gate.elements == x.elements
    steps = (channels, 1) if each else (0, 1) if len(gate.shape) < len(x.shape) else (1, 0)
    low = -127 if op.attrs["signed"] else 0
    w.call(
        "gate",
        w.x(op),
        w.x(op, 1),
        pixels,
        channels,
        *steps,
        op.attrs["multiplier"],
        op.attrs["shift"],
        low,
        y,
    )


def _lookup(w: _Writer, op: Op, y: str) -> None:
    table = w.tensors[op.tensor("table")]
    entries = table.shape[-1]
    w.constant(f"{y}_table", table.astype(np.int8))
    step, base = (entries if table.ndim > 1 else 0), (127 if entries == 255 else 0)
    w.call("lookup", w.x(op), *w.pixels(op), f"(const int8_t *){y}_table", step, base, y)


def _concat(w: _Writer, op: Op, y: str) -> None:
    at, total = 0, w.types[op.name].shape[0]
    for number in range(len(op.inputs)):
        channels, high, wide = w.map(op, number)
        w.call("move", w.x(op, number), channels, high * wide, channels, f"{y} + {at}", total)
        at += channels


def _slice(w: _Writer, op: Op, y: str) -> None:
    pixels, channels = w.pixels(op)
    start, stop = op.attrs["start"], op.attrs["stop"]
    w.call("move", f"{w.x(op)} + {start}", channels, pixels, stop - start, y, stop - start)


def _flatten(w: _Writer, op: Op, y: str) -> None:
    pixels, channels = w.pixels(op)
    w.call("shuffle", w.x(op), 1, pixels * channels, pixels, y)


def _on_pixels(kernel: str, *attributes: str) -> Callable[[_Writer, Op, str], None]:
    """A kernel of x, pixels, channels, these attributes and y."""
    return lambda w, op, y: w.call(kernel, w.x(op), *w.pixels(op), *(op.attrs[key] for key in attributes), y)


EMIT: dict[str, Callable[[_Writer, Op, str], None]] = {
    "halve": _on_pixels("halve"),
    "qconv2d": _qconv2d,
    "qdense": _dense,
    "qlogits": _dense,
    "maxpool": _maxpool,
    "qavgpool": _qavgpool,
    "sumpool": _on_pixels("sumpool"),
    "qadd": _qadd,
    "qmul": _qmul,
    "lookup": _lookup,
    "channelmax": _on_pixels("channelmax"),
    "qchannelmean": _on_pixels("channelmean", "multiplier", "shift"),
    "concat": _concat,
    "slice": _slice,
    "shuffle": _on_pixels("shuffle", "groups"),
    "flatten": _flatten,
}
