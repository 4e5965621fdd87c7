"""How LiteRT requantises, and scales with which it gives what the contract gives.

XNNPACK, which LiteRT runs by default, multiplies sums by a float32 scale and rounds half to even. The built-in kernels
multiply by a 31-bit fraction and shift, rounding once or twice. A file cannot choose, so a scale is sought with which
all three keep every step of the contract; failing that, one for XNNPACK; failing that, one near m / 2^s, which is then
wrong by one step at some sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from netsuke.export.rounding import Stairs, stairs

UNSIGNED = np.float32(1)  # of activations 0..127, so that real values are the integers themselves
# Of activations -127..127 that an operator cuts: its RELU_N1_TO_1 then ends at -127, where int8 alone ends at -128.
SIGNED = np.float32(1 / 127)
SCALES = 2.0**-31, 255.0  # between which XNNPACK takes the scale of a sum
NUDGES = (0, 1, -1, 4, -4, 16, -16, 64, -64)  # units in the last place of float32, tried in this order
TRIED = 32  # offsets
# Of an input of a sum to its output: the built-in kernels narrow the sum to 16 bits before they cut it.
MOST_OF_SUM = 127.0
QUICK, BOTH = 1.0, 2.0
EXACT = 1 << 24  # whole numbers up to here are exact in float32


@dataclass(frozen=True)
class Scales:
    """What a layer is stored with: its weights times `gain`, its sums moved by `offsets` [O], scales float32 [O]."""

    values: np.ndarray
    proved: bool  # with XNNPACK
    gain: int = 1
    offsets: np.ndarray | int = 0


def fixed(acc: np.ndarray, scale: np.ndarray, *, once: bool) -> np.ndarray:
    """int64 sums times float64 scales as the built-in kernels multiply: a fraction of 31 bits, then a shift.

    `once` rounds half up at the end, as builds with TFLITE_SINGLE_ROUNDING; else the high half of the doubled product
    is rounded, then the shift, both half away from zero.
    """
    fraction, exponent = np.frexp(scale)
    whole = np.rint(fraction * 2.0**31).astype(np.int64)
    full = whole == 1 << 31
    whole, exponent = np.where(full, whole >> 1, whole), np.where(full, exponent + 1, exponent)
    left, right = np.maximum(exponent, 0).astype(np.int64), np.maximum(-exponent, 0).astype(np.int64)
    if once:
        product = acc * whole  # below 2^62
        total = np.int64(31) - exponent
        return (product + (np.int64(1) << (total - 1))) >> total
    wide = np.clip(acc << left, -(1 << 31), (1 << 31) - 1) * whole  # where it saturates, so does the level
    high = _away(wide, np.int64(31))
    return _away(high, right)


def _away(value: np.ndarray, shift: np.ndarray | np.int64) -> np.ndarray:
    """value / 2^shift, rounded half away from zero."""
    half = (np.int64(1) << shift) >> 1
    return np.sign(value) * ((np.abs(value) + half) >> shift)


def single(acc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """int64 sums times float32 scales as XNNPACK multiplies."""
    return np.rint(acc.astype(np.float32) * scale.astype(np.float32))


def effective(source: np.float32, weight: np.ndarray, target: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """What runtimes make of the three scales of a layer: XNNPACK's, float32, and the built-in kernels', float64."""
    return source * weight / target, np.float64(source) * weight.astype(np.float64) / np.float64(target)


def weight_scales(
    bounds: tuple[np.ndarray, np.ndarray],
    m: np.ndarray,
    s: np.ndarray,
    source: np.float32,
    target: np.float32,
    *,
    signed: bool,
    near: np.ndarray,
    room: int = 1,
) -> Scales:
    """Scales of the weights of each channel, from activations of scale `source` to those of scale `target`.

    `bounds`, `m` and `s` are those of `stairs`. Where a signed layer has ties above and below zero, no scale alone
    rounds all of them up; weights of few bits have `room` for a factor, and an offset below it then does. What is
    still not proved goes wrong as far from the sums `near` [O] as can be: of a black image.
    """
    count = len(m)
    best, offsets = np.ones(count, np.float32), np.zeros(count, np.int64)
    score = np.full(count, -1.0)
    gain = max(1, min(room, EXACT // max(1, int(np.abs(bounds).max()))))
    for offset in range(0, gain, max(1, gain // TRIED)):
        steps = stairs(*bounds, m, s, signed=signed, gain=gain, offset=offset)
        wanted = np.clip(steps.middle, *SCALES) * (np.float64(target) / np.float64(source))
        first = wanted.astype(np.float32)
        for nudge in NUDGES:
            tried = (first.view(np.int32) + np.int32(nudge)).view(np.float32)
            now = _score(steps, effective(source, tried, target), gain * near + offset)
            better = now > score
            best, offsets = np.where(better, tried, best), np.where(better, offset, offsets)
            score = np.maximum(now, score)
            if (score == BOTH).all():
                break
        if (score >= QUICK).all():
            break
    return Scales(best, bool((score >= QUICK).all()), gain, offsets)


def _score(steps: Stairs, scales: tuple[np.ndarray, np.ndarray], near: np.ndarray) -> np.ndarray:
    """BOTH where all runtimes keep every step, QUICK where XNNPACK does, else by how far the nearest miss lies."""
    narrow, wide = (column[:, None] for column in scales)
    miss = steps.misses(partial(single, scale=narrow), near)
    slow = [steps.agrees(partial(fixed, scale=wide, once=once)) for once in (False, True)]
    share = np.minimum(miss, 1 << 40) / (1 << 41)
    return np.where(np.isinf(miss), np.where(slow[0] & slow[1], BOTH, QUICK), share)


# --- sums of two activations ------------------------------------------------------------------------


def quick_sum(a: np.ndarray, b: np.ndarray, scales: tuple[np.float32, np.float32, np.float32]) -> np.ndarray:
    """int64 activations a and b of two scales, added at a third, as XNNPACK adds; not yet cut."""
    one, two = scales[0] / scales[2], scales[1] / scales[2]
    shift = int(20 - (np.frexp(max(one, two))[1] - 1))
    m, n = (int(np.rint(np.ldexp(np.float64(x), shift))) for x in (one, two))
    return (a * m + b * n + (1 << (shift - 1))) >> shift


def sum_limits(one: np.float32, two: np.float32) -> bool:
    """Whether XNNPACK takes the ratios of the inputs' scales to the output's."""
    return all(2.0**-10 <= x < 2.0**8 for x in (one, two))
