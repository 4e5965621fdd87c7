"""The integer contract's arithmetic on float32 tensors that hold whole numbers, with gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from netsuke.errors import GraphError, OptionError
from netsuke.graph import INT32_MAX
from netsuke.lab.native.library import library
from netsuke.lab.native.network import Rounded

MULTIPLIER_MAX = 255  # one stored byte
# With 8-bit multipliers float32 then holds every product in range exactly, as ONNX Runtime needs.
SHIFT_MAX = 14
STEPS = ("follow", "learned")
BIAS_BITS = (8, 16, 32)
BIAS_MAX = 127 * 2.0**17  # of a bias in one byte with its layer's shift: float32 counts by one up to 2**24


@dataclass(frozen=True)
class Widths:
    """How weights and biases are stored, and where the steps of the weights come from.

    `layers` gives ops whose name matches a pattern a width of their own; the last that matches counts. `clip`
    lets large weights be clipped (see `shares`). `steps` is "follow" (`steps`) or "learned" (`learned_step`).
    With `keep_zeros`, weights that were pruned stay zero in training.
    """

    bits: int = 8
    bias_bits: int = 32
    clip: bool = True
    layers: Mapping[str, int] = field(default_factory=dict)
    steps: str = "follow"
    keep_zeros: bool = True

    def __post_init__(self) -> None:
        for bits in (self.bits, *self.layers.values()):
            if not 1 <= bits <= 8:
                raise OptionError(f"weights take 1 to 8 bits; got {bits}")
        if self.bias_bits not in BIAS_BITS:
            raise OptionError(f"biases take 8, 16 or 32 bits; got {self.bias_bits}")
        if self.steps not in STEPS:
            raise OptionError(f"no steps {self.steps!r}; there are {', '.join(STEPS)}")

    def of(self, name: str) -> int:
        """The width of the weights of the op called `name`."""
        return self.own(name) or self.bits

    def own(self, name: str) -> int | None:
        """The width that `layers` gives the op called `name`."""
        fitting = [bits for pattern, bits in self.layers.items() if fnmatchcase(name, pattern)]
        return fitting[-1] if fitting else None


def weight_limit(bits: int) -> int:
    """The largest magnitude of a weight of so many bits; the range is symmetric."""
    return max(1, (1 << (bits - 1)) - 1)


def ste(exact: Tensor, smooth: Tensor) -> Tensor:
    """The value of `exact` with the gradient of `smooth` (Bengio et al., 2013)."""
    return smooth + (exact - smooth).detach()


class Activation(torch.autograd.Function):
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


def learned_step(logarithm: Tensor, count: int, bits: int) -> Tensor:
    """Steps that train (Esser et al., Learned Step Size Quantization, 2020), from their logarithms.

    Logarithms, so that Adam moves a step by a share of itself. `count` is the number of weights of a step: the
    gradient is scaled by 1 / sqrt(count * last level), as the paper does to match that of the weights.
    """
    scale = 1 / math.sqrt(count * weight_limit(bits))
    return ste(logarithm, logarithm * scale).exp()


def rounded(weight: Tensor, bits: int, share: Tensor) -> Tensor:
    """Weights in whole steps, within the range of `bits`, with the gradient of the real ones inside it."""
    if bits > 1 and weight.device.type == "cpu" and library() is not None:
        return Rounded.apply(weight, share, weight_limit(bits))
    return in_steps(weight, bits, steps(weight, bits, share))


def in_steps(weight: Tensor, bits: int, step: Tensor) -> Tensor:
    """Weights in whole steps [O] or [1], within the range of `bits`.

    The gradient is that of the real quotient inside the range, and reaches a step that trains: as a norm follows,
    which takes any common factor out, it is the one of Esser et al.
    """
    real = weight / step.reshape(-1, *[1] * (weight.ndim - 1))
    if bits == 1:
        return ste(torch.where(real >= 0, 1.0, -1.0), real.clamp(-1, 1))
    limit = weight_limit(bits)
    real = real.clamp(-limit, limit)
    return ste(real.round(), real)


def bias_limits(bits: int, bound: Tensor) -> Tensor:
    """The largest |bias| of each channel [O] whose weights alone reach |sum| `bound`.

    In one byte with a shift it is what 16 bits hold or, for wider sums, twice the sums: the limit takes
    digits from the multiplier, and a bias beyond it leaves the channel constant or cut.
    """
    if bits == 8:
        return (2 * bound).clamp(2.0**15, BIAS_MAX)
    return torch.full_like(bound, min(2.0 ** (bits - 1) - 1, 2.0**24))  # float32 counts no further


@dataclass(frozen=True)
class Outcome:
    """What a layer's channels [O] yield: `mean` and `spread` of factor * (sum + bias), which is then cut at `lo`."""

    factor: Tensor
    mean: Tensor
    spread: Tensor
    lo: int


NORMAL = (
    (-2.0, 0.06),
    (-1.0, 0.24),
    (0.0, 0.4),
    (1.0, 0.24),
    (2.0, 0.06),
)  # places and shares of a bell curve


@torch.no_grad()
def bias_shift(real: Tensor, outcome: Outcome | None = None) -> int:
    """The k of a layer whose biases are a byte times 2^k.

    The least with |bias| <= 127 * 2^k for all of them or, with `outcome`, the one up to there with the least squared
    error of what comes out: the bias of a channel that is always zero, or hardly changes, can be huge, and would leave
    the others no digits.
    """
    most = max(0, math.ceil(math.log2(max(float(real.abs().max()), 1.0) / 127)))
    if outcome is None or not most:
        return most
    place, share = real.new_tensor(NORMAL).T
    sums = outcome.mean[:, None] + outcome.spread[:, None] * place
    step = 2.0 ** torch.arange(most + 1, device=real.device)[:, None]
    moved = (in_bytes(real, step) - real) * outcome.factor
    error = (sums + moved[..., None]).clamp(outcome.lo, 127) - sums.clamp(outcome.lo, 127)
    return int((error.square() * share).sum((1, 2)).argmin())


def in_bytes(real: Tensor, step: Tensor | float) -> Tensor:
    """The nearest value that a byte holds in these steps."""
    return (real / step).round().clamp(-127, 127) * step


def whole_biases(real: Tensor, bits: int, outcome: Outcome | None = None) -> Tensor:
    """Biases as they are stored, with the gradient of the real ones; of 8 bits, a byte times the layer's 2^k."""
    if bits == 8:
        return ste(in_bytes(real, 2.0 ** bias_shift(real, outcome)), real)
    return ste(real.round(), real)


def multipliers(gain: Tensor, bound: Tensor, spread: Tensor | None = None) -> tuple[Tensor, int]:
    """Multipliers m [O] of one byte and the layer's shift s with m / 2^s near `gain` >= 0.

    The shift is the one with the least squared error of what comes out, where a channel's sums deviate by
    `spread`: a channel that never changes gets a huge gain from its norm, and must not starve the others of
    digits. Without `spread` it is the least relative error. `bound` is the largest |sum| of each channel: m is
    cut where a product could leave int32.
    """
    weight = 1 / gain.clamp(min=1e-12) if spread is None else spread
    best, least = (torch.zeros_like(gain), 0), torch.inf
    for shift in range(SHIFT_MAX + 1):
        most = ((INT32_MAX - 2.0**shift) / bound.double()).floor().clamp(max=MULTIPLIER_MAX).to(gain)
        if float(most.min()) < 1:
            break
        m = torch.minimum((gain * 2.0**shift).round(), most)
        error = float(((m / 2.0**shift - gain) * weight).square().sum())
        if error < least:
            best, least = (m, shift), error
    if least == torch.inf:
        raise GraphError("a layer's sums are too large for int32; use fewer bits or a narrower layer")
    return best
