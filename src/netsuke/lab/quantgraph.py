"""The trainable twin of an integer graph: what quantisation-aware training trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netsuke.graph import INPUT, Graph, Op
from netsuke.lab.integers import SHIFT_MAX, Activation, Widths, multipliers, rounded, shares, ste, steps
from netsuke.lab.modules import convolve, maxpool


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
        real = real.clamp(-limit, limit)
        bias = ste(real.round(), real)
        weight = weight * sign.reshape(-1, *[1] * (weight.ndim - 1))
        return weight, bias, factor, m, shift

    def forward(self, x: Tensor) -> Tensor:
        if self.norm.training:
            z = self._normed(self.sums(x, self.integers()))
        else:
            weight, bias, factor, _, _ = self.stored()
            axes = (1, -1) if self.dense else (1, -1, 1, 1)
            z = (self.sums(x, weight) + bias.reshape(axes)) * factor.reshape(axes)
        return Activation.apply(z, self.lo, 127)

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
        self.bias_limit = min(2.0 ** (widths.bias_bits - 1) - 1, 2.0**24)
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
        return (F.linear(x, self.integers()) + self.units()) * self.scale

    def units(self) -> Tensor:
        """The bias in units of the logits, as it is stored, with a gradient."""
        real = self.bias / self.scale.detach()
        real = real.clamp(-self.bias_limit, self.bias_limit)
        return ste(real.round(), real)

    @torch.no_grad()
    def arrays(self) -> dict[str, np.ndarray]:
        bias = self.units()
        return {
            "weight": self.integers().cpu().numpy().astype(np.int8),
            "bias": bias.cpu().numpy().astype(np.int32),
        }


class QuantGraph(nn.Module):
    """The trainable twin of an integer graph: images in 0..1 [n, C, H, W] to real logits.

    `quantize` builds it. In evaluation mode the logits are the integer graph's,
    times the scale of its last op; `to_graph` gives that graph.
    """

    exact = True  # arithmetic on integers in float32: not to be run in bf16

    def __init__(self, input_shape: tuple[int, int, int]):
        super().__init__()
        self.layers = nn.ModuleDict()  # of the ops in `plan` that have weights, by name
        self.input_shape = input_shape
        self.plan: list[Op] = []

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
            return Activation.apply(total * (op.attrs["multiplier"] / 2.0 ** op.attrs["shift"]), -127, 127)
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
