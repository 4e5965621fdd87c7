"""ONNX files: a float graph in float, an integer graph in exact integers; `docs/onnx.md` describes them.

Input `image`, uint8 [batch, C, H, W], preprocessing inside; output `logits`, float32 or int32 [batch, classes].
Integer activations travel as uint8: 0..127 with zero point 0, or -127..127 with zero point 128, since ONNX
Runtime is slow on int8 activations.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, GraphError, MissingExtra, OptionError, UnsupportedOp
from netsuke.graph import INPUT, Graph, Op, Tensors, Type

OPSET = 17
OPSETS = range(13, 22)  # 13 made the axes of ReduceSum an input; later than 21 is untried
BATCH = 256


def write(artifact: Artifact, folder: str | Path, name: str | None = None, *, opset: int = OPSET) -> Path:
    """Write `folder/NAME.onnx` in one step and return its path; NAME is by default the manifest's, or "model".

    A float graph agrees with `Artifact.logits` to 1e-4, an integer graph is bit-identical with it.
    Raises UnsupportedOp, GraphError, OptionError, MissingExtra, or ArtifactError where it cannot write.
    """
    path = Path(folder) / f"{name or artifact.manifest.get('name') or 'model'}.onnx"
    data = encode(artifact, opset=opset)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def run(path: str | Path, images: np.ndarray) -> np.ndarray:
    """Logits [n, classes] of raw uint8 images [n, C, H, W], by ONNX Runtime on one thread."""
    return predict(session(str(path)), images)


def encode(artifact: Artifact, *, opset: int = OPSET) -> bytes:
    """The ONNX file as bytes; raises as `write` does."""
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise MissingExtra("ONNX export needs onnx: pip install 'netsuke[onnx]'") from None
    if opset not in OPSETS:
        raise OptionError(f"opset must be {OPSETS[0]} to {OPSETS[-1]}; got {opset}")
    net = _Net(artifact.graph, artifact.tensors)
    net.emit()
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **attrs) for kind, inputs, output, attrs in net.nodes],
        "netsuke",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *artifact.graph.input_shape])],
        [
            helper.make_tensor_value_info(
                "logits",
                TensorProto.INT32 if artifact.graph.integer else TensorProto.FLOAT,
                ["batch", *net.types[artifact.graph.output].shape],
            )
        ],
        [numpy_helper.from_array(array, name) for name, array in net.constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    ir = helper.find_min_ir_version_for(imports)  # the oldest: older runtimes load the file too
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def session(source: str | bytes, *, threads: int = 1) -> Any:
    """An ONNX Runtime session of a path or of a file's bytes; raises MissingExtra or ArtifactError."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("this needs ONNX Runtime: pip install 'netsuke[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base but Exception
        what = source if isinstance(source, str) else "the model"
        raise ArtifactError(f"ONNX Runtime cannot load {what}: {str(error).splitlines()[0][:200]}") from None


def predict(session: Any, images: np.ndarray) -> np.ndarray:
    """Logits of raw uint8 images [n, C, H, W]; raises GraphError where they are of another shape or type."""
    shape = session.get_inputs()[0].shape[1:]
    if images.dtype != np.uint8 or list(images.shape[1:]) != shape:
        raise GraphError(
            f"needs uint8 images [n, {', '.join(map(str, shape))}]; got {images.dtype} {list(images.shape)}"
        )
    images = np.ascontiguousarray(images)
    parts = [
        session.run(None, {"image": images[i : i + BATCH]})[0] for i in range(0, max(len(images), 1), BATCH)
    ]
    return np.concatenate(parts)


# --- exact rounding ---------------------------------------------------------------------------------


def rounding_scales(
    lowest: np.ndarray, highest: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, *, signed: bool
) -> np.ndarray | None:
    """Scales, float32 [O], with which QLinearConv requantises exactly as the contract; None where there are none.

    `lowest` and `highest` bound each channel's accumulator; `multiplier` and `shift` are the contract's m and s.

    The contract gives `floor(acc * m / 2**s + 1/2)`, ONNX Runtime `rint(float32(acc) * scale)`: half to even,
    and two roundings in float32. Both are step functions that never fall as acc grows. So they agree on all of
    lowest..highest if and only if they agree at both ends of each of the contract's at most 255 plateaus, and that
    is what is computed here, channel by channel: a proof for every input, whatever m and s. (A sufficient
    condition in closed form, for unsigned outputs: |acc| < 2**24, s <= 14 and scale = m / 2**s * (1 + 2**-22). Sums
    beside a step j + 1/2 < 2**7 then stay 2**-14 below it, more than the 2**-15 + 2**-18 of scaling and rounding,
    and those on it rise above it by more than an ulp. The test below passes far more than that.)

    The scale is the middle of the interval in which every step falls where it must.
    """
    low = -127 if signed else 0
    m, s = multiplier.astype(np.int64)[:, None], shift.astype(np.int64)[:, None]
    first, last = lowest.astype(np.int64)[:, None], highest.astype(np.int64)[:, None]
    j = np.arange(low, 127)
    step = -(-((2 * j + 1) << s) // (2 * np.maximum(m, 1)))  # the smallest sum that gives j + 1
    reached = (step <= last) & (step > first)
    with np.errstate(divide="ignore"):
        at, below = np.abs((j + 0.5) / step), np.abs((j + 0.5) / (step - 1))
    exact = m / np.exp2(s)
    floor = np.where(reached, np.where(j < 0, below, at), 0).max(1, initial=0, keepdims=True)
    ceiling = np.where(reached, np.where(j < 0, at, below), np.inf).min(1, initial=np.inf, keepdims=True)
    margin = 2.0**-12  # where no step is near, stay near m / 2**s
    scale = np.maximum(floor, exact * (1 - margin)) + np.minimum(ceiling, exact * (1 + margin))
    scale = np.where(m == 0, 0, scale / 2).astype(np.float32)

    acc = np.clip(np.concatenate([step, step - 1, first, last], 1), first, last)
    want = np.clip((acc * m + ((np.int64(1) << s) >> 1)) >> s, low, 127)
    single = acc.astype(np.float32)
    rounded = np.rint(single * scale)
    fused = np.rint(single.astype(np.float64) * scale)  # where a runtime contracts product and rounding
    agrees = all((np.clip(got, low, 127) == want).all() for got in (rounded, fused))
    return scale[:, 0] if agrees else None


# --- the graph --------------------------------------------------------------------------------------


class _Net:
    """Nodes and constants, gathered op by op. Every value is called `op.role`, so no two names clash."""

    def __init__(self, graph: Graph, tensors: Tensors):
        self.graph, self.tensors = graph, tensors
        self.types = graph.types(tensors)
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.constants: dict[str, np.ndarray] = {}

    def emit(self) -> None:
        values = {INPUT: "image"}
        for op in self.graph.ops:
            emit = EMIT.get(op.kind)
            if emit is None:
                raise UnsupportedOp(f"onnx cannot emit {op.kind!r}; it knows {', '.join(sorted(EMIT))}")
            at = _At(self, op, [values[name] for name in op.inputs], [self.types[name] for name in op.inputs])
            values[op.name] = emit(at)
        last, type_ = self.graph.ops[-1], self.types[self.graph.output]
        if self.graph.integer and type_.dtype != "i32":
            _integers(_At(self, last, [values[last.name]], [type_]))
        elif type_.dtype == "u8":
            _At(self, last, [], []).add("Cast", [values[last.name]], "logits", to=_FLOAT)
        kind, inputs, _, attrs = self.nodes[-1]
        self.nodes[-1] = (kind, inputs, "logits", attrs)


_FLOAT, _UINT8, _INT32, _DOUBLE = 1, 2, 6, 11  # TensorProto's element types
_SCALARS: dict[str, Any] = {  # shared constants; their names have no dot, those of ops have one
    "one": np.float32(1),
    "zero": np.uint8(0),
    "middle": np.uint8(128),
    "bit": np.uint8(1),
    "top": np.uint8(127),
    "offset": np.int32(128),
}


class _At:
    """What the emitter of one op sees."""

    def __init__(self, net: _Net, op: Op, x: list[str], types: list[Type]):
        self.net, self.op, self.x, self.types = net, op, x, types

    def add(self, kind: str, inputs: list[str], role: str = "out", **attrs: Any) -> str:
        name = self.op.tensor(role)
        self.net.nodes.append((kind, inputs, name, attrs))
        return name

    def constant(self, role: str, value: Any) -> str:
        name = self.op.tensor(role)
        self.net.constants[name] = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        return name

    def scalar(self, name: str) -> str:
        self.net.constants[name] = np.asarray(_SCALARS[name])
        return name

    def weight(self, role: str) -> np.ndarray:
        return self.net.tensors[self.op.tensor(role)]

    def zero(self, type_: Type) -> str:
        """The zero point of an activation."""
        return self.scalar("middle" if type_.dtype == "s8" else "zero")


def _unary(kind: str, **attrs: Any) -> Callable[[_At], str]:
    return lambda at: at.add(kind, at.x, **attrs)


def _window(attrs: Mapping[str, Any]) -> dict[str, Any]:
    names = {"kernel": "kernel_shape", "stride": "strides", "padding": "pads", "groups": "group"}
    values = {names[key]: value for key, value in attrs.items() if key in names}
    return {key: value if key == "group" else list(value) for key, value in values.items()}


# --- float ------------------------------------------------------------------------------------------


def _normalize(at: _At) -> str:
    scales, offsets = (np.asarray(at.op.attrs[k], np.float32)[:, None, None] for k in ("scales", "offsets"))
    x = at.add("Cast", at.x, "float", to=_FLOAT)
    x = at.add("Mul", [x, at.constant("scales", scales)], "scaled")
    return at.add("Add", [x, at.constant("offsets", offsets)])


def _conv2d(at: _At) -> str:
    weights = [at.constant(role, at.weight(role)) for role in ("weight", "bias")]
    return at.add("Conv", [*at.x, *weights], **_window(at.op.attrs))


def _dense(at: _At) -> str:
    weights = [at.constant(role, at.weight(role)) for role in ("weight", "bias")]
    return at.add("Gemm", [*at.x, *weights], transB=1)


def _relu6(at: _At) -> str:
    return at.add("Clip", [*at.x, at.constant("min", np.float32(0)), at.constant("max", np.float32(6))])


def _globalavgpool(at: _At) -> str:
    return at.add("Flatten", [at.add("GlobalAveragePool", at.x, "map")], axis=1)


# --- integer ----------------------------------------------------------------------------------------


def _reach(weight: np.ndarray, bias: np.ndarray, x: Type) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest accumulator of each output channel, int64."""
    flat = weight.reshape(len(weight), -1).astype(np.int64)
    plus, minus = np.maximum(flat, 0).sum(1), np.maximum(-flat, 0).sum(1)
    return bias + plus * x.lo - minus * x.hi, bias + plus * x.hi - minus * x.lo


def _codes(at: _At, weight: np.ndarray) -> tuple[np.ndarray, np.integer]:
    """Weights as ONNX Runtime multiplies them without loss on every processor, and their zero point.

    Processors without VNNI add pairs of u8 * s8 products in 16 bits, saturating. Activations of 0..127 cannot reach
    that (2 * 127 * 127 < 2**15: hence the contract's 7 bits); -127..127 as 1..255 could, but u8 * u8 is
    widened first.
    """
    if at.types[0].dtype == "s8":
        return (weight.astype(np.int16) + 128).astype(np.uint8), np.uint8(128)
    return weight, np.int8(0)


def _convolution(
    at: _At, weight: np.ndarray, bias: np.ndarray, m: np.ndarray, s: np.ndarray, *, signed: bool
) -> str:
    """QLinearConv and a clip where that is provably exact, else ConvInteger and `_requantized`."""
    reach = _reach(weight, bias, at.types[0])
    scales = rounding_scales(*reach, m, s, signed=signed)
    codes, zero = _codes(at, weight)
    w, attrs = at.constant("weight", codes), _window(at.op.attrs)
    attrs.pop("kernel_shape", None)
    if scales is None:
        z = at.constant("weight_zero", zero)
        acc = at.add("ConvInteger", [at.x[0], w, at.zero(at.types[0]), z], "sum", **attrs)
        if bias.any():
            acc = at.add("Add", [acc, at.constant("bias", bias[:, None, None])], "biased")
        return _requantized(at, acc, reach, m, s, signed, axes=2)
    one, z = at.scalar("one"), at.constant("weight_zero", np.full(len(weight), zero))
    out = at.scalar("middle" if signed else "zero")
    inputs = [at.x[0], one, at.zero(at.types[0]), w, at.constant("scale", scales), z, one, out]
    y = at.add("QLinearConv", [*inputs, at.constant("bias", bias)], "wide", **attrs)
    return at.add("Clip", [y, at.scalar("bit")] if signed else [y, "", at.scalar("top")])


def _requantized(
    at: _At,
    acc: str,
    reach: tuple[np.ndarray, np.ndarray],
    m: np.ndarray,
    s: np.ndarray,
    signed: bool,
    axes: int = 0,
) -> str:
    """int32 sums to uint8 activations, exact by the width of the float type.

    acc * m is below 2**31 (`Graph.types` checks it), so that no float64 step rounds; nor does a float32 step while
    acc * m + 2**(s-1) stays below 2**24.
    """
    m, s = m.astype(np.int64), s.astype(np.int64)
    bound = np.maximum(np.abs(reach[0]), np.abs(reach[1])) * m + (1 << s >> 1)
    narrow = bound.max() < 1 << 24 and m.max() < 1 << 24
    dtype, code = (np.float32, _FLOAT) if narrow else (np.float64, _DOUBLE)
    offset = 128 if signed else 0
    factor = (m / np.exp2(s)).astype(dtype).reshape(-1, *[1] * axes)
    y = at.add("Cast", [acc], "cast", to=code)
    y = at.add("Mul", [y, at.constant("factor", factor)], "scaled")
    return _rounded(at, y, dtype(offset + 0.5), signed)


def _rounded(at: _At, y: str, half: Any, signed: bool) -> str:
    """Round half up, clip, cast; `half` is 1/2 and the zero point."""
    y = at.add("Floor", [at.add("Add", [y, at.constant("half", half)], "moved")], "floor")
    low, high = (1, 255) if signed else (0, 127)
    limits = [at.constant("min", type(half)(low)), at.constant("max", type(half)(high))]
    return at.add("Cast", [at.add("Clip", [y, *limits], "clip")], to=_UINT8)


def _qconv2d(at: _At) -> str:
    w = at.weight
    return _convolution(at, w("weight"), w("bias"), w("multiplier"), w("shift"), signed=at.op.attrs["signed"])


def _qavgpool(at: _At) -> str:
    a, channels = at.op.attrs, at.types[0].shape[0]
    at.op = Op("qavgpool", at.op.name, at.op.inputs, {**a, "groups": channels})
    ones, m, s = (np.full(channels, v, np.int32) for v in (1, a["multiplier"], a["shift"]))
    weight = np.ones((channels, 1, *a["kernel"]), np.int8)
    return _convolution(at, weight, 0 * ones, m, s, signed=at.types[0].dtype == "s8")


def _sums(at: _At) -> str:
    """int32 sums of a dense layer."""
    weight, x = at.weight("weight"), at.types[0]
    if x.dtype == "i32":  # the sums of a pooled map: as wide as int32, so int32 it is
        w = at.add("Cast", [at.constant("weight", weight.T)], "wide_weight", to=_INT32)
        acc = at.add("MatMul", [*at.x, w], "sum")
    else:
        codes, zero = _codes(at, weight.T)
        inputs = [*at.x, at.constant("weight", codes), at.zero(x), at.constant("weight_zero", zero)]
        acc = at.add("MatMulInteger", inputs, "sum")
    return at.add("Add", [acc, at.constant("bias", at.weight("bias"))], "biased")


def _qdense(at: _At) -> str:
    reach = _reach(at.weight("weight"), at.weight("bias"), at.types[0])
    m, s = at.weight("multiplier"), at.weight("shift")
    return _requantized(at, _sums(at), reach, m, s, at.op.attrs["signed"])


def _integers(at: _At) -> str:
    """Activations as int32, their zero point taken off."""
    y = at.add("Cast", at.x, "int32", to=_INT32)
    return at.add("Sub", [y, at.scalar("offset")], "signed") if at.types[0].dtype == "s8" else y


def _sumpool(at: _At) -> str:
    axes = at.constant("axes", np.array([2, 3], np.int64))
    return at.add("ReduceSum", [_integers(at), axes], keepdims=0)


def _qadd(at: _At) -> str:
    """Exact in float64: every term is a multiple of 2**-shift, and below 2**31."""
    terms, offset = [], 0.0
    for i, (x, type_, m) in enumerate(zip(at.x, at.types, at.op.attrs["multipliers"], strict=True)):
        factor = m / (1 << at.op.attrs["shift"])
        wide = at.add("Cast", [x], f"cast{i}", to=_DOUBLE)
        terms.append(at.add("Mul", [wide, at.constant(f"factor{i}", np.float64(factor))], f"scaled{i}"))
        offset -= 128 * factor if type_.dtype == "s8" else 0
    signed = at.op.attrs["signed"]
    half = np.float64(0.5 + offset + (128 if signed else 0))
    return _rounded(at, at.add("Add", terms, "sum"), half, signed)


EMIT: dict[str, Callable[[_At], str]] = {
    "normalize": _normalize,
    "conv2d": _conv2d,
    "dense": _dense,
    "relu": _unary("Relu"),
    "relu6": _relu6,
    "sigmoid": _unary("Sigmoid"),
    "tanh": _unary("Tanh"),
    "avgpool": lambda at: at.add("AveragePool", at.x, **_window(at.op.attrs)),
    "globalavgpool": _globalavgpool,
    "add": _unary("Add"),
    "maxpool": lambda at: at.add("MaxPool", at.x, **_window(at.op.attrs)),
    "flatten": _unary("Flatten", axis=1),
    "halve": lambda at: at.add("BitShift", [*at.x, at.scalar("bit")], direction="RIGHT"),
    "qconv2d": _qconv2d,
    "qdense": _qdense,
    "qlogits": _sums,
    "qavgpool": _qavgpool,
    "sumpool": _sumpool,
    "qadd": _qadd,
}
