"""A foreign ONNX classifier as an Artifact: `netsuke import model.onnx`.

Batch normalisation and constant arithmetic fold into the layer before them, the final softmax and dropout go, and
the pixel scaling that the model was trained with becomes the graph's `normalize`. Layouts N, C, H, W and, as Keras
exports write it, N, H, W, C.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, GraphError, MissingExtra, NetsukeError, OptionError, UnsupportedOp
from netsuke.graph import INPUT, Graph, Op

Mean = float | Sequence[float]
MAX_FOLDED = 1 << 24  # elements of a folded constant


def load(
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    scale: float | None = None,
    mean: Mean = 0.0,
    std: Mean = 1.0,
) -> Artifact:
    """Read an ONNX classifier with one image input and one output of logits.

    A pixel p of 0..255 enters the model as (p * scale - mean) / std, `mean` and `std` one number or one a channel;
    `scale` is 1/255, or 1 for a model that takes uint8. `classes` default to "0", "1", … .
    Raises ArtifactError where the file is not sound ONNX, UnsupportedOp for a node that no op stands for,
    OptionError for options that do not fit the model, MissingExtra without onnx.
    """
    model, weights = _read(Path(path))
    try:
        reader = _Reader(model, weights, scale, mean, std)
        graph, tensors = reader.read()
        count = graph.types(tensors)[graph.output].shape[0]
    except NetsukeError as error:
        raise type(error)(" ".join(f"{path}: {error}".split())[:500]) from None
    names = [str(i) for i in range(count)] if classes is None else list(classes)
    if len(names) != count:
        raise OptionError(f"{path} gives {count} logits; got {len(names)} class names")
    channels, height, width = graph.input_shape
    contract = {
        "channels": channels,
        "height": height,
        "width": width,
        "polarity": "bright-ink",  # what raw images are here; the file itself cannot say
        "centring": "none",
        "scale": reader.scale,
        "mean": _listed(mean),
        "std": _listed(std),
    }
    manifest = {"classes": names, "input": contract, "imported": {"from": Path(path).name, "format": "onnx"}}
    return Artifact(graph, tensors, manifest)


def _listed(value: Mean) -> list[float] | float:
    return float(value) if isinstance(value, int | float) else [float(v) for v in value]


def _read(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """The checked ModelProto and its weights."""
    try:
        import onnx
    except ImportError:
        raise MissingExtra("importing ONNX needs onnx: pip install 'netsuke[onnx]'") from None
    if not path.is_file():
        raise ArtifactError(f"{path}: {'is not a file' if path.exists() else 'does not exist'}")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
        weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    except Exception as error:  # protobuf, the checker and the reader of external data share no base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ArtifactError(f"{path}: is not a sound ONNX file: {reason}") from None
    return model, weights


# --- values -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Value:
    """An activation: a * x + b a channel, x the output of our op `name`, (C, H, W) or (F,).

    Arithmetic waits in `affine` until it meets a layer that takes it in, or an op that needs its result.
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[int, ...]  # as the file sees it, without the batch
    nhwc: bool = False  # dims are H, W, C
    order: np.ndarray | None = None  # a flat vector's element i of the file is our element order[i]
    shared: bool = False  # more than one node reads it
    affine: tuple[np.ndarray, np.ndarray] | None = None  # a, b; None for 1, 0

    def ours(self, constant: np.ndarray) -> np.ndarray | None:
        """A constant that broadcasts against this value, as one number a channel (or element); None if it varies."""
        try:
            full = np.broadcast_to(constant, (1, *self.dims))[0].astype(np.float64)
        except ValueError:
            return None
        if len(self.shape) == 1:
            return _reorder(full.reshape(-1), self)
        maps = (full.transpose(2, 0, 1) if self.nhwc else full).reshape(self.shape[0], -1)
        return maps[:, 0] if (maps == maps[:, :1]).all() else None


def _reorder(columns: np.ndarray, x: _Value) -> np.ndarray:
    """The last axis from the file's order of a flattened map to ours."""
    if x.order is None:
        return columns
    result = np.empty_like(columns)
    result[..., x.order] = columns
    return result


class _Reader:
    """Walks the nodes once; `values` and `constants` hold what they have given so far."""

    def __init__(
        self, model: Any, constants: dict[str, np.ndarray], scale: float | None, mean: Mean, std: Mean
    ):
        self.graph, self.opset, self.constants = model.graph, model.opset_import, constants
        self.scale, self.mean, self.std = scale, mean, std
        self.values: dict[str, _Value] = {}
        self.ops: dict[str, Op] = {}
        self.tensors: dict[str, np.ndarray] = {}
        self.applied: dict[tuple[str, bytes, bytes], str] = {}

    def read(self) -> tuple[Graph, dict[str, np.ndarray]]:
        shape, name = self._input()
        if len(self.graph.output) != 1:
            raise ArtifactError(f"has {len(self.graph.output)} outputs; needs exactly one, the logits")
        output = self.graph.output[0].name
        nodes = self._needed(output)
        self.uses = Counter(i for node in nodes for i in node.input)
        self.uses[output] += 1
        self.last = self._tail(nodes, output)
        for node in nodes:
            try:
                self._node(node)
            except (ValueError, TypeError, LookupError, ArithmeticError) as error:
                raise self.fail(f"whose attributes or weights do not fit ({str(error)[:80]})") from None
        if output not in self.values:
            raise GraphError(f"its output {output!r} does not depend on its input {name!r}")
        logits = self.vector(self.materialized(self.values[output]))
        if logits.order is not None or logits.name != next(reversed(self.ops), ""):
            raise GraphError(f"its output {output!r} is not the result of its last layer")
        return Graph(shape, tuple(self.ops.values())), self.tensors

    def _input(self) -> tuple[tuple[int, int, int], str]:
        """Shape (C, H, W) and name of the one image input."""
        inputs = [i for i in self.graph.input if i.name not in self.constants]
        if len(inputs) != 1:
            raise ArtifactError(f"has {len(inputs)} inputs; needs exactly one, the image")
        tensor, name = inputs[0].type.tensor_type, inputs[0].name
        dims = tuple(d.dim_value for d in tensor.shape.dim)[1:]
        if not 1 <= len(dims) <= 3 or min(dims) < 1:
            raise GraphError(
                f"its input {name!r} has the shape {list(dims)} after the batch; needs fixed sizes C, H, W"
            )
        nhwc = len(dims) == 3 and dims[0] > 4 >= dims[2]
        side = isqrt(dims[0])
        if len(dims) == 1 and side * side != dims[0]:
            raise GraphError(f"its input {name!r} is a vector of {dims[0]}, which is no square image")
        shape = {1: (1, side, side), 2: (1, *dims), 3: (dims[2], *dims[:2]) if nhwc else dims}[len(dims)]
        if self.scale is None:  # uint8 stands in TensorProto as 2
            self.scale = 1.0 if tensor.elem_type == 2 else 1 / 255
        affine = self._pixels(self.scale, shape[0])
        self.values[name] = _Value(INPUT, shape, dims, nhwc, affine=affine)  # a vector is not flattened yet
        return shape, name

    def _pixels(self, scale: float, channels: int) -> tuple[np.ndarray, np.ndarray]:
        mean, std = (np.atleast_1d(np.asarray(v, np.float64)) for v in (self.mean, self.std))
        for what, value in (("mean", mean), ("std", std)):
            if value.shape not in ((1,), (channels,)) or not np.isfinite(value).all():
                raise OptionError(f"{what} must be one number, or {channels}; got {value.tolist()}")
        if (std == 0).any() or not np.isfinite(scale) or scale == 0:
            raise OptionError("scale and std must not be 0 or infinite")
        one = np.ones(channels)
        return one * scale / std, -one * mean / std

    def _needed(self, output: str) -> list[Any]:
        """The nodes that the output depends on, in the file's order."""
        wanted, nodes = {output}, []
        for node in reversed(self.graph.node):
            if wanted & set(node.output):
                wanted |= set(node.input)
                nodes.append(node)
        return nodes[::-1]

    def _tail(self, nodes: list[Any], output: str) -> set[str]:
        """Outputs after which nothing but an identity follows: where a softmax may go."""
        last = {output}
        for node in reversed(nodes):
            if (
                node.op_type in ("Identity", "Flatten", "Reshape", "Squeeze", "Cast")
                and node.output[0] in last
            ):
                last.add(node.input[0])
        return last

    def _node(self, node: Any) -> None:
        import onnx

        self.node, self.kind = node, node.op_type
        self.attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.domain not in ("", "ai.onnx"):
            raise self.fail(f"of the domain {node.domain!r}")
        if node.op_type == "Constant":
            self.constants[node.output[0]] = self._literal()
        elif node.op_type == "Shape" and node.input[0] in self.values:
            dims = (1, *self.values[node.input[0]].dims)  # any batch: what follows asks for a flattened image
            self.constants[node.output[0]] = np.array(dims, np.int64)
        elif all(i == "" or i in self.constants for i in node.input):
            self._fold()
        elif node.op_type in READ:
            for used in node.output[1:]:
                if self.uses[used]:
                    raise self.fail(f"with its further output {used!r} in use")
            self.values[node.output[0]] = READ[node.op_type](self)
        else:
            raise self.fail("")

    def fail(self, why: str) -> UnsupportedOp:
        label = self.node.name or self.node.output[0]
        why = why and f" {why}"
        return UnsupportedOp(f"node {label!r} is {self.kind}{why}; import knows {', '.join(sorted(READ))}")

    def _literal(self) -> np.ndarray:
        from onnx import numpy_helper

        (value,) = self.attrs.values()
        tensor = hasattr(value, "raw_data")
        return numpy_helper.to_array(value) if tensor else np.asarray(value)

    def _fold(self) -> None:
        """A node of constants alone, by the evaluator of the onnx package."""
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        if self.kind not in FOLDED:
            raise self.fail("of constants")
        inputs = {i: self.constants[i] for i in self.node.input if i}
        if sum(array.size for array in inputs.values()) > MAX_FOLDED:
            raise self.fail("of constants too large to fold")
        graph = helper.make_graph(
            [self.node],
            "fold",
            [
                helper.make_tensor_value_info(i, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                for i, a in inputs.items()
            ],
            [helper.make_empty_tensor_value_info(self.node.output[0])],
        )
        try:
            model = helper.make_model(graph, opset_imports=self.opset)
            (result,) = ReferenceEvaluator(model).run(None, inputs)
        except Exception as error:  # whatever NumPy says of shapes that do not fit
            raise self.fail(f"of constants that do not fit ({str(error)[:80]})") from None
        self.constants[self.node.output[0]] = np.asarray(result)

    # --- what the readers of nodes ask for ---

    def value(self, i: int = 0) -> _Value:
        name = self.node.input[i]
        if name not in self.values:
            raise self.fail(f"of a constant in place {i}")
        value = self.values[name]
        return replace(value, shared=value.shared or self.uses[name] > 1)

    def constant(self, i: int) -> np.ndarray | None:
        """Input i, None where it is left out; raises UnsupportedOp where it is computed from the image."""
        if i >= len(self.node.input) or not self.node.input[i]:
            return None
        if self.node.input[i] not in self.constants:
            raise self.fail(f"whose input {i} is computed")
        return self.constants[self.node.input[i]]

    def weight(self, i: int) -> np.ndarray:
        array = self.constant(i)
        if array is None:
            raise self.fail(f"without input {i}")
        return array

    def emit(self, kind: str, inputs: Sequence[_Value], shape: tuple[int, ...], **attrs: Any) -> _Value:
        name = f"{kind}{len(self.ops)}"
        self.ops[name] = Op(kind, name, tuple(x.name for x in inputs), attrs)
        return _Value(name, shape, shape)

    def store(self, value: _Value, **tensors: np.ndarray) -> _Value:
        for role, array in tensors.items():
            self.tensors[f"{value.name}.{role}"] = np.ascontiguousarray(array, np.float32)
        return value

    def materialized(self, x: _Value) -> _Value:
        """The value as the output of an op: arithmetic that still waits becomes one, `normalize` on the input."""
        if x.affine is None:
            return x
        a, b = x.affine
        key = (x.name, a.tobytes(), b.tobytes())
        if key not in self.applied:
            if x.name == INPUT:
                y = self.emit("normalize", [x], x.shape, scales=a.tolist(), offsets=b.tolist())
            elif len(x.shape) == 1:
                y = self.store(self.emit("dense", [x], x.shape), weight=np.diag(a), bias=b)
            else:
                attrs: dict[str, Any] = {"stride": [1, 1], "padding": [0, 0, 0, 0], "groups": len(a)}
                y = self.emit("conv2d", [x], x.shape, **attrs)
                self.store(y, weight=a.reshape(-1, 1, 1, 1), bias=b)
            self.applied[key] = y.name
        return replace(x, name=self.applied[key], affine=None, shared=True)

    def image(self, i: int = 0) -> _Value:
        """Input i as a C, H, W map."""
        x = self.materialized(self.value(i))
        if len(x.shape) != 3 or x.dims != x.shape:
            raise self.fail(f"of a value of the shape {list(x.dims)}, which is no C, H, W map")
        return x

    def vector(self, x: _Value) -> _Value:
        """A value that the file sees as a vector, or as C, 1, 1, flattened if it is not yet."""
        return self.flattened(x) if len(x.shape) == 3 and prod(x.dims) == max(x.dims) else x

    def flattened(self, x: _Value) -> _Value:
        if len(x.shape) == 1:
            return replace(x, dims=x.shape)
        if x.name == INPUT:
            x = self.materialized(x)
        y = self.emit("flatten", [x], (prod(x.shape),))
        order = np.arange(y.shape[0]).reshape(x.shape).transpose(1, 2, 0).reshape(-1)
        mixed = x.nhwc and (np.diff(order) != 1).any()
        each = x.affine and (
            np.repeat(x.affine[0], y.shape[0] // x.shape[0]),
            np.repeat(x.affine[1], y.shape[0] // x.shape[0]),
        )
        return replace(y, order=order if mixed else None, affine=each)


# --- one reader a node ------------------------------------------------------------------------------


def _padding(r: _Reader, x: _Value, kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """[top, left, bottom, right], with auto_pad resolved."""
    auto = r.attrs.get("auto_pad", b"NOTSET").decode()
    if auto == "NOTSET":
        return list(r.attrs.get("pads", [0, 0, 0, 0]))
    if auto == "VALID":
        return [0, 0, 0, 0]
    first, last = [], []
    for size, k, s in zip(x.shape[1:], kernel, stride, strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        small, large = total // 2, total - total // 2
        first.append(small if auto == "SAME_UPPER" else large)
        last.append(large if auto == "SAME_UPPER" else small)
    return [*first, *last]


def _window(r: _Reader, kernel: Sequence[int]) -> tuple[_Value, list[int], list[int], tuple[int, int]]:
    """Input map, stride, padding and the size of the result."""
    x = r.image()
    stride = list(r.attrs.get("strides", [1, 1]))
    if any(d != 1 for d in r.attrs.get("dilations", [1, 1])):
        raise r.fail(f"with dilations {list(r.attrs['dilations'])}; only 1 is known")
    if len(kernel) != 2 or len(stride) != 2:
        raise r.fail("over another number of axes than two")
    padding = _padding(r, x, kernel, stride)
    if len(padding) != 4 or min(padding) < 0:
        raise r.fail(f"with the padding {padding}")
    spans = [x.shape[1 + i] + padding[i] + padding[2 + i] - kernel[i] for i in (0, 1)]
    if min(spans) < 0:
        raise r.fail(f"with a {kernel[0]}x{kernel[1]} window on a {x.shape[1]}x{x.shape[2]} map")
    if r.attrs.get("ceil_mode", 0) and any(span % s for span, s in zip(spans, stride, strict=True)):
        raise r.fail("with ceil_mode=1")
    return x, stride, padding, (spans[0] // stride[0] + 1, spans[1] // stride[1] + 1)


def _conv(r: _Reader) -> _Value:
    weight = r.weight(1)
    if weight.ndim != 4:
        raise r.fail("over another number of axes than two")
    x, stride, padding, size = _window(r, weight.shape[2:])
    groups, bias = r.attrs.get("group", 1), r.constant(2)
    y = r.emit("conv2d", [x], (len(weight), *size), stride=stride, padding=padding, groups=groups)
    return r.store(y, weight=weight, bias=np.zeros(len(weight)) if bias is None else bias)


def _maxpool(r: _Reader) -> _Value:
    kernel = list(r.attrs["kernel_shape"])
    x, stride, padding, size = _window(r, kernel)
    return r.emit("maxpool", [x], (x.shape[0], *size), kernel=kernel, stride=stride, padding=padding)


def _avgpool(r: _Reader) -> _Value:
    kernel = list(r.attrs["kernel_shape"])
    x, stride, padding, size = _window(r, kernel)
    if any(padding):
        raise r.fail(f"with padding {padding}; only 0 is known")
    return r.emit("avgpool", [x], (x.shape[0], *size), kernel=kernel, stride=stride)


def _globalavgpool(r: _Reader) -> _Value:
    x = r.image()
    return replace(r.emit("globalavgpool", [x], x.shape[:1]), dims=(x.shape[0], 1, 1))


def _reducemean(r: _Reader) -> _Value:
    x = r.materialized(r.value())
    over = sorted(axis % (len(x.dims) + 1) for axis in _axes(r))
    if len(x.shape) != 3 or len(x.dims) != 3 or over != ([1, 2] if x.nhwc else [2, 3]):
        raise r.fail("over other axes than rows and columns")
    y = r.emit("globalavgpool", [x], x.shape[:1])
    kept = (1, 1, x.shape[0]) if x.nhwc else (x.shape[0], 1, 1)
    return replace(y, dims=kept) if r.attrs.get("keepdims", 1) else y


def _dense(r: _Reader, weight: np.ndarray, bias: np.ndarray | None) -> _Value:
    """`weight` [outputs, inputs]; arithmetic that waits in the input goes into it."""
    x = r.value()
    x = r.flattened(x) if len(x.dims) == 1 else x
    if len(x.dims) != 1 or weight.ndim != 2 or weight.shape[1] != x.dims[0]:
        raise r.fail(f"of a value of the shape {list(x.dims)} and a weight {list(weight.shape)}")
    weight = _reorder(weight.astype(np.float64), x)
    bias = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    if x.affine is not None:
        weight, bias = weight * x.affine[0], bias + weight @ x.affine[1]
    return r.store(r.emit("dense", [x], weight.shape[:1]), weight=weight, bias=bias)


def _gemm(r: _Reader) -> _Value:
    if r.attrs.get("transA", 0):
        raise r.fail("with transA=1")
    weight, bias = r.weight(1), r.constant(2)
    weight = (weight if r.attrs.get("transB", 0) else weight.T) * r.attrs.get("alpha", 1.0)
    if bias is not None:
        if bias.size not in (1, len(weight)):
            raise r.fail(f"with a bias of the shape {list(bias.shape)}")
        bias = np.broadcast_to(bias.reshape(-1), len(weight)) * r.attrs.get("beta", 1.0)
    return _dense(r, weight, bias)


def _scaled(r: _Reader, x: _Value, a: np.ndarray, b: np.ndarray) -> _Value:
    """a * x + b a channel: folded into the layer that gave x, or left waiting for the next."""
    if x.affine is not None:
        return replace(x, affine=(x.affine[0] * a, x.affine[1] * a + b))
    source = r.ops[x.name]
    if source.kind not in ("conv2d", "dense") or x.shared:
        return replace(x, affine=(a, b))
    weight, bias = (r.tensors[source.tensor(role)] for role in ("weight", "bias"))
    return r.store(x, weight=weight * a.reshape(-1, *[1] * (weight.ndim - 1)), bias=bias * a + b)


def _batchnorm(r: _Reader) -> _Value:
    x = r.value()
    gamma, beta, mean, variance = (r.weight(i).astype(np.float64) for i in (1, 2, 3, 4))
    if r.attrs.get("training_mode", 0):
        raise r.fail("in training mode")
    if gamma.shape != x.shape[:1] or x.nhwc or x.order is not None:
        raise r.fail(f"of {gamma.size} channels for a value of the shape {list(x.dims)}")
    a = gamma / np.sqrt(variance + r.attrs.get("epsilon", 1e-5))
    return _scaled(r, x, a, beta - mean * a)


def _arithmetic(r: _Reader) -> _Value:
    """Add, Sub, Mul, Div: of a value and a constant, or the sum of two values."""
    names = r.node.input
    computed = [name not in r.constants for name in names]
    if all(computed):
        return _add(r)
    x, constant = r.value(computed.index(True)), r.weight(computed.index(False))
    c = x.ours(constant)
    if c is None or (r.kind == "Div" and not computed[0]):
        raise r.fail(f"with a constant {list(constant.shape)} that is not one number a channel")
    one, none = np.ones_like(c), np.zeros_like(c)
    if r.kind == "Mul":
        return _scaled(r, x, c, none)
    if r.kind == "Div":
        return _scaled(r, x, 1 / c, none)
    if r.kind == "Add":
        return _scaled(r, x, one, c)
    return _scaled(r, x, one, -c) if computed[0] else _scaled(r, x, -one, c)


def _add(r: _Reader) -> _Value:
    a, b = r.materialized(r.value(0)), r.materialized(r.value(1))
    same = a.shape == b.shape and a.dims == b.dims and a.nhwc == b.nhwc and a.order is b.order
    if r.kind != "Add" or not same:
        raise r.fail(f"of two computed values {list(a.dims)} and {list(b.dims)}")
    return replace(a, name=r.emit("add", [a, b], a.shape).name, shared=False)


def _pointwise(kind: str) -> Callable[[_Reader], _Value]:
    def read(r: _Reader) -> _Value:
        x = r.materialized(r.value())
        return replace(x, name=r.emit(kind, [x], x.shape).name, shared=False)

    return read


def _clip(r: _Reader) -> _Value:
    low, high = (r.attrs.get(name, r.constant(i)) for i, name in ((1, "min"), (2, "max")))
    if low is not None and low == 0 and (high is None or high == 6 or high > 1e30):
        return _pointwise("relu6" if high == 6 else "relu")(r)
    raise r.fail(f"to {low}..{high}; only 0..6 and 0.. are known")


def _same(r: _Reader) -> _Value:
    return r.value()


def _cast(r: _Reader) -> _Value:
    if r.attrs["to"] not in (1, 10, 11, 16):  # float32, float16, double, bfloat16
        raise r.fail("to another type than float")
    return r.value()


def _softmax(r: _Reader) -> _Value:
    x = r.value()
    axis = r.attrs.get("axis", -1)
    if r.node.output[0] not in r.last or len(x.dims) != 1 or axis not in (1, -1):
        raise r.fail("elsewhere than at the end")
    return x


def _reshaped(r: _Reader, x: _Value, dims: tuple[int, ...]) -> _Value:
    """A new form of the same elements: a map flattened, or axes of one element that come, go and move."""
    if len(dims) == 1:
        return r.flattened(x) if len(x.dims) > 1 else x
    if dims == x.dims:
        return x
    wide = [[d for d in form if d != 1] for form in (x.shape, dims)]
    if wide[0] != wide[1] or (len(x.shape) == 3 and x.shape[0] > 1):
        raise r.fail(f"from {list(x.dims)} to {list(dims)}; import knows flattening and moving unit axes")
    return replace(x, dims=dims, nhwc=len(x.shape) == len(dims) == 3 and dims != x.shape)


def _reshape(r: _Reader) -> _Value:
    x = r.value()
    target = [int(v) for v in r.weight(1)]
    target = [(1, *x.dims)[i] if v == 0 and i <= len(x.dims) else v for i, v in enumerate(target)]
    rest = prod(v for v in target if v != -1)
    size = prod(x.dims)
    # The batch is symbolic: [1, F] (as folded from its shape), [-1, F] and [n, -1] all mean n rows.
    if target.count(-1) == 1 and target[0] != -1:
        target[target.index(-1)] = size // max(rest // max(target[0], 1), 1)
    if len(target) < 2 or prod(target[1:]) != size:
        raise r.fail(f"from {list(x.dims)} to {target[1:]}")
    return _reshaped(r, x, tuple(target[1:]))


def _flatten(r: _Reader) -> _Value:
    x = r.value()
    if r.attrs.get("axis", 1) not in (1, -len(x.dims)):
        raise r.fail(f"with axis {r.attrs['axis']}")
    return _reshaped(r, x, (prod(x.dims),))


def _axes(r: _Reader) -> list[int]:
    """The axes of Squeeze, Unsqueeze or ReduceMean: an attribute, or from opset 13 or 18 on an input."""
    axes = r.constant(1) if len(r.node.input) > 1 else r.attrs.get("axes")
    if axes is None:
        raise r.fail("without axes")
    return [int(axis) for axis in np.atleast_1d(axes)]


def _squeeze(r: _Reader) -> _Value:
    x = r.value()
    gone = {axis % (len(x.dims) + 1) for axis in _axes(r)}
    if 0 in gone:
        raise r.fail("of the batch axis")
    return _reshaped(r, x, tuple(d for i, d in enumerate(x.dims, 1) if i not in gone))


def _unsqueeze(r: _Reader) -> _Value:
    x, axes = r.value(), _axes(r)
    dims = list(x.dims)
    for axis in sorted(axis % (len(dims) + len(axes) + 1) for axis in axes):
        if axis == 0:
            raise r.fail("of the batch axis")
        dims.insert(axis - 1, 1)
    return _reshaped(r, x, tuple(dims))


def _transpose(r: _Reader) -> _Value:
    """Between N, C, H, W and N, H, W, C, which moves no data of ours."""
    x, perm = r.value(), list(r.attrs.get("perm", []))
    if len(x.dims) == 3 and len(x.shape) == 3:
        if x.nhwc and perm == [0, 3, 1, 2]:
            return replace(x, nhwc=False, dims=x.shape)
        if not x.nhwc and perm == [0, 2, 3, 1]:
            return replace(x, nhwc=True, dims=(*x.shape[1:], x.shape[0]))
    raise r.fail(f"by {perm} of a value of the shape {list(x.dims)}")


READ: dict[str, Callable[[_Reader], _Value]] = {
    "Add": _arithmetic,
    "AveragePool": _avgpool,
    "BatchNormalization": _batchnorm,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "Div": _arithmetic,
    "Dropout": _same,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _globalavgpool,
    "Identity": _same,
    "LogSoftmax": _softmax,
    "MatMul": lambda r: _dense(r, r.weight(1).T, None),
    "MaxPool": _maxpool,
    "Mul": _arithmetic,
    "ReduceMean": _reducemean,
    "Relu": _pointwise("relu"),
    "Reshape": _reshape,
    "Sigmoid": _pointwise("sigmoid"),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _arithmetic,
    "Tanh": _pointwise("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
# What may be computed from constants alone: shapes for Reshape, weights turned or cast. None can blow up.
FOLDED = frozenset(
    "Add Cast Concat Div Gather Identity Mul Reshape Slice Sqrt Squeeze Sub Transpose Unsqueeze".split()  # noqa: SIM905
)
