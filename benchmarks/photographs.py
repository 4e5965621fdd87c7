"""Pages, puzzles and touching digits for benchmarks/reading.py that owe nothing to netsuke.lab.scenes.

Digits of the test set of MNIST, whose writers no model was trained on, are ink of a colour on coloured paper, and the
paper on a desk is photographed: in perspective, unevenly lit, often half in a shadow, with noise, blur and JPEG.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from netsuke import data
from netsuke.lab.scenes import Line, Mark, Scene
from netsuke.lab.scenes.sheet import around

# RGB; pencils last
INKS = ((30, 60, 120), (40, 40, 40), (60, 90, 150), (160, 40, 60), (90, 90, 90), (130, 130, 130))
FONTS = (0, 2, 3, 4)  # of OpenCV
INKED = 0.4  # of a digit's darkest ink: what is its stroke


def notes(rng: np.random.Generator) -> Scene:
    """Rows of numbers on plain, ruled or squared paper."""
    height = int(rng.integers(26, 60))
    gap, rows, wide = (
        int(height * rng.uniform(1.7, 2.4)),
        int(rng.integers(4, 9)),
        int(rng.integers(600, 1100)),
    )
    sheet = Sheet((gap * (rows + 1), wide), rng)
    kind, step = rng.integers(4), gap
    if kind == 2:
        step = int(height * rng.uniform(0.5, 1.1))
        sheet.lines(range(step // 2, wide, step), upright=True)
    if kind in (1, 2):
        sheet.lines(range(step // 2 if kind == 2 else gap, sheet.paper.shape[0], step))
    for k in range(rows):
        top, x = (k + 1) * gap - height + int(rng.integers(-3, 4)), height * float(rng.uniform(0.5, 1.5))
        while True:
            text = "".join(str(d) for d in rng.integers(0, 10, int(rng.integers(1, 7))))
            if x + 0.95 * len(text) * height > wide - height:
                break
            for sign in text:
                x += sheet.write(int(sign), (x, top), height) + height * float(rng.uniform(0.06, 0.2))
            sheet.strings.append(text)
            x += height * float(rng.uniform(1.3, 2.5))
    return sheet.photograph()


def puzzle(rng: np.random.Generator) -> Scene:
    """A Sudoku of 9 x 9 cells with digits in print and by hand."""
    cell, share = int(rng.integers(40, 95)), float(rng.uniform(0.1, 0.6))
    rim = cell // 2
    sheet = Sheet((9 * cell + 2 * rim,) * 2, rng)
    grey, font = rng.integers(20, 140, 3).tolist(), int(rng.choice(FONTS))
    for k in range(10):
        thick = max(1, round(cell * (0.06 if k % 3 == 0 else 0.02) * rng.uniform(0.7, 1.3)))
        at, end = rim + k * cell, rim + 9 * cell
        cv2.line(sheet.paper, (rim, at), (end, at), grey, thick, cv2.LINE_AA)
        cv2.line(sheet.paper, (at, rim), (at, end), grey, thick, cv2.LINE_AA)
    for i in range(81):
        label, corner = int(rng.integers(1, 10)), np.array([rim + i % 9 * cell, rim + i // 9 * cell])
        printed = rng.random()
        if printed < 0.3:
            sheet.print(label, corner, cell, font)
        elif printed < 0.3 + share:
            off = cell * rng.uniform((0.2, 0.12), (0.4, 0.25))
            sheet.write(label, tuple(corner + off), int(cell * rng.uniform(0.45, 0.7)))
        else:
            continue
        sheet.strings.append(str(label))
    return sheet.photograph()


def touching(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Two to six digits of as many writers, each pushed to the left until its ink meets its neighbour's."""
    labels, size = rng.integers(0, 10, int(rng.integers(2, 7))), int(rng.integers(20, 80))
    ink = np.zeros((round(1.6 * size), round(1.6 * size * len(labels))), np.float32)
    right = left = round(0.3 * size)
    for label in labels:
        glyph = _glyph(int(label), size, rng)
        high, wide = glyph.shape
        top = round(0.3 * size) + (size - high) // 2
        place = ink[top : top + high]
        solid = glyph > INKED
        while right > left and not (solid & (place[:, right : right + wide] > INKED)).any():
            right -= 1
        place[:, right : right + wide] = np.maximum(place[:, right : right + wide], glyph)
        right += wide
    ink = ink[:, : right + round(0.3 * size)]
    image = rng.uniform(215, 250) - ink * rng.uniform(110, 200) + rng.normal(0, 3, ink.shape)
    return image.clip(0, 255).astype(np.uint8), "".join(map(str, labels))


class Sheet:
    """Coloured paper, what is written on it, and where."""

    def __init__(self, size: tuple[int, int], rng: np.random.Generator):
        self.rng = rng
        self.paper = np.full((*size, 3), rng.uniform((215, 210, 200), 255), np.uint8)
        self.ink = np.zeros(size, np.float32)
        self.mask = np.zeros(size, np.uint16)
        self.labels: list[int] = []
        self.strings: list[str] = []  # all labels, in their order

    def lines(self, places: range, *, upright: bool = False) -> None:
        tint = self.rng.integers(120, 215, 3).tolist()
        for at in places:
            ends = ((at, 0), (at, self.paper.shape[0])) if upright else ((0, at), (self.paper.shape[1], at))
            cv2.line(self.paper, *ends, tint, 1)

    def write(self, label: int, corner: tuple[float, float], height: int) -> int:
        """A digit by hand; its width."""
        glyph = _glyph(label, height, self.rng)
        x, y = int(corner[0]), int(corner[1]) + (height - glyph.shape[0]) // 2
        part = np.s_[y : y + glyph.shape[0], x : x + glyph.shape[1]]
        self.ink[part] = np.maximum(self.ink[part], glyph)
        self._note(label, part, glyph > INKED)
        return glyph.shape[1]

    def print(self, label: int, corner: np.ndarray, cell: int, font: int) -> None:
        """A digit in type, in the middle of a cell."""
        scale = 0.55 * cell / 22
        thick = max(1, int(2 * scale))
        (wide, high), _ = cv2.getTextSize(str(label), font, scale, thick)
        layer = np.zeros(self.ink.shape, np.uint8)
        at = corner + np.array([cell - wide, cell + high]) // 2
        cv2.putText(layer, str(label), at.tolist(), font, scale, 255, thick, cv2.LINE_AA)
        self.paper = (self.paper * (1 - 0.9 * layer[..., None] / 255)).astype(np.uint8)
        self._note(label, np.s_[:, :], layer > 255 * INKED)

    def _note(self, label: int, part: tuple[slice, slice], solid: np.ndarray) -> None:
        self.labels.append(label)
        self.mask[part][solid] = len(self.labels)

    def photograph(self) -> Scene:
        rng, (high, wide) = self.rng, self.ink.shape
        colour = np.array(INKS[int(rng.integers(len(INKS)))])
        cover = self.ink[..., None] * rng.uniform(0.6, 1)
        sheet = (self.paper * (1 - cover) + colour * cover).astype(np.uint8)
        corners = np.array([[0, 0], [wide, 0], [wide, high], [0, high]], np.float32)
        seen = corners + rng.uniform(-0.06, 0.06, (4, 2)) * min(high, wide)
        seen = (seen - seen.min(0) + rng.uniform(0, 0.08) * min(high, wide)).astype(np.float32)
        size = tuple((seen.max(0) + rng.uniform(0, 0.08, 2) * (wide, high)).astype(int).tolist())
        view = cv2.getPerspectiveTransform(corners, seen)
        desk = rng.integers(30, 180, 3) if rng.random() < 0.7 else rng.integers(225, 240, 3)
        image = cv2.warpPerspective(sheet, view, size, borderValue=desk.tolist()).astype(np.float32)
        image = image * _light(size, rng)[..., None] + rng.normal(0, rng.uniform(1, 5), (*size[::-1], 1))
        if rng.random() < 0.5:
            image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.1)))
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 95))]
        packed = cv2.imencode(".jpg", image.clip(0, 255).astype(np.uint8), quality)[1]
        mask = cv2.warpPerspective(self.mask, view, size, flags=cv2.INTER_NEAREST)
        marks = tuple(Mark(label, _box(mask == k), k) for k, label in enumerate(self.labels, 1))
        ends = np.cumsum([len(text) for text in self.strings]).tolist()
        members = tuple(
            tuple(range(end - len(text) + 1, end + 1)) for text, end in zip(self.strings, ends, strict=True)
        )
        strings = tuple(
            Line(text, around([marks[k - 1].box for k in part]))
            for text, part in zip(self.strings, members, strict=True)
        )
        return Scene(cv2.imdecode(packed, cv2.IMREAD_COLOR), marks, strings, mask, members, frozenset())


def _light(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """How much light falls on an image of `size` (w, h): less to one side, and on some behind the edge of a shadow."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    along = (along - along.min()) / np.ptp(along)
    light = 1 - rng.uniform(0, 0.5) * along
    if rng.random() < 0.4:
        light *= 1 - rng.uniform(0.2, 0.5) / (
            1 + np.exp((rng.uniform(0.2, 0.8) - along) * rng.uniform(15, 80))
        )
    return light


@lru_cache(maxsize=1)
def _mnist() -> tuple[np.ndarray, list[np.ndarray]]:
    test = data.load("mnist").test
    return test.images[:, 0], [np.flatnonzero(test.labels == label) for label in range(10)]


def _glyph(label: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A digit of MNIST's test set, 0 to 1, cut to its ink; one that is 20 pixels high there is `height` high."""
    images, of = _mnist()
    image = images[int(rng.choice(of[label]))].astype(np.float32) / 255
    x, y, wide, high = _box(image > 0.1)
    size = max(3, round(wide * height / 20)), max(3, round(high * height / 20))
    return cv2.resize(image[y : y + high, x : x + wide], size, interpolation=cv2.INTER_CUBIC).clip(0, 1)


def _box(solid: np.ndarray) -> tuple[int, int, int, int]:
    return tuple(cv2.boundingRect(solid.astype(np.uint8)))  # type: ignore[return-value]
