"""Strips to learn from: the rows that the reader finds in made pages and strings, and which signs stand where."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from netsuke import image as images
from netsuke.lab import scenes
from netsuke.lab.finder.tiles import Sheets
from netsuke.lab.lattice_weights import Box, row_text, scaled
from netsuke.lab.scenes import Scene
from netsuke.reader import segments
from netsuke.reader.scanner import MARGIN, SIGNS, STRIDE, TALL, WIDE, scale, strip

KEPT = 32.0  # pixels of a row's digits as it is kept
PAGES = 0.15  # of the scenes; the rest are strings
TOUCHING = 0.35  # of the strings
MOST = 16  # signs in a tile
MANY = 4  # signs of a row from which it is drawn as often as any
INNER = 0.12  # of a digit's width at each side in which it is not yet read
SPREAD, STRETCH = (
    0.11,
    0.12,
)  # standard deviations of the logarithms of a row's size and of its width beside it


def made(seed: int, first: int, count: int, *, split: str = "train") -> Iterator[tuple[bytes, np.ndarray]]:
    """`rows` of scenes `first` to `first + count` of a seed."""
    for i in range(first, first + count):
        rng = np.random.default_rng([seed, i])
        if rng.random() < PAGES:
            yield from rows(scenes.page(rng, split=split))
        else:
            yield from rows(
                scenes.string(rng, split=split, spacing="touching" if rng.random() < TOUCHING else None)
            )


def rows(scene: Scene) -> Iterator[tuple[bytes, np.ndarray]]:
    """Ink of a scene's rows as PNG bytes, and float32 [n, 5] of each: the place of its signs in SIGNS, and x, y, w, h
    of where each may be told. A row of none has no signs."""
    import cv2

    page = images.page_ink(scene.image)
    digits = [scaled(mark.box, 1 / page.scale) for mark in scene.digits]
    texts = [(line.text, scaled(line.box, 1 / page.scale)) for line in scene.strings]
    own = {mark.number: box for mark, box in zip(scene.digits, digits, strict=True)}
    members = [[own[number] for number in line] for line in scene.members]
    found, atoms = segments.rows(page.pixels)
    for row in found:
        text = row_text(row.box, digits, texts)
        if text is None:
            continue
        ink, factor = segments.owned(page.pixels, atoms, row), KEPT / row.height
        if max(ink.shape) * factor > 4096 or min(ink.shape) < 1:
            continue
        fine = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        size = max(1, round(ink.shape[1] * factor)), max(1, round(ink.shape[0] * factor))
        boxes = np.zeros((0, 5), np.float32)
        if text >= 0:
            boxes = placed(texts[text][0], members[text])
            boxes[:, [1, 2]] -= row.box[:2]
            boxes[:, 1:] *= factor
        yield cv2.imencode(".png", cv2.resize(ink, size, interpolation=fine))[1].tobytes(), boxes


def placed(text: str, digits: list[Box]) -> np.ndarray:
    """Of each sign of a text, float32 [n, 5]: its place in SIGNS and a box. A digit's is its own; a separator's goes
    from the middle of the digit before it to that of the one behind it."""
    out, at = [], 0
    middles = [x + w / 2 for x, _, w, _ in digits]
    top, foot = min(y for _, y, _, _ in digits), max(y + h for _, y, _, h in digits)
    for sign in text:
        if sign.isdigit():
            out.append([SIGNS.index(sign), *digits[at]])
            at += 1
            continue
        left = middles[at - 1] if at else middles[0] - (foot - top)
        right = middles[at] if at < len(digits) else middles[-1] + 2 * (foot - top)
        out.append([SIGNS.index(sign), left, top, right - left, foot - top])
    return np.array(out, np.float32)


class Strips:
    """Draws tiles uint8 [n, 1, TALL, WIDE], their signs int64 [n, MOST] (-1: no more), the first and last frame of each
    int64 [n, MOST, 2], and which frames nobody is asked about, bool [n, WIDE / STRIDE]."""

    def __init__(self, sheets: Sheets, seed: int = 0):
        self.sheets, self.rng = sheets, np.random.default_rng(seed)
        spoken = np.array([len(digits) > 0 for digits in sheets.digits], bool)
        self._spoken, self._silent = np.flatnonzero(spoken), np.flatnonzero(~spoken)

    def draw(self, count: int, *, silent: float = 0.15) -> tuple[np.ndarray, ...]:
        """`silent` is the share of rows that say nothing; a row of few signs is drawn as much less often."""
        found: list[tuple[np.ndarray, ...]] = []
        while len(found) < count:
            from_ = self._silent if self.rng.random() < silent and len(self._silent) else self._spoken
            k = int(self.rng.choice(from_))
            if from_ is self._spoken and self.rng.random() > len(self.sheets.digits[k]) / MANY:
                continue
            if one := self._cut(k):
                found.append(one)
        return tuple(np.stack(part) for part in zip(*found, strict=True))

    def _cut(self, k: int) -> tuple[np.ndarray, ...] | None:
        """A tile of a row, somewhere along it; None where too many signs stand in it."""
        import cv2

        rng = self.rng
        ink = np.asarray(cv2.imdecode(np.frombuffer(self.sheets.ink[k], np.uint8), cv2.IMREAD_GRAYSCALE))
        digits = self.sheets.digits[k].copy()
        if rng.random() < 0.5:  # slanted
            lean = float(rng.normal(0, 0.15))
            shift = abs(lean) * ink.shape[0] / 2
            turn = np.array([[1, lean, shift - lean * ink.shape[0] / 2], [0, 1, 0]], np.float32)
            ink = cv2.warpAffine(ink, turn, (ink.shape[1] + round(2 * shift), ink.shape[0]))
            digits[:, 1] += shift + lean * (digits[:, 2] + digits[:, 4] / 2 - ink.shape[0] / 2)
        down = scale(ink.shape[0], KEPT) * float(np.exp(rng.normal(0, SPREAD)))
        across = down * float(np.exp(rng.normal(0, STRETCH)))
        one = strip(ink, down, across, lift=float(rng.normal(0, 1.5)))
        if rng.random() < 0.5:  # fainter and stronger ink
            one = (255 * (one / 255.0) ** float(np.exp(rng.normal(0, 0.35)))).astype(np.uint8)
        core = WIDE - 2 * MARGIN
        last = max(0, one.shape[1] - core)
        start = int(rng.integers(last + 1)) - MARGIN + int(rng.integers(-3, 4))
        tile = np.zeros((TALL, WIDE), np.uint8)
        a, b = max(start, 0), min(start + WIDE, one.shape[1])
        tile[:, a - start : b - start] = one[:, a:b]
        return _asked(tile[None], digits[:, 0], digits[:, 1] * across - start, digits[:, 3] * across)


def _asked(
    tile: np.ndarray, signs: np.ndarray, x: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, ...] | None:
    """What is asked of a tile whose signs stand from x to x + w: those that are whole in it; others are free."""
    count = WIDE // STRIDE
    names, frames, free = np.full(MOST, -1), np.zeros((MOST, 2), np.int64), np.zeros(count, bool)
    whole = (x >= 0) & (x + w <= WIDE)
    mark = signs >= SIGNS.index(".")
    for k in np.flatnonzero(~whole):
        free[max(0, int(x[k] / STRIDE) - 1) : max(0, int((x[k] + w[k]) / STRIDE) + 2)] = True
    kept = np.flatnonzero(whole)
    if len(kept) > MOST:
        return None
    for i, k in enumerate(kept):
        inner = 0.0 if mark[k] else INNER * w[k]
        low, high = (x[k] + inner) / STRIDE, (x[k] + w[k] - inner) / STRIDE
        if high - low < 2:
            low, high = (low + high) / 2 - 1, (low + high) / 2 + 1
        names[i] = signs[k]
        frames[i] = np.clip([np.floor(low), np.ceil(high) - 1], 0, count - 1)
    return tile, names, frames, free
