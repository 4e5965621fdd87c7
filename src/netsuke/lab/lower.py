"""nn.Module -> Graph: the only door out of torch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from netsuke.errors import UnsupportedLayer
from netsuke.graph import INPUT, Graph, Op


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


class _Lowering:
    """One walk over the traced module; `values` maps fx nodes to the names of graph outputs."""

    def __init__(self, model: nn.Module, shape: tuple[int, int, int]):
        self.modules = dict(model.named_modules())
        self.model, self.shape = model, shape
        scale = [1 / 255] * shape[0]
        self.ops = [Op("normalize", "pixels", (INPUT,), {"scales": scale, "offsets": [0.0] * shape[0]})]
        self.tensors: dict[str, np.ndarray] = {}

    def go(self) -> tuple[Graph, dict[str, np.ndarray]]:
        was = self.model.training
        try:
            traced = fx.symbolic_trace(self.model.eval())
        except Exception as error:
            raise UnsupportedLayer(
                f"cannot trace {type(self.model).__name__}: {str(error).splitlines()[0]}; "
                "its forward must not branch on values"
            ) from error
        finally:
            self.model.train(was)
        self.values: dict[fx.Node, str] = {}
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = "pixels"
            elif node.op == "output":
                result = node.args[0]
                if not isinstance(result, fx.Node):
                    raise UnsupportedLayer("the model must return one tensor, its logits")
                self._trim(self.values[result])
            else:
                self.values[node] = self._node(node)
        return Graph(self.shape, tuple(self.ops)), self.tensors

    def _trim(self, output: str) -> None:
        if self.ops[-1].name != output:
            raise UnsupportedLayer("the model's output must be its last layer's")

    def _node(self, node: fx.Node) -> str:
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
        rule = FUNCTIONS.get(node.target)
        if rule is None:
            name = getattr(node.target, "__name__", node.target)
            known = sorted({getattr(t, "__name__", str(t)) for t in FUNCTIONS})
            raise UnsupportedLayer(
                f"cannot lower {name!r} at {node.name!r}; netsuke knows {', '.join(known)}"
            )
        self._in_place(bool(node.kwargs.get("inplace")) or node.target is operator.iadd)
        return rule(self, self._value(0), node)

    def _in_place(self, changes: bool) -> None:
        """Refuse a layer that overwrites what others read: a graph has no such order."""
        source = self.node.args[0] if self.node.args else None
        if changes and isinstance(source, fx.Node) and self._readers(source) > 1:
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
        argument = self.node.args[index]
        if not isinstance(argument, fx.Node):
            raise UnsupportedLayer(
                f"cannot lower {self.node.name!r}: {argument!r} is not the output of a layer"
            )
        return self.values[argument]

    def emit(
        self, kind: str, inputs: tuple[str, ...], attrs: Mapping[str, Any] = {}, **weights: np.ndarray
    ) -> str:
        name = self.node.name.strip("_")
        name = f"layer{name}" if name[:1].isdigit() else name
        op = Op(kind, name, inputs, dict(attrs))
        self.ops.append(op)
        self.tensors.update({op.tensor(role): array for role, array in weights.items()})
        return name

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
        kernel = _pair(layer.kernel_size)
        attrs = {"kernel": kernel, "stride": _pair(layer.stride or layer.kernel_size)}
        padding = _pair(layer.padding)
        if layer.ceil_mode or getattr(layer, "dilation", 1) not in (1, (1, 1)):
            raise UnsupportedLayer(f"cannot lower {self.node.target!r}: ceil_mode and dilation are unknown")
        if isinstance(layer, nn.MaxPool2d):
            return self.emit("maxpool", (x,), attrs | {"padding": padding * 2})
        if any(padding) or layer.divisor_override:
            raise UnsupportedLayer(
                f"cannot lower {self.node.target!r}: average pooling takes no padding and no divisor of its own"
            )
        return self.emit("avgpool", (x,), attrs)

    def adaptive(self, x: str, layer: nn.AdaptiveAvgPool2d) -> str:
        if layer.output_size not in (1, (1, 1)):
            raise UnsupportedLayer(f"cannot lower {self.node.target!r}: adaptive pooling only to 1x1")
        return self.emit("globalavgpool", (x,))

    def flatten(self, x: str, start: int, end: int) -> str:
        if (start, end) != (1, -1):
            raise UnsupportedLayer(
                f"cannot lower {self.node.name!r}: flattens from axis 1 to the last, no others"
            )
        op = next(op for op in self.ops if op.name == x)
        return x if op.kind in ("globalavgpool", "dense") else self.emit("flatten", (x,))

    def add(self, x: str, node: fx.Node) -> str:
        if node.kwargs.get("alpha", 1) != 1:
            raise UnsupportedLayer(f"cannot lower {node.name!r}: a sum takes no alpha")
        return self.emit("add", (x, self._value(1)))

    def mean(self, x: str, node: fx.Node) -> str:
        axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        keep = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
        if not isinstance(axes, list | tuple) or sorted(int(a) % 4 for a in axes) != [2, 3] or keep:
            raise UnsupportedLayer(
                f"cannot lower {node.name!r}: a mean only over both image axes, keepdim off"
            )
        return self.emit("globalavgpool", (x,))


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
    nn.Sigmoid: _plain("sigmoid"),
    nn.Tanh: _plain("tanh"),
    nn.MaxPool2d: _Lowering.pool,
    nn.AvgPool2d: _Lowering.pool,
    nn.AdaptiveAvgPool2d: _Lowering.adaptive,
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
    torch.sigmoid: _plain("sigmoid"),
    torch.tanh: _plain("tanh"),
    F.dropout: lambda lowering, x, node: x,
    torch.mean: _Lowering.mean,
    "mean": _Lowering.mean,
}
