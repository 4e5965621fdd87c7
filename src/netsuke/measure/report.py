"""Report: one measured figure that never stands alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Report:
    """A figure with its unit, how many single values it is the mean or median of, and how they scatter.

    `spread` is the standard deviation of the `n` single values (0 for a figure that is counted, not
    sampled; None where it is unknown): the standard error of a mean is `spread / sqrt(n)`.
    """

    metric: str
    value: float
    unit: str
    n: int
    spread: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
