"""What is known of a number before it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Field:
    """Constraints on each number, kept to while decoding.

    `length`: digits, 5 or range(3, 7) or "3..6". `pattern`: a subset of regular expressions over digits and `.,-`.
    `range`: (0, 100) or "0..100". `checksum`: "luhn", "iban", "isbn", "mod11" or (weights, modulus).
    `sum`: what the numbers of the page add up to, or "last" where the last is the sum of those before.
    `separators`: whether `.`, `,` and `-` may stand in a number.
    """

    length: Any = None
    pattern: str | None = None
    range: Any = None
    checksum: Any = None
    sum: Any = None
    separators: bool = True
