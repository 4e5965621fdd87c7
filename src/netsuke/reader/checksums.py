"""Check digits of all kinds as one: values of digits by their places that add up to a target, modulo a number."""

from __future__ import annotations

from collections.abc import Container
from functools import cache

from netsuke.errors import OptionError, typed
from netsuke.reader.automata import Checksum, Values

NAMES = "luhn, isbn, mod11, iban:DE (any country), weights such as 3,1,3,1%10, or (weights, modulus)"
IBAN = {
    "AT": 20, "BE": 16, "CZ": 24, "DE": 22, "DK": 18, "EE": 20, "ES": 24, "FI": 18, "HR": 21, "HU": 28, "IS": 26,
    "LT": 20, "NO": 15, "PL": 28, "PT": 25, "SE": 24, "SI": 19, "SK": 24,
}  # fmt: skip  # characters, of countries whose account numbers are digits
LONGEST_IBAN = 34


def checksum(given: str | tuple[tuple[int, ...], int], least: int, longest: int) -> Checksum:
    """The automaton of a checksum for numbers of `least` to `longest` digits. Raises OptionError for an unknown one."""
    values, modulus, target, lengths = _known(given)
    return Checksum(values, modulus, target, tuple(n for n in range(least, longest + 1) if n in lengths))


def _known(given: str | tuple[tuple[int, ...], int]) -> tuple[Values, int, int, Container[int]]:
    """Values, modulus, target and the lengths it is defined for."""
    if isinstance(given, str):
        name, _, country = given.strip().lower().partition(":")
        if name == "iban":
            return _iban(country.upper())
        if name in KINDS and not country:
            return KINDS[name]
        weights, modulus = _parsed(given)
    else:
        try:
            weights, modulus = tuple(int(weight) for weight in given[0]), int(given[1])
        except (TypeError, ValueError, IndexError, KeyError):
            raise OptionError(f"unknown checksum {typed(given)}; netsuke knows {NAMES}") from None
    if not weights or modulus < 2:
        raise OptionError(f"a checksum needs weights and a modulus above 1; got {typed(given)}")
    rows = tuple(tuple(weight * digit for digit in range(10)) for weight in weights)
    return (lambda n: rows), modulus, 0, (len(weights),)


def _parsed(given: str) -> tuple[tuple[int, ...], int]:
    weights, percent, modulus = given.partition("%")
    try:
        if not percent:
            raise ValueError("no modulus")
        return tuple(int(weight) for weight in weights.split(",")), int(modulus)
    except ValueError:
        raise OptionError(f"unknown checksum {typed(given)}; netsuke knows {NAMES}") from None


def _iban(country: str) -> tuple[Values, int, int, Container[int]]:
    """ISO 13616: account number, country as two numbers from A = 10, check digits; together 1 modulo 97."""
    if len(country) != 2 or not (country.isascii() and country.isalpha()):
        raise OptionError(
            "checksum iban needs its country, such as iban:DE: netsuke reads the digits behind it"
        )
    letters = int("".join(str(ord(letter) - ord("A") + 10) for letter in country))
    lengths = (IBAN[country] - 2,) if country in IBAN else range(5, LONGEST_IBAN - 1)
    return _iban_values, 97, (1 - letters * 100) % 97, lengths


@cache
def _luhn(n: int) -> tuple[tuple[int, ...], ...]:
    """From the right every second digit counts double, its own digits added (Luhn, 1960)."""
    doubled = tuple(d * 2 - 9 * (d > 4) for d in range(10))
    return tuple(doubled if (n - i) % 2 == 0 else tuple(range(10)) for i in range(n))


@cache
def _mod11(n: int) -> tuple[tuple[int, ...], ...]:
    """From the right the weights are 1 for the check digit, then 2 to 7 over and over."""
    weights = [1 if back == 0 else 2 + (back - 1) % 6 for back in reversed(range(n))]
    return tuple(tuple(weight * d for d in range(10)) for weight in weights)


@cache
def _isbn(n: int) -> tuple[tuple[int, ...], ...]:
    """ISBN-10 modulo 11 and ISBN-13 modulo 10, both brought to modulo 110."""
    weights = [10 * (10 - i) for i in range(10)] if n == 10 else [11 * (1 + 2 * (i % 2)) for i in range(n)]
    return tuple(tuple(weight * d for d in range(10)) for weight in weights)


@cache
def _iban_values(n: int) -> tuple[tuple[int, ...], ...]:
    weights = [10, 1] + [pow(10, n - 1 - i + 6, 97) for i in range(2, n)]
    return tuple(tuple(weight * d for d in range(10)) for weight in weights)


KINDS: dict[str, tuple[Values, int, int, Container[int]]] = {
    "luhn": (_luhn, 10, 0, range(2, 1 << 16)),
    "mod11": (_mod11, 11, 0, range(2, 1 << 16)),
    "isbn": (_isbn, 110, 0, (10, 13)),
}
