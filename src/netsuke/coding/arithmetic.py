"""An adaptive range coder for integers: binary decisions, each with a probability that learns as it goes.

The coder is LZMA's (Martin, Range encoding, 1979; Pavlov, 7-Zip): 32 bits of range, no table to store. A value is
split into decisions as exp-Golomb codes are (as in DeepCABAC, Wiedemann et al., 2020): the number of bits of |value|
in unary, the sign, then the bits below the leading one. `decoders/range.c` is the same decoder in C.

Measured on pruned, shared and 4-bit weights: contexts of neighbouring weights gained nothing; one set of contexts for
all layers of a kind beats one a layer on small networks; two rates of learning lose to one that slows down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from netsuke.errors import ArtifactError

TOP = 1 << 24  # below this the range takes in another byte
CLASSES = 31  # bits of the largest |value|
SIGN = 32
CONTEXTS = 32 + 4 * 32
SLOWEST = 63  # decisions after which a context has seen enough to keep its rate of 1/128
RATE = [(seen + 1).bit_length() for seen in range(SLOWEST + 1)]
PAD = bytes(8)
MAX_VALUES = 1024  # values that a byte may stand for: what a hostile file can make a reader do is bounded


def encode(units: Iterable[np.ndarray]) -> tuple[bytes, list[int]]:
    """One stream for all units of integers of less than 32 bits, and the bytes of it that each unit takes.

    Each unit starts with fresh contexts; the end of the stream is counted with the last one.
    """
    out, low, span, ends = bytearray(), 0, 0xFFFFFFFF, [0]
    steps: dict[int, list[tuple[int, int]]] = {}
    for unit in units:
        ps, seens = [1 << 15] * CONTEXTS, [0] * CONTEXTS
        values = unit.reshape(-1).tolist()
        steps |= {value: _decisions(value) for value in set(values) - steps.keys()}
        for value in values:
            for context, bit in steps[value]:
                p, seen = ps[context], seens[context]
                bound = (span >> 12) * (p >> 4)
                if bit:
                    low += bound
                    span -= bound
                    ps[context] = p - (p >> RATE[seen])
                else:
                    span = bound
                    ps[context] = p + ((65536 - p) >> RATE[seen])
                if seen < SLOWEST:
                    seens[context] = seen + 1
                while span < TOP:
                    span <<= 8
                    low = _shifted(low, out)
        ends.append(len(out))
    for _ in range(4):
        low = _shifted(low, out)
    ends[-1] = len(out)
    return bytes(out), [end - start for start, end in pairwise(ends)]


def _shifted(low: int, out: bytearray) -> int:
    """Put out the highest byte of `low`; a carry runs back through what is out already."""
    if low >> 32:
        at = len(out) - 1
        while out[at] == 255:
            out[at] = 0
            at -= 1
        out[at] += 1
    out.append(low >> 24 & 255)
    return low << 8 & 0xFFFFFFFF


def _decisions(value: int) -> list[tuple[int, int]]:
    """The contexts that a value goes through, each with the bit decided there."""
    size = abs(value)
    length = size.bit_length()
    steps = [(context, 1) for context in range(length)]
    if length < CLASSES:
        steps.append((length, 0))
    if length:
        steps.append((SIGN, int(value < 0)))
    prefix = 1
    for place in range(length - 2, -1, -1):
        bit = size >> place & 1
        steps.append((32 + 4 * length + (prefix if prefix < 4 else 0), bit))
        prefix = 2 * prefix + bit
    return steps


def decode(stream: bytes, counts: Sequence[int]) -> list[np.ndarray]:
    """The units of `encode`, of so many values each, as int32. Raises ArtifactError where the stream is another's."""
    if len(stream) < 4 or sum(counts) > MAX_VALUES * len(stream):
        raise ArtifactError(f"a range coded stream of {len(stream)} bytes cannot hold {sum(counts)} values")
    state, units = (4, 0xFFFFFFFF, int.from_bytes(stream[:4], "big")), []
    padded = stream + PAD
    for count in counts:
        unit, state = _unit(padded, count, state)
        units.append(unit)
        if state[0] > len(stream):
            break
    if state[0] != len(stream):
        raise ArtifactError(f"a range coded stream of {len(stream)} bytes does not end with its last value")
    return units


def _unit(stream: bytes, count: int, state: tuple[int, int, int]) -> tuple[np.ndarray, tuple[int, int, int]]:
    """`count` values from `state` (place, range, code) on: one loop over decisions, flat because it is hot."""
    at, span, code = state
    places, found = [], []  # of values that are not 0
    ps, seens, rates, end = [1 << 15] * CONTEXTS, [0] * CONTEXTS, RATE, len(stream) - len(PAD)
    done, context, length, size, negative = 0, 0, 0, 0, 0
    while done < count:
        p, seen = ps[context], seens[context]
        bound = (span >> 12) * (p >> 4)
        if code < bound:
            span, bit = bound, 0
            ps[context] = p + ((65536 - p) >> rates[seen])
        else:
            code -= bound
            span -= bound
            bit = 1
            ps[context] = p - (p >> rates[seen])
        if seen < SLOWEST:
            seens[context] = seen + 1
        while span < TOP:
            span <<= 8
            code = code << 8 | stream[at]
            at += 1
            if at > end:  # past what was coded: no need to go on
                return np.zeros(0, np.int32), (at, span, code)
        if size:  # below the leading one
            size = 2 * size + bit
        elif context == SIGN:
            negative, size = bit, 1
        elif bit and context < CLASSES - 1:
            context += 1
            continue
        else:
            length = context + bit
            if length:
                context = SIGN
                continue
            done += 1
            continue
        if size >> (length - 1):
            places.append(done)
            found.append(-size if negative else size)
            done, context, size = done + 1, 0, 0
        else:
            context = 32 + 4 * length + (size if size < 4 else 0)
    unit = np.zeros(count, np.int32)
    unit[places] = found
    return unit, (at, span, code)
