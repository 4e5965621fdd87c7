"""The sheet: ink and print are laid down through one view, and what each digit covers is noted on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from netsuke.lab.pens import bitmaps
from netsuke.lab.pens.camera import photograph
from netsuke.lab.pens.ink import Pen, draw, mapped, worn
from netsuke.lab.pens.paper import light
from netsuke.lab.scenes.hands import Glyph

Box = tuple[int, int, int, int]  # x, y, w, h in pixels of the image
SOLID = 0.35  # of a digit's full ink: from there on a pixel is its
VISIBLE = 0.7  # of a digit's box must lie in the image, else it is a fragment and no digit


class Mark(NamedTuple):
    """One digit: its class 0 to 9, the box of its ink, and its number in the mask (from 1)."""

    label: int
    box: Box
    number: int


class Line(NamedTuple):
    """One number: its text with separators, and the box around its digits."""

    text: str
    box: Box


@dataclass(frozen=True, eq=False)
class Scene:
    """An image uint8 [H, W] and what it says.

    `mask` uint16 [H, W] is 0, or the number of the digit to which that pixel's ink belongs (the stronger where two
    overlap). `members` are the numbers of each string's digits from left to right; `printed` those set in type.
    """

    image: np.ndarray
    digits: tuple[Mark, ...]
    strings: tuple[Line, ...]
    mask: np.ndarray
    members: tuple[tuple[int, ...], ...]
    printed: frozenset[int]


class Sheet:
    """A sheet of `size` (h, w) image pixels, drawn `fine` times as fine, seen through the homography `view`.

    Coordinates are those of the flat sheet, in pixels of the image where `view` is the identity.
    """

    def __init__(
        self,
        size: tuple[int, int],
        rng: np.random.Generator,
        *,
        fine: int = 1,
        view: np.ndarray | None = None,
    ):
        self.size, self.fine, self.rng = size, fine, rng
        self.view = np.diag([fine, fine, 1.0]) @ (np.eye(3) if view is None else view)
        board = size[0] * fine, size[1] * fine
        self.ink, self.print = np.zeros(board, np.float32), np.zeros(board, np.float32)
        self.mask, self._strength = np.zeros(size, np.uint16), np.zeros(size, np.float32)
        self._digits: list[Mark] = []
        self._strings: list[tuple[Line, tuple[int, ...]]] = []
        self._printed: set[int] = set()

    # --- laying down ---------------------------------------------------------------------------------

    def glyph(
        self, glyph: Glyph, foot: tuple[float, float], height: float, pen: Pen, *, label: int | None = None,
        level: float = 110.0, printed: bool = False,
    ) -> Mark | None:  # fmt: skip
        """Write a glyph with its lower left corner at `foot` (x, y); a digit if it has a `label`.

        Returns the mark of a digit that is seen; None for other signs, and for digits cut off by the edge.
        """
        to_board = self.view @ np.array([[height, 0, foot[0]], [0, height, foot[1]], [0, 0, 1]])
        corners = [[0, -1.3], [glyph.width, -1.3], [glyph.width, 0.3], [0, 0.3]]
        points = np.concatenate(mapped(glyph.path or [np.array(corners, np.float32)], to_board))
        side = float(np.sqrt(abs(np.linalg.det(to_board[:2, :2]))))
        window = self._window(points.min(0), points.max(0), pen.width * side + 3)
        if window is None:
            return None
        (top, bottom), (left, right) = window
        shape = bottom - top, right - left
        shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
        if glyph.path:
            ink = draw(mapped(glyph.path, shift @ to_board), shape, pen, side, self.rng)
        else:
            assert glyph.bitmap is not None
            cover = bitmaps.traced(glyph.bitmap, shift @ to_board @ glyph.warp, shape, level, 0.7)
            ink = worn(cover, pen, self.rng)
        layer = self.print if printed else self.ink
        area = slice(top, bottom), slice(left, right)
        layer[area] = np.maximum(layer[area], ink)
        if label is None:
            return None
        return self._note(label, ink, (top, left), _inside(points, layer.shape), printed)

    def string(self, text: str, marks: list[Mark]) -> None:
        """Note that these digits, from left to right, are the number `text`."""
        if marks:
            self._strings.append(
                (Line(text, around([mark.box for mark in marks])), tuple(m.number for m in marks))
            )

    def rule(
        self, lines: list[tuple[tuple[float, float], tuple[float, float]]], width: float, dark: float
    ) -> None:
        """Print straight lines, `width` pixels wide and `dark` from 0 to 1."""
        for line in lines:
            self.print_path([np.array(line)], width, dark)

    def print_path(self, path: list[np.ndarray], width: float, dark: float) -> None:
        """Print lines through points [k, 2], `width` pixels wide and `dark` from 0 to 1."""
        import cv2

        width *= self.fine
        for stroke in mapped([np.asarray(stroke, np.float32) for stroke in path], self.view):
            window = self._window(stroke.min(0), stroke.max(0), width + 2)
            if window is None:
                continue
            (top, bottom), (left, right) = window
            piece = np.zeros((bottom - top, right - left), np.uint8)
            ends = np.round((stroke - (left, top)) * 16).astype(np.int32)[:, None]
            solid = round(255 * dark * min(1.0, width / max(1, round(width))))
            cv2.polylines(piece, [ends], False, solid, max(1, round(width)), cv2.LINE_AA, 4)
            area = slice(top, bottom), slice(left, right)
            self.print[area] = np.maximum(self.print[area], piece * np.float32(1 / 255))

    # --- the photograph ------------------------------------------------------------------------------

    def photograph(self, ground: np.ndarray | np.float32, *, harm: float = 0.6, uneven: float = 0.6) -> Scene:
        """The sheet on a `ground` of that reflectance (of the board's size), lit and photographed."""
        scene = (1 - self.ink) * (1 - self.print) * ground
        scene = scene * light(self.ink.shape, self.rng, uneven)
        image = photograph(scene.astype(np.float32), self.size, self.rng, harm=harm, inverted=0.04)
        return Scene(
            image, tuple(self._digits), tuple(line for line, _ in self._strings), self.mask,
            tuple(members for _, members in self._strings), frozenset(self._printed),
        )  # fmt: skip

    # --- the truth -----------------------------------------------------------------------------------

    def _window(
        self, low: np.ndarray, high: np.ndarray, margin: float
    ) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Rows and columns of the board around some points, in whole pixels of the image; None if outside."""
        spans = []
        for a, b, end in zip((low - margin)[::-1], (high + margin)[::-1], self.size, strict=True):
            first, last = max(0, int(a // self.fine)), min(end, int(b // self.fine) + 1)
            if last - first < 1:
                return None
            spans.append((first * self.fine, last * self.fine))
        return spans[0], spans[1]

    def _note(
        self, label: int, ink: np.ndarray, corner: tuple[int, int], visible: float, printed: bool
    ) -> Mark | None:
        import cv2

        h, w = ink.shape[0] // self.fine, ink.shape[1] // self.fine
        if self.fine > 1:
            ink = cv2.resize(ink, (w, h), interpolation=cv2.INTER_AREA)
        full = float(ink.max())
        if full < 0.02 or visible < VISIBLE:
            return None
        solid = ink > SOLID * full
        top, left = corner[0] // self.fine, corner[1] // self.fine
        x, y, wide, high = cv2.boundingRect(solid.astype(np.uint8))
        number = len(self._digits) + 1
        area = slice(top, top + h), slice(left, left + w)
        wins = solid & (ink > self._strength[area])
        self.mask[area][wins] = number
        self._strength[area][wins] = ink[wins]
        mark = Mark(label, (left + x, top + y, wide, high), number)
        self._digits.append(mark)
        if printed:
            self._printed.add(number)
        return mark


def around(boxes: list[Box]) -> Box:
    """The box around boxes."""
    x, y = min(b[0] for b in boxes), min(b[1] for b in boxes)
    return x, y, max(b[0] + b[2] for b in boxes) - x, max(b[1] + b[3] for b in boxes) - y


def _inside(points: np.ndarray, shape: tuple[int, ...]) -> float:
    """The share of the points' box that lies on the board."""
    low, high = points.min(0), points.max(0)
    size = np.maximum(high - low, 1e-3)
    seen = np.minimum(high, shape[1::-1]) - np.maximum(low, 0)
    return float(np.prod(np.maximum(seen, 0) / size))
