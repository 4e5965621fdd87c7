"""Tiles to learn from: pieces of the ink of made pages and strings, at the size a finder sees, and what is where."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from netsuke import image as images
from netsuke.files import write_whole
from netsuke.lab import scenes
from netsuke.lab.scenes import Scene
from netsuke.reader.finder import HEIGHT, STRIDE, TILE, UNIT

NONE, ANY = 10, -1  # classes of a cell: no digit, and one that nobody is asked about
INNER, OUTER = 0.18, 0.27  # of a digit's size around its middle: its cells up to there, none from there on
LEAST, MOST = 12.0, 34.0  # heights in pixels of what is learnt as a digit
PAGES = 0.45  # of the scenes; the rest are strings
WORDY = {"notes": 0.6, "form": 0.2, "scraps": 0.1, "table": 0.1}  # kinds of wordy pages
FEW = (0.15, 0.35, 0.3, 0.2)  # and how often they have 0, 8, 20 and 40 digits
SPREAD = 0.22  # standard deviation of the logarithm of a digit's height


@dataclass(frozen=True, eq=False)
class Sheets:
    """Ink as PNG bytes, and float32 [n, 5] of each: class, x, y, w, h of its digits."""

    ink: list[bytes]
    digits: list[np.ndarray]

    @staticmethod
    def load(*files: Path) -> Sheets:
        """The sheets that `save` wrote, one file after the other."""
        ink: list[bytes] = []
        digits: list[np.ndarray] = []
        for file in files:
            with np.load(file, allow_pickle=False) as part:
                sizes, counts = np.cumsum(part["sizes"])[:-1], np.cumsum(part["counts"])[:-1]
                ink += [one.tobytes() for one in np.split(part["ink"], sizes)]
                digits += np.split(part["digits"], counts)
        return Sheets(ink, digits)

    def save(self, file: Path) -> None:
        """One .npz, whole or not at all."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            ink=np.frombuffer(b"".join(self.ink), np.uint8),
            sizes=[len(one) for one in self.ink],
            digits=np.concatenate(self.digits),
            counts=[len(one) for one in self.digits],
        )
        write_whole(file, buffer.getbuffer())


def made(
    seed: int, first: int, count: int, *, split: str = "train", wordy: bool = False
) -> Iterator[tuple[bytes, np.ndarray]]:
    """Ink and digits of scenes `first` to `first + count` of a seed, photographed and brought back to ink.

    They are pages and strings; `wordy`: pages with few digits, among words.
    """
    for i in range(first, first + count):
        rng = np.random.default_rng([seed, i])
        if wordy:
            kind = str(rng.choice(list(WORDY), p=list(WORDY.values())))
            scene = scenes.page(rng, split=split, kind=kind, digits=int(rng.choice([0, 8, 20, 40], p=FEW)))
        else:
            scene = (scenes.page if rng.random() < PAGES else scenes.string)(rng, split=split)
        yield sheet(scene)


def sheet(scene: Scene) -> tuple[bytes, np.ndarray]:
    """A scene's ink as PNG bytes, and float32 [n, 5]: class, x, y, w, h of its digits."""
    import cv2

    page = images.page_ink(scene.image)
    boxes = [[mark.label, *(v / page.scale for v in mark.box)] for mark in scene.digits]
    return cv2.imencode(".png", page.pixels)[1].tobytes(), np.array(boxes, np.float32).reshape(-1, 5)


class Tiles:
    """Draws tiles: uint8 [n, 1, TILE, TILE], classes int64 [n, S, S] and box distances float32 [n, 4, S, S]."""

    def __init__(self, sheets: Sheets, seed: int = 0):
        self.sheets, self.rng = sheets, np.random.default_rng(seed)

    def draw(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        import cv2

        x: list[np.ndarray] = []
        y: list[np.ndarray] = []
        reach: list[np.ndarray] = []
        while len(x) < count:
            k = int(self.rng.integers(len(self.sheets.ink)))
            ink = np.asarray(cv2.imdecode(np.frombuffer(self.sheets.ink[k], np.uint8), cv2.IMREAD_GRAYSCALE))
            digits = self.sheets.digits[k]
            for _ in range(min(5, 1 + ink.size // 60_000)):
                tile, boxes = self._cut(ink, digits)
                if tile.any() or self.rng.random() < 0.1:
                    cells, distances = targets(boxes)
                    x.append(tile[None])
                    y.append(cells)
                    reach.append(distances)
        return np.stack(x[:count]), np.stack(y[:count]), np.stack(reach[:count])

    def _cut(self, ink: np.ndarray, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A tile around one of the digits, or anywhere, scaled so that digits are of a finder's height."""
        import cv2

        rng = self.rng
        height = float(rng.choice(digits[:, 4])) if len(digits) else float(rng.uniform(12, 60))
        scale = HEIGHT * float(np.exp(rng.normal(0, SPREAD))) / max(height, 4.0)
        across = scale * float(np.exp(rng.normal(0, 0.08)))
        w, h = TILE / across, TILE / scale  # of the tile, in pixels of the ink
        if len(digits) and rng.random() < 0.7:
            _, dx, dy, dw, dh = digits[int(rng.integers(len(digits)))]
            middle = float(dx + dw / 2), float(dy + dh / 2)
        else:
            middle = float(rng.uniform(0, ink.shape[1])), float(rng.uniform(0, ink.shape[0]))
        left = int(middle[0] - w * float(rng.uniform(0.1, 0.9)))
        top = int(middle[1] - h * float(rng.uniform(0.1, 0.9)))
        part = window(ink, left, top, max(1, round(w)), max(1, round(h)))
        fine = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        tile = cv2.resize(part, (TILE, TILE), interpolation=fine)
        if rng.random() < 0.5:  # fainter and stronger ink than the page's own levels
            tile = (255 * (tile / 255.0) ** float(np.exp(rng.normal(0, 0.35)))).astype(np.uint8)
        boxes = digits.copy()
        boxes[:, [1, 3]] = (boxes[:, [1, 3]] - [left, 0]) * (TILE / part.shape[1])
        boxes[:, [2, 4]] = (boxes[:, [2, 4]] - [top, 0]) * (TILE / part.shape[0])
        return tile, boxes


def window(ink: np.ndarray, left: int, top: int, w: int, h: int) -> np.ndarray:
    """A part of the ink, 0 beyond its sides."""
    out = np.zeros((h, w), np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + w, ink.shape[1]), min(top + h, ink.shape[0])
    if x1 > x0 and y1 > y0:
        out[y0 - top : y1 - top, x0 - left : x1 - left] = ink[y0:y1, x0:x1]
    return out


def targets(digits: np.ndarray, side: int = TILE // STRIDE) -> tuple[np.ndarray, np.ndarray]:
    """Classes int64 [side, side] and distances float32 [4, side, side] (NaN: none) of digits float [n, 5].

    A cell's place is the pixel at STRIDE times its row and column.
    """
    at = np.arange(side) * STRIDE + 0.5
    cells = np.full((side, side), NONE, np.int64)
    reach = np.full((4, side, side), np.nan, np.float32)
    for label, x, y, w, h in digits:
        dx, dy = np.abs(at - (x + w / 2))[None], np.abs(at - (y + h / 2))[:, None]
        near = (dx < max(OUTER * w, 3.5)) & (dy < max(OUTER * h, 3.5))
        cells[near & (cells == NONE)] = ANY
        own = (dx < max(INNER * w, 2.01)) & (dy < max(INNER * h, 2.01))
        if not LEAST <= h <= MOST:
            cells[own] = ANY
            continue
        cells[own] = int(label)
        rows, columns = np.nonzero(own)
        sides = at[columns] - x, at[rows] - y, x + w - at[columns], y + h - at[rows]
        reach[:, rows, columns] = np.stack(sides) / UNIT
    return cells, reach
