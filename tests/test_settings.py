"""Options from text and tables: typed, checked, the nearest name told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.errors import OptionError
from netsuke.settings import filled, pairs, unknown, value


@dataclass(frozen=True)
class Inner:
    depth: int = 1
    seed: int = 0
    label: str = "plain"

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise OptionError(f"depth must not be negative; got {self.depth}")

    @classmethod
    def parse(cls, text: str) -> Inner:
        return cls(label=text)


@dataclass(frozen=True)
class Outer:
    amount: float = 0.5
    count: int = 3
    on: bool = False
    name: str = "x"
    mode: Literal["a", "b"] = "a"
    layers: Mapping[str, int] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    rates: tuple[tuple[str, float], ...] = ()
    limit: int | None = None
    seed: int = 0
    inner: Inner = field(default_factory=lambda: Inner(depth=7))


def test_every_kind_of_field() -> None:
    got = filled(
        Outer(),
        {
            "amount": 1, "on": True, "mode": "b", "layers": {"conv*": 4}, "skip": ["a", "b"],
            "rates": [["x.*", 1]], "limit": 3, "inner": {"label": "y"},
        },
    )  # fmt: skip
    assert got == Outer(
        1.0, 3, True, "x", "b", {"conv*": 4}, ("a", "b"), (("x.*", 1.0),), 3, 0, Inner(7, 0, "y")
    )
    assert isinstance(got.amount, float)


def test_a_table_changes_a_default_of_the_outer_class() -> None:
    assert filled(Outer(), {"inner": {"seed": 2}}).inner == Inner(depth=7, seed=2)
    assert filled(Outer(), {"inner": "text"}).inner == Inner(label="text")


def test_shared_values_reach_every_depth_and_yield_to_the_table() -> None:
    got = filled(Outer(), {"inner": {"seed": 5}}, {"seed": 9, "nowhere": 1})
    assert (got.seed, got.inner.seed) == (9, 5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"ammount": 1}, "no option 'ammount'; did you mean 'amount'?"),
        ({"inner": {"dept": 1}}, "no option 'inner.dept'; did you mean 'inner.depth'?"),
        ({"amount": "much"}, "amount must be a number; got 'much'"),
        ({"amount": True}, "amount must be a number; got True"),
        ({"count": 1.5}, "count must be a whole number; got 1.5"),
        ({"count": True}, "count must be a whole number; got True"),
        ({"on": 1}, "on must be true or false; got 1"),
        ({"name": 1}, "name must be a text; got 1"),
        ({"mode": "c"}, "mode must be one of a, b; got 'c'"),
        ({"layers": {"c": "x"}}, "layers.c must be a whole number; got 'x'"),
        ({"layers": 3}, "layers must be a table; got 3"),
        ({"skip": "a"}, "skip must be a list; got 'a'"),
        ({"skip": [1]}, "skip must be a text; got 1"),
        ({"rates": [["a"]]}, "rates takes 2 values; got ['a']"),
        ({"limit": "a"}, "limit must be a whole number; got 'a'"),
        ({"inner": 3}, "inner must be a table; got 3"),
        ({"inner": {"depth": -1}}, "inner: depth must not be negative; got -1"),
    ],
)
def test_what_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as error:
        filled(Outer(), table)
    assert str(error.value) == message


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=4,
    )
    | st.fixed_dictionaries(
        {},
        optional={
            f.name: st.none()
            | st.integers()
            | st.text(max_size=3)
            | st.lists(st.integers(), max_size=2)
            | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
            for f in fields(Outer)
        },
    )
)
def test_any_table_gives_the_class_or_one_line(table: dict[str, Any]) -> None:
    with suppress(OptionError):
        assert isinstance(filled(Outer(), table), Outer)


def test_nearest_name_or_the_list() -> None:
    assert unknown("prunne", ["prune", "train"], "step") == "no step 'prunne'; did you mean 'prune'?"
    assert unknown("zzz", ["prune", "train"], "step") == "no step 'zzz'; there are prune, train"


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.integers() | st.booleans() | st.floats(allow_nan=False),
        max_size=4,
    )
)
def test_pairs_and_values_come_back(table: dict[str, Any]) -> None:
    text = ",".join(f"{k}={v}" for k, v in table.items())
    got = {k: value(v) for k, v in pairs(text, "options").items()}
    assert set(got) == set(table)
    for key, wanted in table.items():
        assert got[key] == wanted or math.isclose(got[key], wanted)
        assert type(got[key]) is type(wanted)


@pytest.mark.parametrize("text", ["a", "a=", "=", "a=1,a=2", "a=1,,b"])
def test_pairs_refused(text: str) -> None:
    with pytest.raises(OptionError):
        pairs(text, "options")
