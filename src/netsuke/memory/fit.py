"""First fit: buffers with lifetimes, at the lowest offsets in one block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

WORD = 4  # bytes; every buffer of words is aligned to it, and so is the whole block


@dataclass(frozen=True)
class Buffer:
    """`size` bytes that must last from moment `first` to moment `last`, both included."""

    name: str
    size: int
    align: int
    first: int
    last: int
    below: Mapping[str, int] = field(default_factory=dict)  # it may overlap these if it starts so much lower,
    above: Mapping[str, int] = field(default_factory=dict)  # or so much higher


def fit(buffers: Sequence[Buffer]) -> tuple[dict[str, int], int]:
    """The offset of every buffer, and the bytes of the smallest block that first fit finds, in whole words."""
    orders = (
        sorted(buffers, key=lambda b: -b.size),
        sorted(buffers, key=lambda b: b.first),
        sorted(buffers, key=lambda b: -b.last),
    )
    offsets, size = min((_placed(order) for order in orders), key=lambda found: found[1])
    return offsets, -(-size // WORD) * WORD


def _placed(order: Iterable[Buffer]) -> tuple[dict[str, int], int]:
    """Each buffer, in this order, at the lowest offset that its contemporaries leave."""
    placed: list[tuple[Buffer, int]] = []
    for buffer in order:
        others = [(b, at) for b, at in placed if b.first <= buffer.last and buffer.first <= b.last]
        corners = {0}
        for b, at in others:
            corners |= {at, at + b.size, at + b.below.get(buffer.name, 0), at - buffer.below.get(b.name, 0)}
            corners |= {at - b.above.get(buffer.name, 0), at + buffer.above.get(b.name, 0)}
        offsets = sorted({-(-at // buffer.align) * buffer.align for at in corners if at >= 0})
        at = next(o for o in offsets if not any(_clash(buffer, o, b, at) for b, at in others))
        placed.append((buffer, at))
    return {b.name: at for b, at in placed}, max((at + b.size for b, at in placed), default=0)


def _clash(a: Buffer, at: int, b: Buffer, bt: int) -> bool:
    if at + a.size <= bt or bt + b.size <= at:
        return False
    return not (_lies_over(a, at, b, bt) or _lies_over(b, bt, a, at))


def _lies_over(a: Buffer, at: int, b: Buffer, bt: int) -> bool:
    """Whether `a` may be written over `b` in these places."""
    return (b.name in a.below and at + a.below[b.name] <= bt) or (
        b.name in a.above and at >= bt + a.above[b.name]
    )
