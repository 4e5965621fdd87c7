"""Quantisation to the integer contract: calibrate a float graph, then train through its exact arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netsuke.data import Dataset
from netsuke.errors import GraphError, OptionError, UnsupportedOp
from netsuke.graph import INPUT, INT32_MAX, Graph, Op
from netsuke.lab.lower import lower
from netsuke.lab.modules import FloatGraph, convolve, maxpool
from netsuke.lab.steps.train import tensors

MULTIPLIER_MAX = 255  # one stored byte
SHIFT_MAX = (
    14  # with 8-bit multipliers: float32 then holds every product in range exactly, as ONNX Runtime needs
)
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
    return QuantGraph(graph, weights, sample, widths, percentile)


@dataclass(frozen=True)
class Widths:
    """How weights and biases are stored, and whether large weights may be clipped (see `shares`)."""

    bits: int = 8
    bias_bits: int = 32
    clip: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise OptionError(f"weights take 1 to 8 bits; got {self.bits}")
        if self.bias_bits not in (16, 32):
            raise OptionError(f"biases take 16 or 32 bits; got {self.bias_bits}")


# --- arithmetic -------------------------------------------------------------------------------------


def weight_limit(bits: int) -> int:
    """The largest magnitude of a weight of so many bits; the range is symmetric."""
    return max(1, (1 << (bits - 1)) - 1)


def ste(exact: Tensor, smooth: Tensor) -> Tensor:
    """The value of `exact` with the gradient of `smooth` (Bengio et al., 2013)."""
    return smooth + (exact - smooth).detach()


class _Activation(torch.autograd.Function):
    """Round half up and clip to lo..hi; the gradient passes inside the range."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, z: Tensor, lo: int, hi: int) -> Tensor:
        out = (z + 0.5).floor_().clamp_(lo, hi)
        ctx.save_for_backward(out)
        ctx.range = (lo, hi)  # type: ignore[attr-defined]
        return out

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        (out,) = ctx.saved_tensors  # type: ignore[attr-defined]
        lo, hi = ctx.range  # type: ignore[attr-defined]
        return grad * ((out > lo) & (out < hi)), None, None


def steps(weight: Tensor, bits: int, share: Tensor) -> Tensor:
    """The real value of one step of each channel's weights [O], or of all alike where `share` is [1].

    The last level stands at `share` of the largest magnitude, so steps follow the weights as they train. At one
    bit a step is the mean magnitude (Rastegari et al., XNOR-Net, 2016).
    """
    flat = weight.detach().reshape(len(share), -1).abs()
    reach = flat.mean(1) if bits == 1 else flat.amax(1) * share / weight_limit(bits)
    return reach.clamp(min=1e-8)


def shares(weight: Tensor, bits: int, channels: int, clip: bool) -> Tensor:
    """For each channel [channels] the share of its largest magnitude at which the last level stands.

    With `clip` the one in 0.4 to 1 that minimises the squared rounding error; without, the largest weight
    rounds to the last level with room to spare, so that training finds none stuck beyond it.
    """
    limit = weight_limit(bits)
    if not clip:
        return weight.new_full((channels,), limit / (limit + 0.4))
    best, error = weight.new_ones(channels), weight.new_full((channels,), torch.inf)
    flat = weight.detach().reshape(channels, -1)
    for share in torch.linspace(0.4, 1.0, 25):
        step = steps(weight, bits, torch.full_like(best, float(share)))
        near = (flat / step[:, None]).round().clamp(-limit, limit) * step[:, None]
        now = (near - flat).square().sum(1)
        best, error = torch.where(now < error, share, best), torch.minimum(now, error)
    return best


def rounded(weight: Tensor, bits: int, share: Tensor) -> Tensor:
    """Weights in whole steps, within the range of `bits`, with the gradient of the real ones inside it."""
    real = weight / steps(weight, bits, share).reshape(-1, *[1] * (weight.ndim - 1))
    if bits == 1:
        return ste(torch.where(real >= 0, 1.0, -1.0), real.clamp(-1, 1))
    limit = weight_limit(bits)
    real = real.clamp(-limit, limit)
    return ste(real.round(), real)


def multipliers(gain: Tensor, bound: Tensor) -> tuple[Tensor, int]:
    """Multipliers m [O] of one byte and the layer's shift s with m / 2^s near `gain` >= 0.

    The shift is the one with the least squared relative error over the channels, so that a single channel of
    outlying gain is cut rather than all others starved. `bound` is the largest |sum| of each channel: s and m
    are such that no product can leave int32.
    """
    best, least = (torch.zeros_like(gain), 0), torch.inf
    for shift in range(SHIFT_MAX + 1):
        m = (gain * 2.0**shift).round().clamp(0, MULTIPLIER_MAX)
        if float((bound.double() * m.double()).max()) + 2.0**shift >= INT32_MAX:
            break
        error = float((m / 2.0**shift / gain.clamp(min=1e-12) - 1).square().sum())
        if error < least:
            best, least = (m, shift), error
    if least == torch.inf:
        raise GraphError("a layer's sums are too large for int32; use fewer bits or a narrower layer")
    return best


# --- the trainable twin -----------------------------------------------------------------------------


class QuantLayer(nn.Module):
    """A convolution or dense layer of the contract, on integers held in float32.

    In training its batch norm works on the sums of the current batch. In evaluation, or once the norm is
    frozen, sums go through the very multipliers, shifts and biases that will be stored.
    """

    def __init__(self, op: Op, weight: Tensor, widths: Widths, reach: float):
        super().__init__()
        self.op, self.bits, self.dense = op, widths.bits, op.kind == "qdense"
        self.lo = -127 if op.attrs["signed"] else 0
        self.reach = reach  # the largest |input|
        self.bias_limit = 2.0 ** (widths.bias_bits - 1) - 1
        self.weight = nn.Parameter(weight.clone())
        self.share: Tensor
        self.register_buffer("share", shares(weight, self.bits, len(weight), widths.clip))
        self.unit = 1.0  # activation steps in a real one, so that the norm's own parameters stay near 1
        # Sums are whole numbers: eps 1 is next to nothing, but keeps a channel that never changes from a huge gain.
        self.norm = (nn.BatchNorm1d if self.dense else nn.BatchNorm2d)(len(weight), eps=1.0)

    def integers(self) -> Tensor:
        return rounded(self.weight, self.bits, self.share)

    def sums(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight) if self.dense else convolve(x, weight, None, self.op)

    @torch.no_grad()
    def start(self, x: Tensor, gain: Tensor, bias: Tensor, unit: float) -> None:
        """Set the norm so that on inputs `x` the layer yields `(gain * sum + bias) * unit`."""
        self.unit = unit
        sums = self.sums(x, self.integers()).transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(sums, 1, unbiased=False)
        norm, (running_mean, running_variance) = self.norm, self.statistics()
        running_mean.copy_(mean)
        running_variance.copy_(variance)
        norm.weight.copy_(gain * (variance + norm.eps).sqrt())
        norm.bias.copy_(bias + gain * mean)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the sums, as the norm has followed them."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert isinstance(mean, Tensor)
        assert isinstance(variance, Tensor)
        return mean, variance

    def stored(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """Sign-corrected weight integers, sign, bias, multiplier and shift as they will be stored.

        Everything carries a gradient: bias and multiplier of the norm, weights of the real weights.
        """
        norm, (mean, variance) = self.norm, self.statistics()
        slope = self.unit * norm.weight * (variance + norm.eps).rsqrt()
        offset = self.unit * norm.bias - slope * mean
        weight, gain = self.integers(), slope.abs()
        sign = torch.where(slope < 0, -1.0, 1.0)
        bound = weight.detach().abs().flatten(1).sum(1) * self.reach + min(self.bias_limit, 2.0**24)
        m, shift = multipliers(gain.detach(), bound)
        dead = m == 0  # too faint to reach even one step: its sum is dropped, its constant stays
        m = m.clamp(min=1)
        sign = sign * ~dead if self.bits > 1 else sign
        factor = ste(m / 2.0**shift, gain)
        real = offset / factor.detach().clamp(min=2.0**-SHIFT_MAX)
        limit = min(self.bias_limit, 2.0**24)  # float32 counts no further
        bias = ste(real.round().clamp(-limit, limit), real)
        weight = weight * sign.reshape(-1, *[1] * (weight.ndim - 1))
        return weight, bias, factor, m, shift

    def forward(self, x: Tensor) -> Tensor:
        if self.norm.training:
            z = self._normed(self.sums(x, self.integers()))
        else:
            weight, bias, factor, _, _ = self.stored()
            axes = (1, -1) if self.dense else (1, -1, 1, 1)
            z = (self.sums(x, weight) + bias.reshape(axes)) * factor.reshape(axes)
        return _Activation.apply(z, self.lo, 127)

    def _normed(self, sums: Tensor) -> Tensor:
        """The batch norm, its result in activation steps."""
        norm = self.norm
        weight, bias = norm.weight * self.unit, norm.bias * self.unit
        if norm.momentum is None:  # a plain average while it is recalibrated
            norm(sums)
            return F.batch_norm(sums, None, None, weight, bias, True, 0.0, norm.eps)
        return F.batch_norm(
            sums, norm.running_mean, norm.running_var, weight, bias, True, norm.momentum, norm.eps
        )

    @torch.no_grad()
    def arrays(self) -> dict[str, np.ndarray]:
        weight, bias, _, m, shift = self.stored()
        return {
            "weight": weight.cpu().numpy().astype(np.int8),
            "bias": bias.cpu().numpy().astype(np.int32),
            "multiplier": m.cpu().numpy().astype(np.int32),
            "shift": np.full(len(m), shift, np.int32),
        }


class QuantLogits(nn.Module):
    """The last layer: integer logits, and the real value of one unit for those who want probabilities."""

    def __init__(self, op: Op, weight: Tensor, bias: Tensor, widths: Widths, input_scale: float):
        super().__init__()
        self.op, self.bits = op, widths.bits
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        self.share: Tensor
        self.register_buffer("share", shares(weight, self.bits, 1, widths.clip))
        self.unit: Tensor
        self.register_buffer("unit", steps(weight, self.bits, self.share)[0] * input_scale)
        self.stretch = nn.Parameter(torch.zeros(()))  # the logarithm of what training makes of the unit

    @property
    def scale(self) -> Tensor:
        """The real value of one unit of the integer logits."""
        return self.unit * self.stretch.exp()

    def integers(self) -> Tensor:
        return rounded(self.weight, self.bits, self.share)

    def forward(self, x: Tensor) -> Tensor:
        real = self.bias / self.scale.detach()
        return (F.linear(x, self.integers()) + ste(real.round(), real)) * self.scale

    @torch.no_grad()
    def arrays(self) -> dict[str, np.ndarray]:
        bias = (self.bias / self.scale).round().clamp(-(2.0**24), 2.0**24)
        return {
            "weight": self.integers().cpu().numpy().astype(np.int8),
            "bias": bias.cpu().numpy().astype(np.int32),
        }


class QuantGraph(nn.Module):
    """The trainable twin of an integer graph: images in 0..1 [n, C, H, W] to real logits.

    `images` [n, C, H, W] in 0..1 calibrate it. In evaluation mode the logits are the integer graph's,
    times the scale of its last op; `to_graph` gives that graph.
    """

    exact = True  # arithmetic on integers in float32: not to be run in bf16

    def __init__(
        self,
        graph: Graph,
        weights: dict[str, np.ndarray],
        images: Tensor,
        widths: Widths,
        percentile: float = 99.99,
    ):
        super().__init__()
        self.layers = nn.ModuleDict()
        self.input_shape = graph.input_shape
        self.plan: list[Op] = []
        _Builder(self, _hoist_relu(graph), weights, widths).build(images, percentile)

    def forward(self, x: Tensor) -> Tensor:
        values: dict[str, Tensor] = {INPUT: x}
        for op in self.plan:
            values[op.name] = self.step(op, [values[name] for name in op.inputs])
        return values[self.plan[-1].name]

    def step(self, op: Op, x: Sequence[Tensor]) -> Tensor:
        """One op on integers held in float32."""
        if op.name in self.layers:
            return self.layers[op.name](x[0])
        if op.kind == "halve":
            return ((x[0] * 255).round() / 2).floor()
        if op.kind == "maxpool":
            return maxpool(x[0], op)
        if op.kind == "qavgpool":
            total = F.avg_pool2d(
                x[0], tuple(op.attrs["kernel"]), tuple(op.attrs["stride"]), divisor_override=1
            )
            return _Activation.apply(total * (op.attrs["multiplier"] / 2.0 ** op.attrs["shift"]), -127, 127)
        if op.kind == "sumpool":
            return x[0].sum((2, 3))
        if op.kind == "qadd":
            return (x[0] + x[1]).clamp(-127 if op.attrs["signed"] else 0, 127)
        assert op.kind == "flatten"
        return x[0].flatten(1)

    def to_graph(self) -> tuple[Graph, dict[str, np.ndarray]]:
        ops, found = [], {}
        for op in self.plan:
            if op.name in self.layers:
                layer = self.layers[op.name]
                assert isinstance(layer, QuantLayer | QuantLogits)
                found.update({op.tensor(role): array for role, array in layer.arrays().items()})
                if isinstance(layer, QuantLogits):
                    op = Op(op.kind, op.name, op.inputs, {**op.attrs, "scale": float(layer.scale.detach())})
            ops.append(op)
        return Graph(self.input_shape, tuple(ops)), found


# --- building it from a float graph -----------------------------------------------------------------


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
