"""The trainable layers of an integer graph: what quantisation-aware training trains."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netsuke.errors import OptionError
from netsuke.graph import Op
from netsuke.lab.forms import set_mask
from netsuke.lab.integers import (
    BIAS_MAX,
    SHIFT_MAX,
    Activation,
    Outcome,
    Widths,
    bias_limits,
    in_steps,
    learned_step,
    multipliers,
    rounded,
    shares,
    ste,
    steps,
    whole_biases,
)
from netsuke.lab.modules import TORCH, convolve

PRUNED = 0.01  # weights of which fewer are exactly zero were not pruned


def is_pruned(weight: Tensor) -> bool:
    """Whether weights hold the zeros that pruning leaves; training alone hits none."""
    return PRUNED <= (weight == 0).float().mean().item() < 1


class Weighted(nn.Module):
    """What both kinds of layers share: real weights that train, and the integers that they stand for."""

    def __init__(self, op: Op, weight: Tensor, widths: Widths, channels: int):
        super().__init__()
        self.op, self.bits = op, widths.of(op.name)
        self.weight = nn.Parameter(weight.clone())
        self.share: Tensor
        self.register_buffer("share", shares(weight, self.bits, channels, widths.clip))
        self.logarithm: nn.Parameter | None = None
        if widths.steps == "learned" and self.bits > 1:  # a sign has no step
            self.logarithm = nn.Parameter(self.step().log())
        if widths.keep_zeros and is_pruned(weight):
            if self.bits == 1:
                raise OptionError(
                    f"{op.name} is pruned, and one bit has no zero; give it 2 bits, or set keep_zeros to False"
                )
            set_mask(self, weight != 0)

    def step(self) -> Tensor:
        """The real value of one step of the weights, one a channel or one for all."""
        if self.logarithm is None:
            return steps(self.weight, self.bits, self.share)
        return learned_step(self.logarithm, self.weight.numel() // len(self.logarithm), self.bits)

    def integers(self) -> Tensor:
        if self.logarithm is None:
            return rounded(self.weight, self.bits, self.share)
        return in_steps(self.weight, self.bits, self.step())


class QuantLayer(Weighted):
    """A convolution or dense layer of the contract, on integers held in float32.

    In training its batch norm works on the sums of the current batch. In evaluation, or once the norm is
    frozen, sums go through the very multipliers, shifts and biases that will be stored.
    """

    def __init__(self, op: Op, weight: Tensor, widths: Widths, reach: float):
        super().__init__(op, weight, widths, len(weight))
        self.dense = op.kind == "qdense"
        self.lo = -127 if op.attrs["signed"] else 0
        self.reach = reach  # the largest |input|
        self.bias_bits = widths.bias_bits
        self.unit = 1.0  # activation steps in a real one, so that the norm's own parameters stay near 1
        # Sums are whole numbers: eps 1 is next to nothing, but keeps a channel that never changes from a huge gain.
        self.norm = (nn.BatchNorm1d if self.dense else nn.BatchNorm2d)(len(weight), eps=1.0)

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

    @torch.no_grad()
    def correct(self, x: Tensor, mean: Tensor) -> None:
        """Shift the norm so that on inputs `x` the real sums have that `mean` [O] (Nagel et al., 2019, section 4.2)."""
        weight, bias, factor, _, _ = self.stored()
        now = (self.sums(x, weight).transpose(0, 1).flatten(1).mean(1) + bias) * factor
        self.norm.bias.add_(mean - now / self.unit)

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
        bound = weight.detach().abs().flatten(1).sum(1) * self.reach
        limit = bias_limits(self.bias_bits, bound)
        slack = limit.max() / 127 if self.bias_bits == 8 else 0.0  # what rounding to the shared shift adds
        m, shift = multipliers(gain.detach(), bound + limit + slack, variance.sqrt())
        dead = m == 0  # too faint to reach even one step: its sum is dropped, its constant stays
        m = m.clamp(min=1)
        sign = sign * ~dead if self.bits > 1 else sign
        factor = ste(m / 2.0**shift, gain)
        real = offset / factor.detach().clamp(min=2.0**-SHIFT_MAX)
        outcome = Outcome(factor.detach(), self.unit * norm.bias, self.unit * norm.weight.abs(), self.lo)
        bias = whole_biases(torch.minimum(torch.maximum(real, -limit), limit), self.bias_bits, outcome)
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


class QuantLogits(Weighted):
    """The last layer: integer logits, and the real value of one unit for those who want probabilities.

    On a map it takes each pixel for itself.
    """

    def __init__(self, op: Op, weight: Tensor, bias: Tensor, widths: Widths, input_scale: float):
        super().__init__(op, weight, widths, 1)
        self.bias = nn.Parameter(bias.clone())
        self.bias_bits = widths.bias_bits
        # float32 counts no further than 2**24
        self.bias_limit = BIAS_MAX if self.bias_bits == 8 else min(2.0 ** (self.bias_bits - 1) - 1, 2.0**24)
        self.input_scale = input_scale
        self.unit: Tensor
        self.register_buffer("unit", self.step().detach()[0] * input_scale)
        self.stretch = nn.Parameter(torch.zeros(()))  # the logarithm of what training makes of the unit

    @property
    def scale(self) -> Tensor:
        """The real value of one unit of the integer logits."""
        # No norm follows to take a learned step back out.
        unit = self.unit if self.logarithm is None else self.step()[0] * self.input_scale
        return unit * self.stretch.exp()

    @torch.no_grad()
    def correct(self, x: Tensor, mean: Tensor) -> None:
        """Shift the bias so that on inputs `x` the logits have that `mean` [O]."""
        self.bias.add_(mean - self(x).transpose(0, 1).flatten(1).mean(1))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.integers(), self.units()
        if not self.training:  # a wide layer's sums pass 2**24, where float32 no longer counts by one
            return (_sums(x.double(), weight.double(), bias.double()) * self.scale.double()).to(x.dtype)
        return _sums(x, weight, bias) * self.scale

    def units(self) -> Tensor:
        """The bias in units of the logits, as it is stored, with a gradient."""
        real = self.bias / self.scale.detach()
        return whole_biases(real.clamp(-self.bias_limit, self.bias_limit), self.bias_bits)

    @torch.no_grad()
    def arrays(self) -> dict[str, np.ndarray]:
        bias = self.units()
        return {
            "weight": self.integers().cpu().numpy().astype(np.int8),
            "bias": bias.cpu().numpy().astype(np.int32),
        }


def _sums(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A dense layer of a vector, or of each pixel of a map."""
    if x.ndim == 2:
        return F.linear(x, weight) + bias
    return F.conv2d(x, weight[:, :, None, None]) + bias[:, None, None]


class QuantLookup(nn.Module):
    """A function of one value as a table over its integers; in training with the function's own gradient.

    `source` is the float op that is tabulated, `weights` what it has learnt; `low` is the lowest input, `unit` and
    `out` are the real values of one unit before and behind. Channels that differ have a table each.
    """

    def __init__(
        self, name: str, source: Op, weights: Mapping[str, Tensor], low: int, unit: float, out: float
    ):
        super().__init__()
        self.source, self.low, self.unit, self.out = source, low, unit, out
        self.roles = tuple(weights)
        for role, tensor in weights.items():
            self.register_buffer(role, tensor)
        channels = max([len(w) for w in weights.values()] + [len(source.attrs.get("scales", [0]))])
        codes = torch.arange(low, 128.0).expand(1, channels, 1, -1)
        table = (self.real(codes) + 0.5).floor()[0, :, 0]
        if bool((table == table[:1]).all()):
            table = table[:1]
        signed = bool((table < 0).any())
        self.lo = -127 if signed else 0
        self.table: Tensor
        self.register_buffer("table", table.clamp(self.lo, 127))
        self.op = Op("lookup", name, source.inputs, {"signed": signed})

    def real(self, x: Tensor) -> Tensor:
        """The function of integers [n, C, H, W], in units of what comes out."""
        return (
            TORCH[self.source.kind](self.source, [x * self.unit], {r: getattr(self, r) for r in self.roles})
            / self.out
        )

    def forward(self, x: Tensor) -> Tensor:
        axes = [-1] + [1] * (x.ndim - 2)
        row = torch.arange(len(self.table), device=x.device).reshape(axes)
        exact = self.table[row, (x.detach() - self.low).long()]
        if not self.training:
            return exact
        whole = x if x.ndim == 4 else x[:, :, None, None]
        return ste(exact, self.real(whole).clamp(self.lo, 127).reshape(x.shape))

    def arrays(self) -> dict[str, np.ndarray]:
        table = self.table.cpu().numpy().astype(np.int32)
        return {"table": table[0] if len(table) == 1 else table}
