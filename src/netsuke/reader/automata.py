"""Finite automata over the signs of a number, run beside the decoder: a path they refuse is never a path.

Each is deterministic from every start, and accepts a text from one start at most; so does a product. Separators pass
through all but the pattern and `Without`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from netsuke.reader.lattice import Automaton

PLACES = 1, 2  # digits behind a decimal mark
THOUSANDS = 3  # and behind one that is none
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


class Counted(NamedTuple):
    """How far a number has been read: digits to come before and behind its decimal mark, how many there are behind it;
    whether it still equals the bounds; and how many digits stood behind the last `.` or `,` that was no end."""

    whole: int
    decimal: int
    places: int
    at_low: bool
    at_high: bool
    behind: int = 0


@dataclass(frozen=True)
class Between:
    """A number worth `low` to `high`, leading zeros allowed, of `least` to `longest` digits.

    What it is worth is what `sums.value` says: a `.` or `,` with PLACES behind it is a decimal mark, with THOUSANDS it
    parts those; other decimals are refused.
    """

    low: int
    high: int
    least: int
    longest: int

    def starts(self) -> Iterable[Counted]:
        fewest = len(str(self.low)) if self.low else 0
        for places in (0, *PLACES):
            for whole in range(
                max(fewest, self.least - places, 0 if places else 1), self.longest - places + 1
            ):
                # fewer digits than the high bound has never reach it
                yield Counted(whole, places, places, True, whole >= len(str(self.high)) or not self.high)

    def step(self, state: Any, symbol: str) -> Counted | None:
        left = state.whole + state.decimal
        if not symbol.isdigit():
            if symbol == "-" or not left:
                return state
            return None if left < state.places else state._replace(behind=left)
        digit = int(symbol)
        if not state.whole:  # at the high bound there is nothing behind the mark
            marked = state.decimal and state.behind == state.places and not (state.at_high and digit)
            return state._replace(decimal=state.decimal - 1) if marked else None
        place = 10 ** (state.whole - 1)
        low, high = self.low // place % 10, self.high // place % 10
        if (state.at_low and digit < low) or (state.at_high and digit > high):
            return None
        at_low, at_high = state.at_low and digit == low, state.at_high and digit == high
        return state._replace(whole=state.whole - 1, at_low=at_low, at_high=at_high)

    def accepts(self, state: Any) -> bool:
        parts = (state.places,) if state.places else (0, THOUSANDS)
        return not state.whole + state.decimal and state.behind in parts


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
