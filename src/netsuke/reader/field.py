"""What is known of the numbers before they are read; the decoder keeps to it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from netsuke.errors import OptionError, typed
from netsuke.reader.automata import All, Between, Length, Without, is_empty
from netsuke.reader.checksums import checksum
from netsuke.reader.lattice import Anything, Automaton
from netsuke.reader.pattern import Pattern

DIGITS, SEPARATORS = "0123456789", ".,-"
CONSTRAINTS = "length", "pattern", "range", "checksum"
LONGEST = 60  # digits of a number
LAST = "last"


@dataclass(frozen=True)
class Field:
    """Constraints on each number of an image. Raises OptionError where one makes no sense.

    length: digits, as 5, range(3, 7) or "3..6".
    pattern: what the text looks like, such as r"\\d{4}-\\d{2}" (`netsuke.reader.pattern` says what it may hold).
    range: bounds of what it is worth, (0, 100) or "0..100": 8.5 and 8,50 are eight and a half, and 1.250 is 1250.
    checksum: "luhn", "isbn", "mod11", "iban:DE", or weights and modulus: ((3, 1, 3, 1), 10) or "3,1,3,1%10".
    sum: what the numbers of the image add up to, such as 120 or "34.50"; or "last": the last is the sum of the others.
    separators: whether `.`, `,` and `-` may stand in a text; where not, they are passed over.
    """

    length: int | range | str | None = None
    pattern: str | None = None
    range: tuple[int, int] | str | None = None
    checksum: str | tuple[tuple[int, ...], int] | None = None
    sum: int | float | str | Decimal | None = None
    separators: bool = True

    def __post_init__(self) -> None:
        self.automaton(1)
        self.total  # noqa: B018  # both raise where something is wrong
        given = [f"{name} {value}" for name in CONSTRAINTS if (value := getattr(self, name)) is not None]
        if len(given) > 1 and is_empty(self.automaton(LONGEST), DIGITS + SEPARATORS):
            raise OptionError(f"no number has {' and '.join(given)}: leave one out or change it")

    def automaton(self, longest: int) -> Automaton:
        """What texts of at most `longest` digits it admits."""
        parts: list[Automaton] = []
        least = 1
        if self.length is not None:
            parts.append(Length(*(bounds := self._lengths())))
            least, longest = bounds[0], min(longest, bounds[1])
        if self.pattern is not None:
            parts.append(Pattern(self.pattern))
        if self.range is not None:
            parts.append(Between(*self._bounds(), least, longest))
        if self.checksum is not None:
            parts.append(checksum(self.checksum, least, longest))
        if not self.separators:
            parts.append(Without(SEPARATORS))
        return All(tuple(parts)) if parts else Anything()

    @property
    def total(self) -> Decimal | str | None:
        """`sum` as a number or LAST."""
        if self.sum is None or self.sum == LAST:
            return None if self.sum is None else LAST
        try:
            total = Decimal(str(self.sum))
        except InvalidOperation:
            total = Decimal("nan")
        if not total.is_finite():
            raise OptionError(f'sum is a number or "{LAST}"; got {typed(self.sum)}')
        return total

    def _lengths(self) -> tuple[int, int]:
        given = self.length
        if isinstance(given, range_):
            least, most = given.start, given.stop - 1
            right = given.step == 1
        else:
            least, most = _bounds(given, "length", "5, 3..6 or range(3, 7)", alone=True)
            right = True
        if not right or not 1 <= least <= most:
            raise OptionError(f"length is 1 or more digits, the smaller number first; got {typed(given)}")
        return least, most

    def _bounds(self) -> tuple[int, int]:
        low, high = _bounds(self.range, "range", "0..100 or (0, 100)", alone=False)
        if not 0 <= low <= high:
            raise OptionError(f"range is of whole numbers from 0, the smaller first; got {typed(self.range)}")
        return low, high


range_ = range


def _bounds(given: object, name: str, wanted: str, *, alone: bool) -> tuple[int, int]:
    """Two numbers given as "3..6" or (3, 6); where one may stand alone, as 5 or "5" too."""
    try:
        if isinstance(given, str):
            low, dots, high = given.partition("..")
            if dots or alone:
                return int(low), int(high) if dots else int(low)
        if isinstance(given, tuple):
            low_, high_ = given
            return int(low_), int(high_)
        if alone and isinstance(given, int) and not isinstance(given, bool):
            return given, given
    except ValueError:
        pass
    raise OptionError(f"{name} is {wanted}; got {typed(given)}")
