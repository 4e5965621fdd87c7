"""Quantisation to the integer contract: a calibrated twin of a float graph, ready to run, to train, to lower."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from netsuke.data import Dataset
from netsuke.errors import OptionError, UnsupportedOp
from netsuke.graph import INPUT, Graph, Op
from netsuke.lab.inference import tensors
from netsuke.lab.integers import Widths, steps
from netsuke.lab.lower import lower
from netsuke.lab.modules import FloatGraph
from netsuke.lab.quantgraph import QuantGraph, QuantLayer, QuantLogits

KNOWN = frozenset(
    {"normalize", "conv2d", "dense", "relu", "relu6", "maxpool", "avgpool", "globalavgpool", "flatten", "add"}
)


def quantize(
    model: nn.Module,
    data: Dataset,
    *,
    bits: int = 8,
    bias_bits: int = 32,
    clip: bool = True,
    calibration: int = 2000,
    percentile: float = 99.99,
) -> QuantGraph:
    """Post-training quantisation: `bits`-bit weights per channel, 7-bit activations; `model` is untouched.

    Activation ranges are the given percentile of |values| over `calibration` training images; weight steps
    minimise each channel's squared error, or without `clip` cover its largest weight, which is the better
    start where training follows. The result simulates the integer arithmetic bit for bit in
    evaluation mode, and trains: `train(quantize(model, data), data)` is quantisation-aware training
    (Jacob et al., 2018), with straight-through gradients and batch norms on the integer sums. `bias_bits`
    16 keeps every bias in two bytes.
    Raises UnsupportedOp where the model has an op outside the contract.
    """
    widths = Widths(bits, bias_bits, clip)
    if not 50 <= percentile <= 100:
        raise OptionError(f"percentile must be in 50..100; got {percentile}")
    data.require("train")
    graph, weights = lower(model, data.image_shape)
    images, _ = tensors(data.train)
    step = max(1, len(images) // calibration)
    sample = images[::step][:calibration].float() / 255
    return quantized(graph, weights, sample, widths, percentile)


def quantized(
    graph: Graph, weights: dict[str, np.ndarray], images: Tensor, widths: Widths, percentile: float = 99.99
) -> QuantGraph:
    """The integer twin of a float graph, calibrated on `images` [n, C, H, W] in 0..1."""
    twin = QuantGraph(graph.input_shape)
    _Builder(twin, _hoist_relu(graph), weights, widths).build(images, percentile)
    return twin


def _users(graph: Graph) -> dict[str, list[Op]]:
    users: dict[str, list[Op]] = {op.name: [] for op in graph.ops}
    for op in graph.ops:
        for name in op.inputs:
            users.setdefault(name, []).append(op)
    return users


def _hoist_relu(graph: Graph) -> Graph:
    """conv, maxpool, relu -> conv, relu, maxpool: the same values, and the ReLU joins its convolution."""
    users, swap = _users(graph), {}
    for op in graph.ops:
        after = users[op.name]
        lone = len(after) == 1 and after[0].kind in ("relu", "relu6")
        if op.kind == "maxpool" and lone and not any(op.attrs["padding"]):
            swap[op.name], swap[after[0].name] = after[0], op
    ops = []
    for op in graph.ops:
        other = swap.get(op.name)
        # Each keeps its place and name, and takes the other's work.
        ops.append(Op(other.kind, op.name, op.inputs, other.attrs) if other else op)
    return Graph(graph.input_shape, tuple(ops))


class _Builder:
    """Turns each float op, with the ReLU behind it, into one integer op."""

    def __init__(self, owner: QuantGraph, graph: Graph, weights: dict[str, np.ndarray], widths: Widths):
        for op in graph.ops:
            if op.kind not in KNOWN:
                raise UnsupportedOp(
                    f"cannot quantise {op.kind!r} ({op.name}); it knows {', '.join(sorted(KNOWN))}"
                )
        first = graph.ops[0]
        if first.kind != "normalize" or any(first.attrs["offsets"]) or len(set(first.attrs["scales"])) != 1:
            raise UnsupportedOp("quantising needs pixels scaled by one factor, without an offset")
        self.owner, self.graph, self.weights, self.widths = owner, graph, weights, widths
        self.users = _users(graph)
        self.group = {op.name: op.name for op in graph.ops}

    def root(self, name: str) -> str:
        while self.group[name] != name:
            name = self.group[name]
        return name

    def fused(self, op: Op) -> Op | None:
        """The ReLU that only `op` feeds and that reads nothing else."""
        after = self.users[op.name]
        return after[0] if len(after) == 1 and after[0].kind in ("relu", "relu6") else None

    @torch.no_grad()
    def build(self, images: Tensor, percentile: float) -> None:
        for op in self.graph.ops:  # tensors that must share a scale
            if op.kind in ("maxpool", "avgpool", "flatten", "add", "relu", "relu6", "globalavgpool"):
                for name in op.inputs:
                    self.group[self.root(name)] = self.root(op.name)
        self._scales(images, percentile)
        self.names: dict[str, str] = {}  # float tensor -> integer tensor
        self.values: dict[str, Tensor] = {INPUT: images}
        skipped: set[str] = set()
        for op in self.graph.ops:
            if op.name in skipped:
                continue
            relu = self.fused(op) if op.kind in ("conv2d", "dense", "add") else None
            self._emit(op, relu)
            if relu:
                self.names[relu.name] = self.names[op.name]
                skipped.add(relu.name)

    def _scales(self, images: Tensor, percentile: float) -> None:
        """The real value of one unit of every tensor: what its group reaches, over 127."""
        twin = FloatGraph(self.graph, self.weights)
        reach: dict[str, float] = {}
        for part in images.split(256):
            for name, value in twin.activations(part).items():
                if name == INPUT:
                    continue
                op = next(o for o in self.graph.ops if o.name == name)
                if op.kind in ("conv2d", "dense", "add") and self.fused(op):
                    continue  # only what is left behind the ReLU counts
                flat = value.abs().flatten()
                top = flat.kthvalue(max(1, int(np.ceil(flat.numel() * percentile / 100)))).values.item()
                reach[self.root(name)] = max(reach.get(self.root(name), 0.0), top)
        pixels = self.graph.ops[0]
        reach[self.root(pixels.name)] = 254 * pixels.attrs["scales"][0]  # halved pixels reach 127
        self.scale = {name: max(value, 1e-6) / 127 for name, value in reach.items()}

    def unit(self, name: str) -> float:
        return self.scale[self.root(name)]

    def _emit(self, op: Op, relu: Op | None) -> None:
        inputs = tuple(self.names.get(name, name) for name in op.inputs)
        new = self._integer(op, relu, inputs)
        if new is None:  # a ReLU that stands alone on what is never negative
            self.names[op.name] = inputs[0]
            return
        self.names[op.name] = new.name
        self.owner.plan.append(new)
        self.values[new.name] = self.owner.eval().step(new, [self.values[name] for name in new.inputs])

    def _integer(self, op: Op, relu: Op | None, inputs: tuple[str, ...]) -> Op | None:
        signed = relu is None
        if op.kind == "normalize":
            return Op("halve", op.name, inputs)
        if op.kind in ("conv2d", "dense"):
            return self._layer(op, relu, inputs)
        if op.kind == "avgpool":
            area = int(np.prod(op.attrs["kernel"]))
            shift = 14
            while shift and round(2.0 ** (shift - 1) / area) * area == round(
                2.0**shift / area
            ) * area / 2 == 2.0 ** (shift - 1):
                shift -= 1  # a power of two needs no multiplier
            return Op(
                "qavgpool",
                op.name,
                inputs,
                {**op.attrs, "multiplier": round(2.0**shift / area), "shift": shift},
            )
        if op.kind == "globalavgpool":
            return Op("sumpool", op.name, inputs)
        if op.kind == "add":
            signed = signed and any(float(self.values[name].min()) < 0 for name in inputs)
            return Op("qadd", op.name, inputs, {"multipliers": [1, 1], "shift": 0, "signed": signed})
        if op.kind in ("relu", "relu6"):
            if float(self.values[inputs[0]].min()) < 0:
                raise UnsupportedOp(
                    f"cannot quantise {op.kind!r} ({op.name}): it must follow a layer or a sum of its own"
                )
            return None
        return Op(op.kind, op.name, inputs, op.attrs)

    def _layer(self, op: Op, relu: Op | None, inputs: tuple[str, ...]) -> Op:
        weight, bias = (torch.from_numpy(self.weights[op.tensor(role)]) for role in ("weight", "bias"))
        unit, reach = self._input(op)
        if op.name == self.graph.output:
            new = Op("qlogits", op.name, inputs, {"bits": self.widths.bits, "scale": 1.0})
            self.owner.layers[op.name] = QuantLogits(new, weight, bias, self.widths, unit)
            return new
        kind = "qconv2d" if op.kind == "conv2d" else "qdense"
        new = Op(kind, op.name, inputs, {**op.attrs, "bits": self.widths.bits, "signed": relu is None})
        layer = QuantLayer(new, weight, self.widths, reach)
        out = self.unit(relu.name if relu else op.name)
        layer.start(self.values[inputs[0]], steps(weight, layer.bits, layer.share) * unit, bias, 1 / out)
        self.owner.layers[op.name] = layer
        return new

    def _input(self, op: Op) -> tuple[float, float]:
        """The real value of one unit of a layer's input, and the most units it can hold.

        The sum over a map stands for its average, so its unit is smaller by the area.
        """
        source = next(o for o in self.graph.ops if o.name == op.inputs[0])
        if source.kind != "globalavgpool":
            return self.unit(op.inputs[0]), 127.0
        before = self.values[self.names[source.inputs[0]]]
        area = before.shape[2] * before.shape[3]
        return self.unit(source.inputs[0]) / area, 127.0 * area
