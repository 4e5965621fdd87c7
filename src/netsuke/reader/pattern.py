"""A subset of regular expressions as an automaton (Thompson, 1968; its sets of states are made as they are met).

Digits and `. , -` stand for themselves (a full stop may be `\\.` or `.`), `\\d` for any digit, `[0-4]` for one of
some, `(a|b)` for a choice; `?`, `*`, `+`, `{3}`, `{2,4}` and `{2,}` repeat what stands before them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from netsuke.errors import OptionError, typed

DIGITS = frozenset("0123456789")
SIGNS = DIGITS | frozenset(".,-")
MOST = 64  # repetitions, and characters of a pattern
NODES = 4096


class Pattern:
    """Accepts the texts that a pattern matches as a whole. Raises OptionError where it is not of the subset."""

    def __init__(self, text: str):
        self._arcs: list[list[tuple[frozenset[str] | None, int]]] = []  # None: without a sign
        self._text, self._at = text, 0
        if not text:
            raise OptionError(r"an empty pattern admits no number; one looks like \d{4}-\d{2}")
        if len(text) > MOST:
            raise OptionError(f"a pattern has at most {MOST} characters; got {len(text)}")
        first, self._last = self._choice()
        if self._at < len(text):
            raise self._wrong("a bracket that was not opened")
        self._start = self._reached({first})
        self._known: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def starts(self) -> Iterable[frozenset[int]]:
        return (self._start,)

    def step(self, state: Any, symbol: str) -> frozenset[int] | None:
        after = self._known.get((state, symbol))
        if after is None:
            after = self._reached(
                {to for node in state for signs, to in self._arcs[node] if signs and symbol in signs}
            )
            self._known[state, symbol] = after
        return after or None

    def accepts(self, state: Any) -> bool:
        return self._last in state

    def _reached(self, nodes: set[int]) -> frozenset[int]:
        waiting = list(nodes)
        while waiting:
            for signs, to in self._arcs[waiting.pop()]:
                if signs is None and to not in nodes:
                    nodes.add(to)
                    waiting.append(to)
        return frozenset(nodes)

    # --- the pattern's grammar: each part gives its first and last node ------------------------------

    def _choice(self) -> tuple[int, int]:
        first, last = self._node(), self._node()
        while True:
            a, b = self._sequence()
            self._arc(first, a)
            self._arc(b, last)
            if self._peek() != "|":
                return first, last
            self._at += 1

    def _sequence(self) -> tuple[int, int]:
        first = last = self._node()
        while self._peek() not in ("", "|", ")"):
            begin = self._at
            copies = [self._part()]
            least, most = self._times()
            after = self._at
            while len(copies) < max(least, most or 0):
                self._at = begin
                copies.append(self._part())
            self._at = after
            last = self._repeated(last, copies, least, most)
        return first, last

    def _repeated(self, last: int, copies: list[tuple[int, int]], least: int, most: int | None) -> int:
        """Joins copies of a part behind `last`: as many as there must be, then those that may be."""
        out = self._node()
        for k, (a, b) in enumerate(copies):
            if k >= least:
                self._arc(last, out)
            if most == 0:
                break
            self._arc(last, a)
            last = b
        if most is None:
            self._arc(last, copies[-1][0])
        self._arc(last, out)
        return out

    def _part(self) -> tuple[int, int]:
        begin = self._at
        sign = self._next("something to match")
        if sign == "(":
            inner = self._choice()
            if self._next("a closing )") != ")":
                raise self._wrong("a closing )")
            return inner
        signs = self._set() if sign == "[" else self._escaped() if sign == "\\" else frozenset(sign)
        if not signs <= SIGNS:
            part, self._at = self._text[begin : self._at], begin
            raise self._wrong(f"digits and . , - (not {typed(part)})")
        first, last = self._node(), self._node()
        self._arcs[first].append((signs, last))
        return first, last

    def _escaped(self) -> frozenset[str]:
        sign = self._next("d, ., or - after \\")
        return DIGITS if sign == "d" else frozenset(sign)

    def _set(self) -> frozenset[str]:
        signs: set[str] = set()
        while (sign := self._next("a closing ]")) != "]":
            if sign == "\\":
                signs |= self._escaped()
            elif (
                sign in DIGITS
                and self._text[self._at : self._at + 1] == "-"
                and self._text[self._at + 1 : self._at + 2] in DIGITS
            ):
                top = self._text[self._at + 1]
                if top < sign:
                    raise self._wrong(f"the smaller digit first, [{top}-{sign}]")
                signs |= {str(d) for d in range(int(sign), int(top) + 1)}
                self._at += 2
            else:
                signs.add(sign)
        if not signs:
            raise self._wrong("something in [ ]")
        return frozenset(signs)

    def _times(self) -> tuple[int, int | None]:
        """How often the part before may stand: least and most (None: no limit)."""
        simple = {"?": (0, 1), "*": (0, None), "+": (1, None)}
        sign = self._peek()
        if sign in simple and sign:
            self._at += 1
            return simple[sign]
        if sign != "{":
            return 1, 1
        end = self._text.find("}", self._at)
        low, comma, high = self._text[self._at + 1 : max(end, 0)].partition(",")
        if (
            end < 0
            or not low.isascii()
            or not low.isdigit()
            or not ((high.isascii() and high.isdigit()) or not high)
        ):
            raise self._wrong("{n}, {m,n} or {m,}")
        least, most = int(low), (int(high) if high else None) if comma else int(low)
        if max(least, most or 0) > MOST or (most is not None and most < least):
            raise self._wrong(f"numbers up to {MOST}, the smaller first")
        self._at = end + 1
        return least, most

    # --- characters and nodes ------------------------------------------------------------------------

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self, wanted: str) -> str:
        sign = self._peek()
        if not sign:
            raise self._wrong(wanted)
        self._at += 1
        return sign

    def _node(self) -> int:
        if len(self._arcs) == NODES:
            raise OptionError(f"pattern {typed(self._text)} is too large: write fewer or smaller repetitions")
        self._arcs.append([])
        return len(self._arcs) - 1

    def _arc(self, a: int, b: int) -> None:
        self._arcs[a].append((None, b))

    def _wrong(self, wanted: str) -> OptionError:
        return OptionError(f"pattern {typed(self._text)}: at character {self._at + 1} netsuke wants {wanted}")
