"""Finite automata over the signs of a number, run beside the decoder: a path they refuse is never a path.

Each is deterministic from every start, and accepts a text from one start at most; so does a product. Separators pass
through all but the pattern and `Without`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from netsuke.reader.lattice import Automaton

Values = Callable[[int], Sequence[Sequence[int]]]  # of n digits: what digit d counts at place i, [n][10]


@dataclass(frozen=True)
class Length:
    """From `least` to `most` digits."""

    least: int
    most: int

    def starts(self) -> Iterable[int]:
        return (0,)

    def step(self, state: Any, symbol: str) -> int | None:
        if not symbol.isdigit():
            return state
        return state + 1 if state < self.most else None

    def accepts(self, state: Any) -> bool:
        return state >= self.least


@dataclass(frozen=True)
class Between:
    """A whole number from `low` to `high`, leading zeros allowed, of `least` to `longest` digits.

    A state is (digits still to come, still equal to the low bound, still equal to the high one): digit by digit.
    """

    low: int
    high: int
    least: int
    longest: int

    def starts(self) -> Iterable[tuple[int, bool, bool]]:
        return (
            (n, True, n >= len(str(self.high)))  # fewer digits than the high bound has never reach it
            for n in range(max(self.least, len(str(self.low))), self.longest + 1)
        )

    def step(self, state: Any, symbol: str) -> tuple[int, bool, bool] | None:
        if not symbol.isdigit():
            return state
        left, at_low, at_high = state
        if not left:
            return None
        digit, place = int(symbol), 10 ** (left - 1)
        low, high = self.low // place % 10, self.high // place % 10
        if (at_low and digit < low) or (at_high and digit > high):
            return None
        return left - 1, at_low and digit == low, at_high and digit == high

    def accepts(self, state: Any) -> bool:
        return state[0] == 0


@dataclass(frozen=True)
class Checksum:
    """The values of the digits add up to `target`, modulo `modulus`.

    `lengths` are the numbers of digits it may have. A state is (length, place, sum): as the length is chosen at the
    start, weights may count from either end.
    """

    values: Values
    modulus: int
    target: int
    lengths: tuple[int, ...]

    def starts(self) -> Iterable[tuple[int, int, int]]:
        return ((n, 0, 0) for n in self.lengths)

    def step(self, state: Any, symbol: str) -> tuple[int, int, int] | None:
        if not symbol.isdigit():
            return state
        n, place, total = state
        if place == n:
            return None
        return n, place + 1, (total + self.values(n)[place][int(symbol)]) % self.modulus

    def accepts(self, state: Any) -> bool:
        n, place, total = state
        return place == n and total == self.target


@dataclass(frozen=True)
class Without:
    """No text that holds one of these signs."""

    signs: str

    def starts(self) -> Iterable[tuple[()]]:
        return ((),)

    def step(self, state: Any, symbol: str) -> tuple[()] | None:
        return None if symbol in self.signs else state

    def accepts(self, state: Any) -> bool:
        return True


@dataclass(frozen=True)
class All:
    """What all of some automata accept."""

    parts: tuple[Automaton, ...]

    def starts(self) -> Iterable[Hashable]:
        return product(*(part.starts() for part in self.parts))

    def step(self, state: Any, symbol: str) -> Hashable | None:
        after = []
        for part, old in zip(self.parts, state, strict=True):
            new = part.step(old, symbol)
            if new is None:
                return None
            after.append(new)
        return tuple(after)

    def accepts(self, state: Any) -> bool:
        return all(part.accepts(old) for part, old in zip(self.parts, state, strict=True))


def is_empty(automaton: Automaton, symbols: str, most: int = 20_000) -> bool:
    """Whether an automaton accepts no text of these symbols; False, too, where `most` states do not tell."""
    ahead = list(automaton.starts())
    seen = set(ahead)
    while ahead and len(seen) < most:
        state = ahead.pop()
        if automaton.accepts(state):
            return False
        for after in (automaton.step(state, symbol) for symbol in symbols):
            if after is not None and after not in seen:
                seen.add(after)
                ahead.append(after)
    return not ahead
