"""The decoder against brute force: every path of small random lattices, with and without constraints."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.reader import Field
from netsuke.reader.lattice import Edge, decode
from netsuke.reader.sums import value

ALL = 10_000  # texts: more than any of these lattices has


@st.composite
def lattices(draw: st.DrawFn) -> tuple[int, list[Edge]]:
    atoms = draw(st.integers(1, 5))
    spans = [(a, b) for a in range(atoms) for b in range(a + 1, min(a + 3, atoms) + 1)]
    edge = st.tuples(st.sampled_from(spans), st.sampled_from(["", *"0123456789", *".,-"]), st.floats(-6, 1))
    drawn = draw(st.lists(edge, min_size=atoms, max_size=14, unique_by=lambda e: e[:2]))
    return atoms, [Edge(*span, symbol, weight, key) for key, (span, symbol, weight) in enumerate(drawn)]


def paths(atoms: int, edges: list[Edge], at: int = 0) -> Iterator[list[Edge]]:
    if at == atoms:
        yield []
    for edge in edges:
        if edge.start == at:
            yield from ([edge, *rest] for rest in paths(atoms, edges, edge.stop))


def brute(atoms: int, edges: list[Edge], admits: Callable[[str], bool]) -> tuple[dict[str, float], float]:
    """Probability of each admitted text, and the share of all paths that is admitted."""
    weight: dict[str, float] = defaultdict(float)
    every = 0.0
    for path in paths(atoms, edges):
        text, product = "".join(edge.symbol for edge in path), exp(sum(edge.weight for edge in path))
        every += product
        if admits(text):
            weight[text] += product
    total = sum(weight.values())
    return {text: w / total for text, w in weight.items()}, total / every if every else 0.0


@given(lattices())
def test_all_texts_and_their_probabilities(lattice):
    atoms, edges = lattice
    expected, _ = brute(atoms, edges, lambda text: True)
    found = decode(atoms, edges, best=ALL, beam=ALL)
    assert {path.text: path.probability for path in found} == pytest.approx(expected)
    assert [path.probability for path in found] == sorted((path.probability for path in found), reverse=True)
    for path in found:
        assert "".join(edge.symbol for edge in path.edges) == path.text
        ends = [0, *(edge.stop for edge in path.edges)]
        assert [edge.start for edge in path.edges] == ends[:-1]
        assert ends[-1] == atoms
        top = max(
            sum(e.weight for e in p) for p in paths(atoms, edges) if "".join(e.symbol for e in p) == path.text
        )
        assert sum(edge.weight for edge in path.edges) == pytest.approx(top)


def luhn(text: str) -> bool:
    digits = [int(sign) for sign in reversed(text) if sign.isdigit()]
    doubled = (sum(divmod(2 * d, 10)) if i % 2 else d for i, d in enumerate(digits))
    return len(digits) >= 2 and sum(doubled) % 10 == 0


def within(low: int, high: int, text: str) -> bool:
    """Whether a text is worth that much; of decimals a range takes two at most."""
    behind = re.split("[.,]", text.replace("-", "").rstrip(".,"))[1:]
    return low <= value(text) <= high and len("".join(behind[-1:])) <= 3


FIELDS = {
    "length": (Field(length="2..3"), lambda t: 2 <= sum(c.isdigit() for c in t) <= 3),
    "range": (Field(range="7..120"), lambda t: within(7, 120, t)),
    "pattern": (Field(pattern=r"\d{1,2}[.,]?\d*"), lambda t: bool(re.fullmatch(r"\d{1,2}[.,]?\d*", t))),
    "luhn": (Field(checksum="luhn"), luhn),
    "no separators": (Field(separators=False), lambda t: not set(t) & set(".,-")),
    "both": (Field(length=3, checksum="luhn"), lambda t: sum(c.isdigit() for c in t) == 3 and luhn(t)),
}


@pytest.mark.parametrize("name", FIELDS)
@given(lattice=lattices())
def test_constraints_hold_and_nothing_else_is_lost(name, lattice):
    (atoms, edges), (field, admits) = lattice, FIELDS[name]
    expected, share = brute(atoms, edges, admits)
    found = decode(atoms, edges, field.automaton(atoms), best=ALL, beam=ALL)
    assert {path.text: path.probability for path in found} == pytest.approx(expected)
    for path in found:
        assert path.admitted == pytest.approx(share)


@given(lattices())
def test_a_narrow_beam_keeps_the_constraints(lattice):
    atoms, edges = lattice
    for path in decode(atoms, edges, Field(length="1..3", checksum="luhn").automaton(atoms), best=3, beam=1):
        assert luhn(path.text)
        assert path.probability <= 1


def test_one_text_of_two_segmentations_counts_twice():
    edges = [Edge(0, 1, "1", 0), Edge(1, 2, "", 0), Edge(0, 2, "1", 0), Edge(0, 2, "7", 0.5)]
    first, second = decode(2, edges)
    assert (first.text, second.text) == ("1", "7")
    assert first.probability == pytest.approx(2 / (2 + exp(0.5)))


def test_no_path_no_text():
    assert decode(2, [Edge(0, 1, "1", 0.0)]) == []
    assert decode(1, [Edge(0, 1, "1", 0.0)], Field(length=2).automaton(1)) == []
    (nothing,) = decode(0, [])
    assert (nothing.text, nothing.probability) == ("", 1.0)
