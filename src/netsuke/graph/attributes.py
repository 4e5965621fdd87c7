"""The attributes of ops: what each must be, and what to say where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netsuke.graph.types import INT32_MAX, MAX_SHIFT


def whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def wholes(value: object, count: int, low: int, high: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(whole(v, low, high) for v in value)


def finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


# Each attribute: how it is checked, and what to say.
ATTRS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "stride": (lambda v: wholes(v, 2, 1, 4096), "[rows, columns], each at least 1"),
    "kernel": (lambda v: wholes(v, 2, 1, 4096), "[rows, columns], each at least 1"),
    "padding": (lambda v: wholes(v, 4, 0, 4096), "[top, left, bottom, right], none negative"),
    "groups": (lambda v: whole(v, 1, 1 << 16), "a positive number"),
    "slope": (finite, "a finite number"),
    "start": (lambda v: whole(v, 0, 1 << 24), "a channel number"),
    "stop": (lambda v: whole(v, 1, 1 << 24), "a channel number"),
    "bits": (lambda v: whole(v, 1, 8), "a weight width from 1 to 8"),
    "signed": (lambda v: isinstance(v, bool), "true or false"),
    "scale": (finite, "a finite number"),
    "scales": (
        lambda v: isinstance(v, list | tuple) and all(map(finite, v)),
        "finite numbers, one a channel",
    ),
    "offsets": (
        lambda v: isinstance(v, list | tuple) and all(map(finite, v)),
        "finite numbers, one a channel",
    ),
    "multiplier": (lambda v: whole(v, 1, INT32_MAX), "a positive int32"),
    "multipliers": (lambda v: wholes(v, 2, 1, INT32_MAX), "two positive int32"),
    "shift": (lambda v: whole(v, 0, MAX_SHIFT), f"0 to {MAX_SHIFT}"),
}
