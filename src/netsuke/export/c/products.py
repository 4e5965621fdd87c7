"""Products of vectors with packed weights: which C functions a stage calls, and how a sum becomes an output."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from netsuke import packing
from netsuke.export.c import kernels, prelude, shifts, windows
from netsuke.export.c.constants import DEEP, arranged, blocked, ctype, uniform, zero
from netsuke.export.c.ops import Layer, indented, times
from netsuke.graph import Op, Tensors, Type
from netsuke.memory.stages import depthwise


@dataclass(frozen=True)
class Finish:
    """How a sum becomes an output: the C types of bias, multiplier and shifts, "" for what is not there."""

    out: str  # u7, s8 or i32
    bias: str
    multiplier: str = ""
    shifts: str = ""  # an array, a shift a channel
    exponent: bool = False  # zero bits of the biases that are not stored
    adds: bool = False  # products by shifting and adding
    planes: bool = False  # each output lies in a plane of its own

    @property
    def name(self) -> str:
        short = "_".join(t.removesuffix("_t").replace("uint", "u").replace("int", "s") for t in
                         (self.bias, self.multiplier, self.shifts) if t)  # fmt: skip
        return f"{self.out}_{short}{'_e' * self.exponent}{'_map' * self.planes}"

    def parameters(self) -> list[str]:
        found = [f"const {self.bias} *bias"] + ["int exponent"] * self.exponent
        if self.multiplier:
            found += [f"const {self.multiplier} *multiplier"]
            found += [f"const {self.shifts} *shift" if self.shifts else "int shift"]
        found += ["place plane"] * self.planes
        return [*found, "int32_t *out" if self.out == "i32" else "int8_t *out"]

    def store(self, acc: str, o: str) -> list[str]:
        bias = f"(int32_t)flash_{self.bias}(bias + {o})"
        if self.exponent:
            power = "(int32_t)1 << exponent"
            bias = f"product({bias}, {power})" if self.adds else f"{bias} * ({power})"
        if self.planes:  # outputs come in order
            return [f"*out = {acc} + {bias};", "out += plane;"]
        if self.out == "i32":
            return [f"out[{o}] = {acc} + {bias};"]
        shift = f"flash_{self.shifts}(shift + {o})" if self.shifts else "shift"
        m = f"(int32_t)flash_{self.multiplier}(multiplier + {o})"
        return [f"out[{o}] = requantize_{self.out}({acc} + {bias}, {m}, {shift});"]


def finish(op: Op, y: Type, tensors: Tensors, adds: bool) -> Finish:
    bias, exponent = packing.shortened(tensors[op.tensor("bias")])
    if op.kind == "qlogits":
        return Finish("i32", ctype(bias), exponent=exponent > 0, adds=adds, planes=len(y.shape) == 3)
    m, s = (tensors[op.tensor(role)] for role in ("multiplier", "shift"))
    m = m.astype(packing.storage_dtype(m))
    shifts = "" if uniform(s) else f"{packing.storage_dtype(s).name}_t"
    return Finish(y.dtype, ctype(bias), ctype(m), shifts, exponent > 0, adds)


@dataclass(frozen=True)
class Product:
    """A function of NAME.c: all outputs of a vector (`dense`), of words (`wide`) or of a depthwise window (`depth`)."""

    kind: str
    bits: int
    blocks: bool
    finish: Finish
    unit: int | None = None  # of the coded weights, which are decoded as they are needed
    many: int = 1  # vectors, one behind the other, of which the largest sums count

    @property
    def name(self) -> str:
        largest = f"_max{self.many}" if self.many > 1 else ""
        unit = "" if self.unit is None else f"_coded{self.unit}"
        return f"{self.kind}{'4' if self.blocks else '1'}_{self.bits}_{self.finish.name}{largest}{unit}"

    @property
    def zero(self) -> int:
        """What four codes side by side are too large by; ternary ones are taken apart where nothing is multiplied."""
        return 0 if self.finish.adds and self.bits == 2 else zero(self.bits)

    def text(self) -> str:
        x = {"dense": "const int8_t *x", "wide": "const int32_t *x", "depth": "const int8_t *const *tap"}[
            self.kind
        ]
        count = ["place count"] if self.many > 1 else []
        parameters = [x, "place n", *count, *self._weights(), "place outputs", *self.finish.parameters()]
        lines = [f"APART void {self.name}({', '.join(parameters)})", "{", "place o = 0;"]
        if self.unit is not None:
            lines += [f"const {kernels.stream(self.bits)} *const w = (const {kernels.stream(self.bits)} *)few;",
                      "coded s;", "begin_coded(&s, stream);"]  # fmt: skip
        lines += self._blocks() if self.blocks else []
        if self.unit is not None:
            return indented([*lines, *self._decoded_ones()])
        lines += ["place at = 0;"] if self.blocks else []
        call = {"dense": f"dot1_{self.bits}(x, w, at, n)", "wide": f"wide_{self.bits}(x, w, at, n)",
                "depth": f"depth1_{self.bits}(tap, o, w, at, n)"}[self.kind]  # fmt: skip
        lines += ["for (; o < outputs; o++, at += n) {"]
        if self.many == 1:
            lines += [f"const int32_t sum = {call};"]
        else:
            other = call.replace("(x,", "(v,")
            lines += ["const int8_t *v = x + n;", f"int32_t sum = {call};",
                      "for (place k = 1; k < count; k++, v += n) {", f"const int32_t other = {other};",
                      "sum = other > sum ? other : sum;", "}"]  # fmt: skip
        return indented([*lines, *self.finish.store("sum", "o"), "}", "}"])

    def _weights(self) -> list[str]:
        """Packed ones, and the number of the first where a group may begin within a byte; or a stream, and where to
        decode a few of its weights to.
        """
        if self.unit is not None:
            return ["const uint8_t *stream", "uint8_t *few"]
        return [f"const {kernels.stream(self.bits)} *w", *([] if self.blocks else ["place at"])]

    def _decoded_ones(self) -> list[str]:
        """The outputs that are left over, whose weights are decoded one output after another."""
        dot = {"dense": "dot1", "wide": "wide"}[self.kind]
        lines = [f"decode{self.unit}(&s, few, n);", f"const int32_t sum = {dot}_{self.bits}(x, w, 0, n);"]
        return ["for (; o < outputs; o++) {", *lines, *self.finish.store("sum", "o"), "}", "}"]

    def _blocks(self) -> list[str]:
        """Four outputs at a time; of several vectors, one behind the other, the largest sums."""
        if self.kind == "depth":
            lines = ["int32_t acc[4];", "w = depth4_{bits}(tap, o, w, n, acc);"]
        elif self.many > 1:
            lines = ["int32_t acc[4];", "const {stream} *next = dot4_{bits}(x, w, n, {base}, acc);",
                     "const int8_t *v = x + n;", "for (place k = 1; k < count; k++, v += n) {", "int32_t other[4];",
                     "next = dot4_{bits}(v, w, n, {bases}, other);",
                     *(f"acc[{i}] = other[{i}] > acc[{i}] ? other[{i}] : acc[{i}];" for i in range(4)),
                     "}", "w = next;"]  # fmt: skip
        elif self.unit is not None:
            lines = [
                "int32_t acc[4];",
                f"decode{self.unit}(&s, few, 4 * n);",
                "dot4_{bits}(x, w, n, {base}, acc);",
            ]
        else:
            lines = ["int32_t acc[4];", "w = dot4_{bits}(x, w, n, {base}, acc);"]
        start, base, bases = [], "0", "0"
        if self.kind == "dense" and self.zero:
            start, base = [f"const int32_t base = {self._offset('x')};"], "base"
            if self.many > 1:
                start = [f"int32_t base[{self.many}];", "const int8_t *v = x;",
                         "for (place k = 0; k < count; k++, v += n) {", f"base[k] = {self._offset('v')};",
                         "}"]  # fmt: skip
                base, bases = "base[0]", "base[k]"
        names = {"bits": self.bits, "stream": kernels.stream(self.bits), "base": base, "bases": bases}
        fours = [line.format(**names) if "_{" in line or "{stream}" in line else line for line in lines]
        ends = [line for k in range(4) for line in self.finish.store(f"acc[{k}]", f"(o + {k})")]
        return [*start, "for (; o + 4 <= outputs; o += 4) {", *fours, *ends, "}"]

    def _offset(self, x: str) -> str:
        """What comes off the sums of a vector's products with codes from 0 up."""
        total = f"total({x}, n)"
        return f"product({total}, {-self.zero})" if self.finish.adds else f"{-self.zero} * {total}"

    def needs(self) -> list[str]:
        """The kernels it calls, as text."""
        dots, depths, common = (shifts, shifts, shifts) if self.finish.adds else (kernels, windows, prelude)
        found = []
        if self.blocks and self.kind == "dense":
            found += [common.TOTAL] if self.zero else []
            found += [dots.dot4(self.bits)]
        if self.blocks and self.kind == "depth":
            found += [depths.depth4(self.bits)]
        one = {"dense": dots.dot1(self.bits), "wide": dots.dot1(self.bits, "int32_t"),
               "depth": depths.depth1(self.bits)}[self.kind]  # fmt: skip
        reads = [kernels.weight(self.bits)] if f"weight_{self.bits}(" in one else []
        requantize = [common.REQUANTIZE[self.finish.out]] if self.finish.out != "i32" else []
        return [*requantize, *reads, *found, one]


# --- weights ----------------------------------------------------------------------------------------


def reading(layer: Layer, op: Op) -> np.ndarray | None:
    """The weights of an op of this stage in the order in which C reads them."""
    weight = layer.tensors.get(op.tensor("weight"))
    if weight is None:
        return None
    bits = op.attrs["bits"]
    if weight.ndim == 2:
        flat = weight[:, layer.x.order()] if len(layer.y.shape) == 1 else weight
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
    ends = finish(op, layer.types[op.name], layer.tensors, layer.style.adds)
    if is_depth(layer, op):
        return Product("depth", bits, bits in DEEP and len(weight) >= 4, ends)
    if weight.ndim == 2:
        streamed = layer.coded is not None and op.name in layer.coded.scratch
        unit = layer.coded.unit(op.name) if layer.coded and streamed else None
        if layer.x.ctype == "int32_t":
            return Product("wide", bits, False, ends, unit)
        return Product("dense", bits, blocked(bits, *weight.shape), ends, unit)
    groups = op.attrs["groups"]
    return Product(
        "dense", bits, blocked(bits, len(weight) // groups, prod(weight.shape[1:]), groups), ends, many=many
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


def weights_of(layer: Layer, op: Op) -> str:
    """Where the weights of an op of this stage lie, packed or as a stream."""
    coded = layer.coded
    if coded is None or coded.unit(op.name) is None:
        return layer.array("weight", op)
    if op.name in coded.scratch:
        return f"coded_weights + {coded.at[op.name,]}"
    kind = "(const int8_t *)" if op.attrs["bits"] == 8 else ""
    return f"{kind}(weights + {coded.ram[op.name]})"


def call(layer: Layer, op: Op, x: str, n: int, outputs: int, out: str, group: int = 1) -> str:
    """A call for all outputs, or for those of group `g`."""
    bits, first = op.attrs["bits"], f" + {times('g', outputs)}" if group > 1 else ""
    array, tensors = (lambda role: layer.array(role, op)), layer.tensors
    weights = weights_of(layer, op)
    if product(layer, op).unit is not None:
        weights += ", (uint8_t *)scratch"
    elif not product(layer, op).blocks:
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
    y = layer.types[op.name].shape
    if op.kind == "qlogits":
        arguments += [str(y[1] * y[2])] if len(y) == 3 else []
    else:
        shift = tensors[op.tensor("shift")]
        arguments += [
            array("multiplier") + first,
            str(shift.flat[0]) if uniform(shift) else array("shift") + first,
        ]
    return f"{product(layer, op).name}({', '.join([*arguments, out + first])});"
