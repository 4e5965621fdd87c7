"""How a float graph becomes an integer one: calibrated units, and a rule for every op."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor

from netsuke.errors import OptionError, UnsupportedOp
from netsuke.graph import INPUT, INT32_MAX, Graph, Op
from netsuke.lab.calibrate import Calibration, measure
from netsuke.lab.integers import MULTIPLIER_MAX, Widths, weight_limit
from netsuke.lab.modules import FloatGraph, key
from netsuke.lab.quantgraph import QuantGraph
from netsuke.lab.quantlayers import QuantLayer, QuantLogits, QuantLookup

DEFAULT = Calibration()
RELUS = ("relu", "relu6")
LAYERS = ("conv2d", "dense")
# Each gives its inputs' integers on, so all its tensors are counted in one unit.
SHARED = frozenset(
    {"maxpool", "avgpool", "channelmax", "flatten", "concat", "slice", "shuffle", "add", *RELUS}
)


def _users(graph: Graph) -> dict[str, list[Op]]:
    users: dict[str, list[Op]] = {op.name: [] for op in graph.ops}
    for op in graph.ops:
        for name in op.inputs:
            users.setdefault(name, []).append(op)
    return users


def _hoist_relu(graph: Graph) -> Graph:
    """conv, maxpool, relu -> conv, relu, maxpool: the same values, and the ReLU joins its convolution.

    The two keep their names and trade their work, so an op called "pool" may then be a ReLU.
    """
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


def _of_pixels(op: Op, weights: dict[str, np.ndarray]) -> bool:
    """A convolution that is a dense layer of every pixel."""
    if op.kind != "conv2d" or weights[op.tensor("weight")].shape[2:] != (1, 1):
        return False
    attrs = op.attrs
    return attrs["groups"] == 1 and tuple(attrs["stride"]) == (1, 1) and not any(attrs["padding"])


def _check_patterns(graph: Graph, widths: Widths) -> None:
    names = [op.name for op in graph.ops if op.kind in LAYERS]
    for pattern in widths.layers:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise OptionError(f"no layer is called {pattern!r}; there are {', '.join(names)}")


def quantized(
    graph: Graph,
    weights: dict[str, np.ndarray],
    images: Tensor,
    widths: Widths,
    calibration: Calibration = DEFAULT,
) -> QuantGraph:
    """The integer twin of a float graph, calibrated on `images` [n, C, H, W] in 0..1."""
    twin = QuantGraph(graph.input_shape)
    Quantizer(twin, graph, weights, widths).build(images, calibration)
    return twin


class Quantizer:
    """Turns each float op, with the ReLU behind it, into integer ops of `owner`."""

    def __init__(self, owner: QuantGraph, graph: Graph, weights: dict[str, np.ndarray], widths: Widths):
        for op in graph.ops:
            if op.kind not in RULES:
                raise UnsupportedOp(
                    f"cannot quantise {op.kind!r} ({op.name}); it knows {', '.join(sorted(RULES))}"
                )
        if [op.kind for op in graph.ops].index("normalize") or graph.ops[0].inputs != (INPUT,):
            raise UnsupportedOp("quantising needs a graph that starts with normalize")
        last = graph.ops[-1]
        if last.kind not in ("dense", "globalavgpool") and not _of_pixels(last, weights):
            raise UnsupportedOp(
                f"cannot quantise a network whose logits come from {last.kind!r} ({last.name}): they must come "
                "from a dense layer, a global average or, as a map, from a plain 1x1 convolution"
            )
        self.owner, self.graph, self.weights, self.widths = owner, _hoist_relu(graph), weights, widths
        _check_patterns(graph, widths)
        self.types = self.graph.types(weights)
        self.users = _users(self.graph)
        self.ops = {op.name: op for op in self.graph.ops}
        self.group = {op.name: op.name for op in self.graph.ops}
        self.names = {INPUT: INPUT}  # float tensor -> integer tensor
        self.values: dict[str, Tensor] = {}  # integers of the calibration images, as long as they are needed
        self.low: dict[str, int] = {}  # the lowest integer of each integer tensor

    @torch.no_grad()
    def build(self, images: Tensor, calibration: Calibration) -> None:
        largest = max(t.elements for t in self.types.values())
        images = images[: max(8, (1 << 26) // largest)]  # a quarter of a gigabyte an activation
        self.summed = {op.name for op in self.graph.ops if op.kind == "globalavgpool" and self._sums(op)}
        for op in self.graph.ops:
            if op.kind in SHARED or op.name in self.summed:
                for name in op.inputs:
                    self.group[self.root(name)] = self.root(op.name)
        self._calibrate(images, calibration)
        self.values[INPUT] = images
        skipped: set[str] = set()
        for i, op in enumerate(self.graph.ops):
            if op.name in skipped:
                continue
            relu = self.fused(op) if op.kind in (*LAYERS, "add") else None
            inputs = tuple(self.names.get(name, name) for name in op.inputs)
            self.names[op.name] = RULES[op.kind](self, op, inputs, relu)
            if relu:
                self.names[relu.name] = self._capped(relu, self.names[op.name])
                skipped.add(relu.name)
            ahead = {self.names.get(name) for later in self.graph.ops[i + 1 :] for name in later.inputs}
            self.values = {name: value for name, value in self.values.items() if name in ahead}

    # --- units ------------------------------------------------------------------------------------------

    def root(self, name: str) -> str:
        while self.group[name] != name:
            name = self.group[name]
        return name

    def unit(self, name: str) -> float:
        """The real value of one unit of a float tensor's integers; of a mean, where they are its sum (`summed`)."""
        return self.scale[self.root(name)]

    def fused(self, op: Op) -> Op | None:
        """The ReLU that only `op` feeds and that reads nothing else."""
        after = self.users[op.name]
        return after[0] if len(after) == 1 and after[0].kind in RELUS else None

    def _sums(self, op: Op) -> bool:
        """Whether a global average can stay a plain sum, whose scale the dense layers behind it take over.

        Their sums must leave six bits of int32 to the multiplier.
        """
        if op.name == self.graph.output:
            return True
        _, high, wide = self.types[op.inputs[0]].shape
        for user in self.users[op.name]:
            if user.kind != "dense":
                return False
            rows = np.abs(self.weights[user.tensor("weight")])
            peak = np.maximum(rows.max(1), 1e-12) / weight_limit(self.widths.of(user.name))
            if float((rows.sum(1) / peak).max()) * 127 * high * wide * 64 > INT32_MAX:
                return False
        return True

    def _calibrate(self, images: Tensor, calibration: Calibration) -> None:
        """The real value of one unit of every tensor: what its group reaches, over 127."""
        twin = FloatGraph(self.graph, self.weights)
        # Of a layer with a ReLU only what is left behind it counts.
        seen = {name for name, op in self.ops.items() if not (op.kind in (*LAYERS, "add") and self.fused(op))}
        layers = {name for name, op in self.ops.items() if calibration.bias_correction and op.kind in LAYERS}
        batch = max(1, min(256, (1 << 24) // max(t.elements for t in self.types.values())))
        tops, self.means = measure(twin, images.split(batch), seen, layers, calibration)
        reach: dict[str, float] = {}
        for name, top in tops.items():
            reach[self.root(name)] = max(reach.get(self.root(name), 0.0), top)
        pixels = self.graph.ops[0]
        white = 254 * pixels.attrs["scales"][0]
        # Halved pixels have this very unit, where nothing else that shares it reaches further.
        self.halves = self._plain(pixels) and reach[self.root(pixels.name)] <= 1.01 * white
        if self.halves:
            reach[self.root(pixels.name)] = white
        self.scale = {name: (value if value > 1e-6 else 1.0) / 127 for name, value in reach.items()}

    def _fresh(self, name: str) -> str:
        """A name for an op that the float graph does not have."""
        while name in self.ops or name in self.low:
            name += "_"
        return name

    # --- one rule for each kind: it adds integer ops, and gives the name of the last ---------------------

    def add(self, op: Op, signed: bool) -> str:
        self.owner.plan.append(op)
        self.low[op.name] = -127 if signed else 0
        self.values[op.name] = self.owner.eval().step(op, [self.values[name] for name in op.inputs])
        return op.name

    def negative(self, inputs: tuple[str, ...]) -> bool:
        return any(self.low[name] < 0 for name in inputs)

    @staticmethod
    def _plain(op: Op) -> bool:
        """A `normalize` that only scales all pixels alike."""
        scale, *others = set(op.attrs["scales"])
        return not any(op.attrs["offsets"]) and not others and scale > 0

    def normalize(self, op: Op, inputs: tuple[str, ...], relu: Op | None) -> str:
        if self.halves and op is self.graph.ops[0]:
            return self.add(Op("halve", op.name, inputs), signed=False)
        half = self.add(Op("halve", self._fresh(f"{op.name}_half"), inputs), signed=False)
        return self._table(op.name, op, half, 2 / 255)  # modules take images in 0..1

    def layer(self, op: Op, inputs: tuple[str, ...], relu: Op | None) -> str:
        weight, bias = (torch.from_numpy(self.weights[op.tensor(role)]) for role in ("weight", "bias"))
        unit, reach = self._input(op)
        if op.name == self.graph.output:
            new = Op("qlogits", op.name, inputs, {"bits": self.widths.of(op.name), "scale": 1.0})
            return self._place(new, QuantLogits(new, weight.flatten(1), bias, self.widths, unit), signed=True)
        kind = "qconv2d" if op.kind == "conv2d" else "qdense"
        attrs = {**op.attrs, "bits": self.widths.of(op.name), "signed": relu is None}
        new = Op(kind, op.name, inputs, attrs)
        layer = QuantLayer(new, weight, self.widths, reach)
        out = self.unit(relu.name if relu else op.name)
        layer.start(self.values[inputs[0]], layer.step() * unit, bias, 1 / out)
        return self._place(new, layer, signed=relu is None)

    def _place(self, op: Op, layer: QuantLayer | QuantLogits, signed: bool) -> str:
        """A layer at its place in the plan; earlier ones are corrected already, so that shifts do not add up."""
        if op.name in self.means:
            layer.eval().correct(self.values[op.inputs[0]], self.means[op.name])
        self.owner.layers[key(op.name)] = layer
        return self.add(op, signed)

    def _input(self, op: Op) -> tuple[float, float]:
        """The real value of one unit of a layer's input, and the most units it can hold.

        The sum over a map stands for its average, so its unit is smaller by the area.
        """
        source = op.inputs[0]
        if source not in self.summed:
            return self.unit(source), 127.0
        _, high, wide = self.types[self.ops[source].inputs[0]].shape
        return self.unit(source) / (high * wide), 127.0 * high * wide

    def table(self, op: Op, inputs: tuple[str, ...], relu: Op | None) -> str:
        return self._table(op.name, op, inputs[0], self.unit(op.inputs[0]))

    def _table(self, name: str, op: Op, x: str, unit: float) -> str:
        weights = {"slope": torch.from_numpy(self.weights[op.tensor("slope")])} if op.kind == "prelu" else {}
        source = Op(op.kind, op.name, (x,), op.attrs)
        layer = QuantLookup(name, source, weights, self.low[x], unit, self.unit(op.name))
        self.owner.layers[key(name)] = layer
        return self.add(layer.op, layer.lo < 0)

    def relu(self, op: Op, inputs: tuple[str, ...], relu: Op | None) -> str:
        """A ReLU that stands alone, or on what others read too."""
        return self.table(op, inputs, relu) if self.low[inputs[0]] < 0 else self._capped(op, inputs[0])

    def _capped(self, relu: Op, name: str) -> str:
        """What is cut at 0 already; a ReLU6 whose unit reaches past 6 still has to be cut there."""
        past = relu.kind == "relu6" and self.unit(relu.name) * 127 > 6 + self.unit(relu.name) / 2
        return self._table(relu.name, relu, name, self.unit(relu.name)) if past else name

    def avgpool(self, op: Op, inputs: tuple[str, ...], relu: Op | None) -> str:
        area = int(np.prod(op.attrs["kernel"]))
        digits = area.bit_length()
        # A power of two needs no multiplier, any other area one of eight digits and more.
        shift = digits - 1 if area & (area - 1) == 0 else min(23, max(14, 8 + digits))
        attrs = {**op.attrs, "multiplier": round(2.0**shift / area), "shift": shift}
        return self.add(Op("qavgpool", op.name, inputs, attrs), self.negative(inputs))

    def globalavgpool(self, op: Op, inputs: tuple[str, ...], relu: Op | None) -> str:
        _, high, wide = self.types[op.inputs[0]].shape
        if op.name in self.summed:
            final = {"scale": self.unit(op.name) / (high * wide)} if op.name == self.graph.output else {}
            return self.add(Op("sumpool", op.name, inputs, final), self.negative(inputs))
        attrs = {"kernel": [high, wide], "stride": [high, wide], **self._mean(op, high * wide)}
        mean = self.add(Op("qavgpool", self._fresh(f"{op.name}_mean"), inputs, attrs), self.negative(inputs))
        return self.add(Op("flatten", op.name, (mean,)), self.negative(inputs))

    def channelmean(self, op: Op, inputs: tuple[str, ...], relu: Op | None) -> str:
        attrs = self._mean(op, self.types[op.inputs[0]].shape[0])
        return self.add(Op("qchannelmean", op.name, inputs, attrs), self.negative(inputs))

    def _mean(self, op: Op, count: int) -> dict[str, int]:
        """Multiplier and shift of a mean over `count` values, in units of its own."""
        return self._ratio(self.unit(op.inputs[0]) / self.unit(op.name) / count, 127.0 * count)

    @staticmethod
    def _ratio(gain: float, bound: float) -> dict[str, int]:
        """The longest multiplier of one byte: a mean over a large map takes a shift that no layer needs."""
        for shift in range(24, -1, -1):
            m = round(gain * 2**shift)
            if m <= MULTIPLIER_MAX and m * bound + 2**shift <= INT32_MAX:
                return {"multiplier": max(1, m), "shift": shift}
        return {"multiplier": max(1, min(MULTIPLIER_MAX, int((INT32_MAX - 1) / bound))), "shift": 0}

    def sum(self, op: Op, inputs: tuple[str, ...], relu: Op | None) -> str:
        signed = relu is None and self.negative(inputs)
        attrs = {"multipliers": [1, 1], "shift": 0, "signed": signed}
        return self.add(Op("qadd", op.name, inputs, attrs), signed)

    def mul(self, op: Op, inputs: tuple[str, ...], relu: Op | None) -> str:
        x, gate = op.inputs
        signed = self.negative(inputs)
        ratio = self._ratio(self.unit(x) * self.unit(gate) / self.unit(op.name), 127.0 * 127.0)
        return self.add(Op("qmul", op.name, inputs, {**ratio, "signed": signed}), signed)

    def move(self, op: Op, inputs: tuple[str, ...], relu: Op | None) -> str:
        return self.add(Op(op.kind, op.name, inputs, op.attrs), self.negative(inputs))


Rule = Callable[[Quantizer, Op, tuple[str, ...], Op | None], str]

RULES: dict[str, Rule] = {
    "normalize": Quantizer.normalize,
    **dict.fromkeys(LAYERS, Quantizer.layer),
    **dict.fromkeys(RELUS, Quantizer.relu),
    **dict.fromkeys(
        ("leakyrelu", "prelu", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh"), Quantizer.table
    ),
    "avgpool": Quantizer.avgpool,
    "globalavgpool": Quantizer.globalavgpool,
    "channelmean": Quantizer.channelmean,
    "add": Quantizer.sum,
    "mul": Quantizer.mul,
    **dict.fromkeys(("maxpool", "channelmax", "flatten", "concat", "slice", "shuffle"), Quantizer.move),
}
