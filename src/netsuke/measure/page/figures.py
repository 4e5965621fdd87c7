"""How figures are written: percent, counts, times, and a dash for what was not measured."""

from __future__ import annotations

import math
from typing import Any

MISSING = "–"
SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def mean(spread: dict[str, Any] | None) -> float | None:
    """The mean of a {"mean", "stdev", "n"}, None where nothing was measured."""
    return None if spread is None else spread.get("mean")


def percent(share: float | None) -> str:
    """0.99123 -> 99.12"""
    return MISSING if share is None else f"{100 * share:.2f}"


def spread_percent(spread: dict[str, Any] | None, count: bool = False) -> str:
    """{"mean": 0.9912, "stdev": 0.0005, "n": 3} -> 99.12 ± 0.05 (3); one run has no deviation: 99.12."""
    if spread is None or spread.get("mean") is None:
        return MISSING
    text = percent(spread["mean"])
    if spread.get("stdev") is not None and spread.get("n") != 1:
        text += f" ± {percent(spread['stdev'])}"
    return f"{text} ({spread['n']})" if count and spread.get("n") else text


def whole(value: float | None) -> str:
    """61706 -> 61,706"""
    return MISSING if value is None else f"{value:,.0f}"


def digits(value: float | None) -> str:
    """Three significant digits without an exponent: 0.0123, 12.3, 1,230."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(places, 9)}f}"


def short(value: float) -> str:
    """For the ticks of an axis: 50, 20k, 1.5M."""
    for size, suffix in SUFFIXES:
        if abs(value) >= size * (1 - 1e-9):
            return f"{value / size:.6g}{suffix}"
    return f"{value:.6g}"


def plural(count: int, noun: str) -> str:
    """1 model, 2 models; the noun takes a plain s (or es after s)."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"
