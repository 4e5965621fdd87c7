"""What a reader answers, and what it looks at on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Box = tuple[int, int, int, int]  # x, y, w, h in pixels of the upright input


@dataclass(frozen=True)
class Digit:
    """One sign: its class, how sure that is (0 to 1), where it stands, and the second choice.

    `state` is "digit", "unsure" or "not a digit". Full stops, commas and dashes are signs too, with `separator` set.
    `mask`, bool [h, w] of the box, says which of its pixels are ink of this very sign.
    """

    digit: str
    confidence: float
    box: Box
    runner_up: str
    runner_up_confidence: float
    state: str = "digit"
    separator: bool = False
    mask: np.ndarray | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the mask; `separator` only where it is one."""
        out: dict[str, Any] = {
            "digit": self.digit,
            "confidence": self.confidence,
            "box": self.box,
            "runner_up": self.runner_up,
            "runner_up_confidence": self.runner_up_confidence,
            "state": self.state,
        }
        return {**out, "separator": True} if self.separator else out


@dataclass(frozen=True)
class Reading:
    """A number, or the one digit of a crop. On blank paper `text` is empty and there are no digits.

    `confidence` is the probability that it is a number and says `text`, `alternatives` are further texts with
    theirs, `state` is the worst among the digits' own. A crop that shows no digit has an empty text, and a digit that
    says what it is least unlike.
    """

    text: str
    confidence: float
    box: Box
    digits: tuple[Digit, ...]
    alternatives: tuple[tuple[str, float], ...] = ()
    state: str = "digit"

    @property
    def blank(self) -> bool:
        return not self.digits

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "confidence": self.confidence,
            "box": self.box,
            "state": self.state,
            "alternatives": [{"text": text, "probability": share} for text, share in self.alternatives],
            "digits": [digit.to_json() for digit in self.digits],
        }
