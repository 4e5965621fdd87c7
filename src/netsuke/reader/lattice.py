"""Best texts of a lattice: which ink is one sign, and which sign it is, decided together under the constraints.

A path covers all atoms of a row, from the left, by edges: a sign, or ink that is none. It weighs the product of its
edges' weights, so the weights are a semi-Markov conditional random field (Sarawagi and Cohen, 2004): the
probability of a text is the weight of all its paths as a share of that of all paths the constraints admit.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import exp, inf, log1p
from typing import Protocol


@dataclass(frozen=True)
class Edge:
    """Atoms `start` to `stop` (exclusive) read as `symbol` (empty: as no sign), with a log weight.

    `key` is the caller's."""

    start: int
    stop: int
    symbol: str
    weight: float
    key: int = -1


class Automaton(Protocol):
    """What texts are admitted. Deterministic from each start, and no text is accepted from two."""

    def starts(self) -> Iterable[Hashable]: ...
    def step(self, state: Hashable, symbol: str) -> Hashable | None: ...
    def accepts(self, state: Hashable) -> bool: ...


@dataclass(frozen=True)
class Path:
    """A text, its probability among all admitted, the edges of its heaviest path, and the share of all paths that
    the automaton admits at all."""

    text: str
    probability: float
    edges: tuple[Edge, ...]
    admitted: float = 1.0


class Anything:
    """Admits every text."""

    def starts(self) -> Iterable[Hashable]:
        return ((),)

    def step(self, state: Hashable, symbol: str) -> Hashable | None:
        return state

    def accepts(self, state: Hashable) -> bool:
        return True


@dataclass
class _Prefix:
    """A text so far: the weight of all its paths and of the heaviest, and that path as a linked list."""

    total: float
    best: float
    edges: tuple[Edge, tuple] | tuple[()]


def decode(
    atoms: int,
    edges: Sequence[Edge],
    automaton: Automaton | None = None,
    *,
    best: int = 5,
    beam: int = 8,
    slack: float = inf,
) -> list[Path]:
    """The `best` most probable texts that the automaton admits, the first first; none where it admits none.

    Keeps `beam` texts for each place and state of the automaton, and of these only what may yet become exp(-slack) of
    the weight of all paths: with no slack given and as wide a beam as there are texts the answer is exact.
    """
    automaton = automaton or Anything()
    leaving: dict[int, list[Edge]] = defaultdict(list)
    for edge in edges:
        if edge.weight > -inf:
            leaving[edge.start].append(edge)
    ahead = _ahead(atoms, leaving)
    places: list[dict[Hashable, dict[str, _Prefix]]] = [defaultdict(dict) for _ in range(atoms + 1)]
    mass: list[dict[Hashable, float]] = [{} for _ in range(atoms + 1)]
    for state in automaton.starts():
        places[0][state][""] = _Prefix(0.0, 0.0, ())
        mass[0][state] = 0.0
    for at in range(atoms):
        least = ahead[0] - ahead[at] - slack if ahead[at] > -inf else inf
        for state, texts in places[at].items():
            if mass[at][state] < least:
                continue
            kept = _heaviest(texts, beam, least)
            for edge in leaving[at]:
                after = automaton.step(state, edge.symbol) if edge.symbol else state
                if after is not None:
                    _extend(places[edge.stop][after], kept, edge)
                    onto = mass[edge.stop]
                    onto[after] = _add(onto.get(after, -inf), mass[at][state] + edge.weight)
        places[at] = {}
    return _ends(places[atoms], mass[atoms], automaton, best, ahead[0])


def _ahead(atoms: int, leaving: dict[int, list[Edge]]) -> list[float]:
    """Of each place: log weight of all ways from there to the end, admitted or not."""
    mass = [-inf] * atoms + [0.0]
    for at in reversed(range(atoms)):
        for edge in leaving[at]:
            mass[at] = _add(mass[at], edge.weight + mass[edge.stop])
    return mass


def _extend(onto: dict[str, _Prefix], texts: Iterable[tuple[str, _Prefix]], edge: Edge) -> None:
    for text, prefix in texts:
        longer, total, top = text + edge.symbol, prefix.total + edge.weight, prefix.best + edge.weight
        known = onto.get(longer)
        if known is None:
            onto[longer] = _Prefix(total, top, (edge, prefix.edges))
            continue
        known.total = _add(known.total, total)
        if top > known.best:
            known.best, known.edges = top, (edge, prefix.edges)


def _heaviest(texts: dict[str, _Prefix], most: int, least: float) -> list[tuple[str, _Prefix]]:
    kept = [item for item in texts.items() if item[1].total >= least]
    return kept if len(kept) <= most else heapq.nlargest(most, kept, key=lambda item: item[1].total)


def _ends(
    states: dict[Hashable, dict[str, _Prefix]],
    mass: dict[Hashable, float],
    automaton: Automaton,
    best: int,
    every: float,
) -> list[Path]:
    final: dict[str, _Prefix] = {}
    admitted = -inf
    for state, texts in states.items():
        if automaton.accepts(state):
            admitted = _add(admitted, mass[state])
            final.update(texts)  # a text is accepted in one state only
    top = heapq.nlargest(best, final.items(), key=lambda item: item[1].total)
    share = exp(min(admitted - every, 0.0)) if top else 0.0
    return [
        Path(text, exp(min(prefix.total - admitted, 0.0)), tuple(_chain(prefix.edges))[::-1], share)
        for text, prefix in top
    ]


def _chain(edges: tuple) -> Iterable[Edge]:
    while edges:
        yield edges[0]
        edges = edges[1]


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == -inf else a + log1p(exp(b - a))
