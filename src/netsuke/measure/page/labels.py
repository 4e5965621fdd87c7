"""Names beside points, where there is room for them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 26  # characters; the rest of a longer name is in the details of its point
LINE = 13.0  # pixels
AROUND = tuple(math.radians(angle) for angle in (0, 180, 270, 90, 315, 45, 225, 135))
DISTANCES = (9.0, 16.0, 26.0, 38.0)
Line = tuple[float, float, float, float]


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def within(self, other: Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True)
class Label:
    """A text whose box found room; `leader` is the line back to its point where it stands far off."""

    point: int
    text: str
    box: Box
    leader: Line | None


def width(text: str) -> float:
    """Pixels of a text at 11.5 px, on the safe side: fonts differ between machines."""
    return sum(12.0 if unicodedata.east_asian_width(c) in "WF" else 6.6 for c in text)


def shorten(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def place(
    points: Sequence[tuple[float, float, str]],
    order: Sequence[int],
    patience: Sequence[int],
    obstacles: Sequence[Box],
    lines: Sequence[Box],
    frame: Box,
) -> list[Label]:
    """Labels for points (x, y, name), greedily in `order`; a name without room is left out.

    A label never meets another, an obstacle or the frame; it crosses one of `lines` only if it must.
    `patience` of a point is how many of the DISTANCES its label may try: far labels clutter.
    """
    labels: list[Label] = []
    for index in order:
        x, y, name = points[index]
        text = shorten(name)
        best: tuple[float, Label] | None = None
        for far, distance in enumerate(DISTANCES[: patience[index]]):
            for turn, angle in enumerate(AROUND):
                box = _beside(x, y, width(text), angle, distance)
                taken = [*obstacles, *(label.box for label in labels)]
                leader = _leader(x, y, box) if far else None
                if not box.within(frame) or any(box.meets(other) for other in taken):
                    continue
                if leader and _crosses(leader, taken):
                    continue
                cost = 10 * far + turn + 25 * sum(box.meets(line) for line in lines)
                if best is None or cost < best[0]:
                    best = cost, Label(index, text, box, leader)
        if best is not None:
            labels.append(best[1])
    return labels


def _beside(x: float, y: float, wide: float, angle: float, distance: float) -> Box:
    """The box whose nearest edge stands `distance` from (x, y) in the direction `angle`."""
    dx, dy = math.cos(angle), math.sin(angle)
    centre_x = x + dx * distance + (0 if abs(dx) < 0.1 else math.copysign(wide / 2, dx))
    centre_y = y + dy * distance + (0 if abs(dy) < 0.1 else math.copysign(LINE / 2, dy))
    return Box(centre_x - wide / 2, centre_y - LINE / 2, centre_x + wide / 2, centre_y + LINE / 2)


def _crosses(line: Line, boxes: Sequence[Box]) -> bool:
    """Whether a leader passes through a box, looked at every few pixels past its own marker."""
    x1, y1, x2, y2 = line
    spots = [(x1 + (x2 - x1) * k / 8, y1 + (y2 - y1) * k / 8) for k in range(3, 9)]
    return any(Box(x, y, x, y).meets(box) for x, y in spots for box in boxes)


def _leader(x: float, y: float, box: Box) -> Line:
    """From the rim of the marker to the nearest place on the box."""
    to_x, to_y = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
    length = math.hypot(to_x - x, to_y - y) or 1.0
    return x + 6 * (to_x - x) / length, y + 6 * (to_y - y) / length, to_x, to_y
