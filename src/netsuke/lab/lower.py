"""nn.Module -> Graph: the only door out of torch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from netsuke.errors import UnsupportedLayer
from netsuke.graph import INPUT, Graph, Op, Type, infer, typed
from netsuke.lab.models.blocks import Standardize


def lower(model: nn.Module, shape: tuple[int, int, int]) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph and weights of a trained network for raw uint8 images [C, H, W].

    The model maps images in 0..1 to logits; the graph starts from 0..255 by a `normalize`. Batch norms are
    folded into the layer before them. Modules made by `quantize` come out as integer graphs.
    Raises UnsupportedLayer naming the layer that has no op, and what is known.
    """
    own = getattr(model, "to_graph", None)
    graph, tensors = own() if own else _Lowering(model, shape).go()
    graph.types(tensors)
    return graph, tensors


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else [int(v) for v in value]


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().float().contiguous().numpy().copy()


class _Tracer(fx.Tracer):
    """Looks into every module that is not a layer with a rule of its own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in LAYERS or super().is_leaf_module(m, module_qualified_name)


class _Lowering:
    """One walk over the traced module; `values` maps fx nodes to the names of graph outputs."""

    def __init__(self, model: nn.Module, shape: tuple[int, int, int]):
        self.modules = dict(model.named_modules())
        self.model, self.shape = model, shape
        self.ops: list[Op] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.types: dict[str, Type] = {INPUT: typed(shape, "u8")}
        self.append(Op("normalize", PIXELS, (INPUT,), _scaling([0.0] * shape[0], [1.0] * shape[0])))

    def go(self) -> tuple[Graph, dict[str, np.ndarray]]:
        was = self.model.training
        try:
            nodes = _Tracer().trace(self.model.eval()).nodes
        except Exception as error:
            raise UnsupportedLayer(
                f"cannot trace {type(self.model).__name__}: {str(error).splitlines()[0]}; "
                "its forward must not branch on values"
            ) from error
        finally:
            self.model.train(was)
        self.values: dict[fx.Node, str | list[str]] = {}  # a list where a tensor is cut into parts
        for node in nodes:
            if node.op == "placeholder":
                self.values[node] = PIXELS
            elif node.op == "output":
                result = node.args[0]
                if not isinstance(result, fx.Node):
                    raise UnsupportedLayer("the model must return one tensor, its logits")
                self._trim(self.one(result))
            else:
                self.values[node] = self._node(node)
        return Graph(self.shape, tuple(self.ops)), self.tensors

    def _trim(self, output: str) -> None:
        if self.ops[-1].name != output:
            raise UnsupportedLayer("the model's output must be its last layer's")

    def _node(self, node: fx.Node) -> str | list[str]:
        self.node = node
        if node.op == "call_module":
            layer = self.modules[str(node.target)]
            rule = LAYERS.get(type(layer))
            if rule is None:
                raise UnsupportedLayer(
                    f"cannot lower {node.target!r} ({type(layer).__name__}); "
                    f"netsuke knows {', '.join(sorted(t.__name__ for t in LAYERS))}"
                )
            self._in_place(getattr(layer, "inplace", False))
            return rule(self, self._value(0), layer)
        if node.target in JOINTS:
            return JOINTS[node.target](self, node)
        rule = FUNCTIONS.get(node.target)
        if rule is None:
            name = getattr(node.target, "__name__", node.target)
            known = sorted({getattr(t, "__name__", str(t)) for t in [*FUNCTIONS, *JOINTS]})
            raise UnsupportedLayer(
                f"cannot lower {name!r} at {node.name!r}; netsuke knows {', '.join(known)}"
            )
        self._in_place(bool(node.kwargs.get("inplace")) or node.target is operator.iadd)
        return rule(self, self._value(0), node)

    def _in_place(self, changes: bool) -> None:
        """Refuse a layer that overwrites what others read: a graph has no such order."""
        source = self.node.args[0] if self.node.args else None
        if not changes or not isinstance(source, fx.Node):
            return
        if self._readers(source) > 1 or source.target is operator.getitem:
            raise UnsupportedLayer(
                f"cannot lower {self.node.name!r}: it works in place on {source.name!r}, which others read too"
            )

    def _readers(self, node: fx.Node) -> int:
        """How many nodes read a node's value, seen through layers that only hand it on."""
        while self._hands_on(node) and isinstance(node.args[0], fx.Node):
            node = node.args[0]
        seen, waiting = 0, list(node.users)
        while waiting:
            user = waiting.pop()
            if self._hands_on(user):
                waiting += user.users
            else:
                seen += 1
        return seen

    def _hands_on(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.modules[str(node.target)], PASSING)
        return node.target in (F.dropout, torch.flatten, "flatten")

    def _value(self, index: int) -> str:
        if index >= len(self.node.args):
            raise UnsupportedLayer(
                f"cannot lower {self.node.name!r}: give its inputs by position, not by name"
            )
        return self.one(self.node.args[index])

    def one(self, argument: Any) -> str:
        """The graph output that an argument of the current node stands for."""
        value = self.values.get(argument) if isinstance(argument, fx.Node) else None
        if not isinstance(value, str):
            raise UnsupportedLayer(
                f"cannot lower {self.node.name!r}: {str(argument)[:80]} is not the output of one layer"
            )
        return value

    def append(self, op: Op) -> str:
        """Add an op whose tensors are there; it must fit what arrives."""
        self.types[op.name] = infer(op, [self.types[name] for name in op.inputs], self.tensors)
        self.ops.append(op)
        return op.name

    def emit(
        self, kind: str, inputs: tuple[str, ...], attrs: Mapping[str, Any] = {}, **weights: np.ndarray
    ) -> str:
        name = self.node.name.strip("_")
        name = f"layer{name}" if name[:1].isdigit() else name
        while name in self.types:  # one node may give several ops
            name += "_"
        op = Op(kind, name, inputs, dict(attrs))
        self.tensors.update({op.tensor(role): array for role, array in weights.items()})
        return self.append(op)

    def fail(self, text: str) -> UnsupportedLayer:
        return UnsupportedLayer(f"cannot lower {str(self.node.target)!r}: {text}")

    def conv(self, x: str, layer: nn.Conv2d) -> str:
        if _pair(layer.dilation) != [1, 1] or layer.padding_mode != "zeros":
            raise UnsupportedLayer(
                f"cannot lower {self.node.target!r}: dilation and padding modes but zeros are unknown"
            )
        kernel = _pair(layer.kernel_size)
        if isinstance(layer.padding, str):
            pad = [0, 0] if layer.padding == "valid" else [(k - 1) // 2 for k in kernel]
            extra = (
                [0, 0] if layer.padding == "valid" else [k - 1 - p for k, p in zip(kernel, pad, strict=True)]
            )
            padding = [*pad, *extra]
        else:
            padding = _pair(layer.padding) * 2
        if len(self.types[x].shape) == 1:  # behind a global pool, where a map is one pixel
            if any(padding) or layer.groups > 1 or layer.weight.shape[2:] != (1, 1):
                raise self.fail("behind a global pool a convolution must be 1x1, unpadded and of one group")
            return self.emit("dense", (x,), weight=_array(layer.weight)[:, :, 0, 0], bias=self._bias(layer))
        attrs = {"stride": _pair(layer.stride), "padding": padding, "groups": layer.groups}
        return self.emit("conv2d", (x,), attrs, weight=_array(layer.weight), bias=self._bias(layer))

    def dense(self, x: str, layer: nn.Linear) -> str:
        return self.emit("dense", (x,), weight=_array(layer.weight), bias=self._bias(layer))

    def _bias(self, layer: nn.Conv2d | nn.Linear) -> np.ndarray:
        return np.zeros(len(layer.weight), np.float32) if layer.bias is None else _array(layer.bias)

    def norm(self, x: str, layer: nn.BatchNorm2d) -> str:
        """Fold into the layer before, which nothing else may read."""
        before = self.node.args[0]
        op = next((op for op in self.ops if op.name == x), None)
        if (
            op is None
            or op.kind not in ("conv2d", "dense")
            or not isinstance(before, fx.Node)
            or self._readers(before) > 1
        ):
            raise UnsupportedLayer(
                f"cannot fold {self.node.target!r}: it must follow a convolution or dense layer"
            )
        if layer.running_mean is None or layer.running_var is None:
            raise UnsupportedLayer(f"cannot fold {self.node.target!r}: it keeps no running statistics")
        mean, variance = layer.running_mean.double(), layer.running_var.double()
        gain = (variance + layer.eps).rsqrt() * (
            1 if layer.weight is None else layer.weight.detach().double()
        )
        offset = 0 if layer.bias is None else layer.bias.detach().double()
        weight, bias = self.tensors[op.tensor("weight")], self.tensors[op.tensor("bias")]
        factor = gain.numpy().reshape(-1, *[1] * (weight.ndim - 1))
        self.tensors[op.tensor("weight")] = (weight * factor).astype(np.float32)
        self.tensors[op.tensor("bias")] = ((bias - mean.numpy()) * gain.numpy() + np.asarray(offset)).astype(
            np.float32
        )
        return x

    def pool(self, x: str, layer: nn.MaxPool2d | nn.AvgPool2d) -> str:
        kernel, stride = _pair(layer.kernel_size), _pair(layer.stride or layer.kernel_size)
        attrs: dict[str, Any] = {"kernel": kernel, "stride": stride}
        padding = _pair(layer.padding) * 2
        if getattr(layer, "dilation", 1) not in (1, (1, 1)):
            raise self.fail("pools take no dilation")
        if layer.ceil_mode:
            sides = self.types[x].shape[1:]
            more = [_ceiling(*axis) for axis in zip(sides, kernel, stride, padding[:2], strict=True)]
            padding = [*padding[:2], *(p + m for p, m in zip(padding[2:], more, strict=True))]
        if isinstance(layer, nn.MaxPool2d):
            return self.emit("maxpool", (x,), attrs | {"padding": padding})
        if layer.divisor_override or (any(padding) and (layer.ceil_mode or not layer.count_include_pad)):
            raise self.fail("an average counts its padding, and takes no divisor of its own")
        return self.emit("avgpool", (x,), attrs | ({"padding": padding} if any(padding) else {}))

    def adaptive(self, x: str, size: Any) -> str:
        """An average to rows and columns that divide those of the map."""
        if size in (1, (1, 1)):
            return self.emit("globalavgpool", (x,))
        have = self.types[x].shape[1:]
        want = [h if w is None else int(w) for h, w in zip(have, _sides(size), strict=True)]
        if any(h % w for h, w in zip(have, want, strict=True)):
            raise self.fail(f"a map of {have[0]}x{have[1]} does not divide into {want[0]}x{want[1]}")
        kernel = [h // w for h, w in zip(have, want, strict=True)]
        return x if kernel == [1, 1] else self.emit("avgpool", (x,), {"kernel": kernel, "stride": kernel})

    def peak(self, x: str, layer: nn.AdaptiveMaxPool2d) -> str:
        if layer.output_size not in (1, (1, 1)):
            raise self.fail("adaptive maximum pooling only to 1x1")
        whole = list(self.types[x].shape[1:])
        attrs = {"kernel": whole, "stride": whole, "padding": [0, 0, 0, 0]}
        return self.emit("flatten", (self.emit("maxpool", (x,), attrs),))

    def standardize(self, x: str, layer: Standardize) -> str:
        """Becomes the graph's first op."""
        source = self.node.args[0]
        if (
            x != PIXELS
            or not isinstance(source, fx.Node)
            or source.op != "placeholder"
            or len(source.users) > 1
        ):
            raise self.fail("it must come first, and nothing else may read the image")
        attrs = _scaling(layer.mean.flatten().tolist(), layer.std.flatten().tolist())
        self.ops[0] = Op("normalize", PIXELS, (INPUT,), attrs)
        self.types[PIXELS] = infer(self.ops[0], [self.types[INPUT]], {})
        return x

    def prelu(self, x: str, layer: nn.PReLU) -> str:
        slope = np.broadcast_to(_array(layer.weight), self.types[x].shape[:1]).copy()
        return self.emit("prelu", (x,), slope=slope)

    def flatten(self, x: str, start: int, end: int) -> str:
        if (start, end) != (1, -1):
            raise UnsupportedLayer(
                f"cannot lower {self.node.name!r}: flattens from axis 1 to the last, no others"
            )
        return x if len(self.types[x].shape) == 1 else self.emit("flatten", (x,))

    def add(self, x: str, node: fx.Node) -> str:
        if node.kwargs.get("alpha", 1) != 1:
            raise UnsupportedLayer(f"cannot lower {node.name!r}: a sum takes no alpha")
        return self.emit("add", (x, self._value(1)))

    def mul(self, x: str, node: fx.Node) -> str:
        """A gate; the larger of the two is what it opens and shuts."""
        gate = self._value(1)
        if self.types[gate].elements > self.types[x].elements:
            x, gate = gate, x
        return self.emit("mul", (x, gate))

    def mean(self, x: str, node: fx.Node) -> str:
        axes, keep = _reduced(node)
        if axes == [1] and keep:
            return self.emit("channelmean", (x,))
        if axes != [2, 3]:
            raise UnsupportedLayer(
                f"cannot lower {node.name!r}: a mean is over both image axes, or over the channels with keepdim"
            )
        return self.emit("globalavgpool", (x,))

    def amax(self, x: str, node: fx.Node) -> str:
        if _reduced(node) != ([1], True):
            raise UnsupportedLayer(f"cannot lower {node.name!r}: amax only over the channels, with keepdim")
        return self.emit("channelmax", (x,))

    def chunk(self, node: fx.Node) -> list[str]:
        """Equal parts of the channels; those that nothing reads are left out."""
        x, count = self._value(0), _argument(node, 1, "chunks", 1)
        channels = self.types[x].shape[0]
        if _argument(node, 2, "dim", 0) not in (1, -3) or channels % count:
            raise UnsupportedLayer(
                f"cannot lower {node.name!r}: chunks are equal parts of the channels (dim=1)"
            )
        size, read = channels // count, {cast(Any, user.args[1]) for user in node.users}
        if not all(user.target is operator.getitem for user in node.users):
            raise UnsupportedLayer(f"cannot lower {node.name!r}: take its parts one by one")
        return [self.part(x, i * size, (i + 1) * size) if {i, i - count} & read else "" for i in range(count)]

    def part(self, x: str, start: int, stop: int) -> str:
        return self.emit("slice", (x,), {"start": start, "stop": stop})

    def item(self, node: fx.Node) -> str:
        """One part of a chunk, or x[:, start:stop]."""
        source, index = node.args[0], cast(Any, node.args[1])
        parts = self.values.get(source) if isinstance(source, fx.Node) else None
        if isinstance(parts, list) and isinstance(index, int):
            return parts[index]
        whole = slice(None)
        cut = index[1] if isinstance(index, tuple) and len(index) > 1 else None
        if (
            not isinstance(cut, slice)
            or cut.step not in (None, 1)
            or any(i != whole for i in (index[0], *index[2:]))
        ):
            raise UnsupportedLayer(f"cannot lower {node.name!r}: of an index only x[:, start:stop] is known")
        x = self._value(0)
        start, stop, _ = cut.indices(self.types[x].shape[0])
        return self.part(x, start, stop)

    def concat(self, node: fx.Node) -> str:
        parts = node.args[0]
        if _argument(node, 1, "dim", 0) not in (1, -3) or not isinstance(parts, list | tuple):
            raise UnsupportedLayer(
                f"cannot lower {node.name!r}: concatenates a list along the channels (dim=1)"
            )
        return self.emit("concat", tuple(self.one(part) for part in parts))


PIXELS = "pixels"  # the images in 0..1


def _scaling(mean: list[float], std: list[float]) -> dict[str, list[float]]:
    """Attributes of `normalize`: 0..255 to (x / 255 - mean) / std."""
    return {
        "scales": [1 / (255 * s) for s in std],
        "offsets": [-m / s if m else 0.0 for m, s in zip(mean, std, strict=True)],
    }


def _ceiling(side: int, kernel: int, stride: int, padding: int) -> int:
    """Cells to add at the end so that a rounded-down count of windows equals torch's rounded-up one."""
    reach = side + 2 * padding - kernel
    windows = -(-reach // stride) + 1
    if (windows - 1) * stride >= side + padding:  # torch starts no window in the padding at the end
        windows -= 1
    return max(0, (windows - 1) * stride - reach)


def _sides(size: Any) -> tuple[Any, Any]:
    return size if isinstance(size, tuple) else (size, size)


def _argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _reduced(node: fx.Node) -> tuple[list[int], bool]:
    """The axes that a reduction is over, and whether it keeps them."""
    axes = _argument(node, 1, "dim", None)
    axes = [axes] if isinstance(axes, int) else axes
    keep = bool(_argument(node, 2, "keepdim", False))
    return (sorted(int(a) % 4 for a in axes) if isinstance(axes, list | tuple) else []), keep


def _plain(kind: str) -> Callable[[_Lowering, str, Any], str]:
    return lambda lowering, x, layer: lowering.emit(kind, (x,))


def _axes(node: fx.Node) -> tuple[int, int]:
    """start_dim and end_dim of a call of flatten."""
    given: list[Any] = [0, -1]
    given[: len(node.args) - 1] = node.args[1:]
    return node.kwargs.get("start_dim", given[0]), node.kwargs.get("end_dim", given[1])  # type: ignore[return-value]


Rule = Callable[[_Lowering, str, Any], str]

PASSING = (nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten)  # give on the very values they get

LAYERS: dict[type[nn.Module], Rule] = {
    nn.Conv2d: _Lowering.conv,
    nn.Linear: _Lowering.dense,
    nn.BatchNorm2d: _Lowering.norm,
    nn.BatchNorm1d: _Lowering.norm,
    nn.ReLU: _plain("relu"),
    nn.ReLU6: _plain("relu6"),
    nn.LeakyReLU: lambda lowering, x, layer: lowering.emit(
        "leakyrelu", (x,), {"slope": layer.negative_slope}
    ),
    nn.PReLU: _Lowering.prelu,
    nn.SiLU: _plain("silu"),
    nn.Hardswish: _plain("hardswish"),
    nn.Hardsigmoid: _plain("hardsigmoid"),
    nn.Sigmoid: _plain("sigmoid"),
    nn.Tanh: _plain("tanh"),
    nn.MaxPool2d: _Lowering.pool,
    nn.AvgPool2d: _Lowering.pool,
    nn.AdaptiveAvgPool2d: lambda lowering, x, layer: lowering.adaptive(x, layer.output_size),
    nn.AdaptiveMaxPool2d: _Lowering.peak,
    nn.ChannelShuffle: lambda lowering, x, layer: lowering.emit("shuffle", (x,), {"groups": layer.groups}),
    Standardize: _Lowering.standardize,
    nn.Flatten: lambda lowering, x, layer: lowering.flatten(x, layer.start_dim, layer.end_dim),
    nn.Dropout: lambda lowering, x, layer: x,
    nn.Dropout2d: lambda lowering, x, layer: x,
    nn.Identity: lambda lowering, x, layer: x,
}

FUNCTIONS: dict[Any, Rule] = {
    operator.add: _Lowering.add,
    operator.iadd: _Lowering.add,
    torch.add: _Lowering.add,
    torch.flatten: lambda lowering, x, node: lowering.flatten(x, *_axes(node)),
    "flatten": lambda lowering, x, node: lowering.flatten(x, *_axes(node)),
    torch.relu: _plain("relu"),
    F.relu: _plain("relu"),
    "relu": _plain("relu"),
    F.relu6: _plain("relu6"),
    F.silu: _plain("silu"),
    F.hardswish: _plain("hardswish"),
    F.hardsigmoid: _plain("hardsigmoid"),
    operator.mul: _Lowering.mul,
    torch.mul: _Lowering.mul,
    torch.sigmoid: _plain("sigmoid"),
    torch.tanh: _plain("tanh"),
    F.dropout: lambda lowering, x, node: x,
    torch.mean: _Lowering.mean,
    "mean": _Lowering.mean,
    torch.amax: _Lowering.amax,
    "amax": _Lowering.amax,
    F.adaptive_avg_pool2d: lambda lowering, x, node: lowering.adaptive(
        x, _argument(node, 1, "output_size", 1)
    ),
}

# What takes or gives several tensors.
JOINTS: dict[Any, Callable[[_Lowering, fx.Node], str | list[str]]] = {
    torch.cat: _Lowering.concat,
    torch.chunk: _Lowering.chunk,
    "chunk": _Lowering.chunk,
    operator.getitem: _Lowering.item,
}
