"""Numbers of a page that must add up: the most probable choice among the alternatives of each."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

KEPT = 20_000  # partial sums


def value(text: str) -> Decimal:
    """What a text is worth: the last separator is a decimal point, unless three digits follow or it ends the text.

    Dashes count for nothing.
    """
    clean = text.replace("-", "").rstrip(".,")
    at = max(clean.rfind("."), clean.rfind(","))
    digits = "".join(sign for sign in clean if sign.isdigit()) or "0"
    places = len(clean) - 1 - at if at >= 0 else 0
    return Decimal(digits).scaleb(0 if places == 3 else -places)


def choice(options: Sequence[Sequence[tuple[Decimal, float]]], total: Decimal) -> list[int] | None:
    """Which option (value, log-probability) to take of each number, so that the values add up to `total`.

    The most probable such choice, by dynamic programming over partial sums; None where there is none.
    """
    sums: dict[Decimal, tuple[float, tuple]] = {Decimal(0): (0.0, ())}
    for number in options:
        after: dict[Decimal, tuple[float, tuple]] = {}
        for part, (weight, path) in sums.items():
            for i, (worth, log) in enumerate(number):
                known = after.get(part + worth)
                if known is None or weight + log > known[0]:
                    after[part + worth] = (weight + log, (i, path))
        if len(after) > KEPT:
            after = dict(sorted(after.items(), key=lambda item: -item[1][0])[:KEPT])
        sums = after
    if total not in sums:
        return None
    path, chosen = sums[total][1], []
    while path:
        i, path = path
        chosen.append(i)
    return chosen[::-1]
