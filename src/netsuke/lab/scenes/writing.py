"""Numbers and words as people write them: which text, how far apart, touching or not, and in whose hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.lab.pens import bitmaps
from netsuke.lab.pens.ink import Pen
from netsuke.lab.scenes.hands import ROWS, TALL, Glyph, Hand, pixels, word
from netsuke.lab.scenes.sheet import Mark, Sheet

# Gaps between neighbours' nearest ink, as shares of the height (low, high), and how often.
SPACING = {
    "normal": ((0.04, 0.25), 0.35),
    "tight": ((-0.02, 0.1), 0.25),
    "touching": ((-0.08, 0.01), 0.2),
    "wide": ((0.2, 0.6), 0.2),
}
NESTED = 0.4  # of the narrower of two neighbours, how much of its box may lie within the other's
JOINING, JOINED = 0.12, 0.6  # share of numbers with ligatures, and of the neighbours joined in them
TYING, TIED = 0.35, 0.85  # the same of neighbours that are both zeros: they are written in one go
UNEVEN, FIRST = 0.2, 0.12  # share of numbers whose digits differ in height, and that begin with a tall one
PLACES = {1: 0.4, 2: 0.5, 3: 0.1}  # digits behind the mark of a decimal, and how often
ROUND, BROAD = 0.35, 0.24  # share of full stops that are drawn as a disc, and the broadest, of the height
SEPARATORS = ".,-"
# Digits of the parts of dates and codes.
DATES = ((2, 2, 4), (2, 2, 2), (1, 2, 4), (1, 1, 4), (4, 2, 2), (3, 4))
DATED, DASHED = 0.6, 0.7  # how often a code is one of those, and has dashes, not full stops
CURRENCY = "$#%&*+="  # signs before and after an amount, from pen strokes
Item = tuple[
    str, Glyph, float, float, float
]  # character, glyph, x of its left edge, y of its foot, its height


@dataclass(frozen=True, eq=False)
class Run:
    """A row of signs in units of the digits' height: x to the right from 0, the writing line at y = 0."""

    text: str
    items: tuple[Item, ...]
    width: float


def amount(rng: np.random.Generator, most: int = 12) -> str:
    """Text of a number: plain, a decimal, with thousands, a date or code with dashes; 1 to `most` digits."""
    n = min(most, 1 + int(rng.geometric(0.22)))
    digits = [str(int(d)) for d in rng.integers(10, size=n)]
    if n > 2 and rng.random() < 0.3:  # prices and round sums end in zeros
        zeros = int(rng.integers(2, min(n, 5)))
        digits[-zeros:] = "0" * zeros
    kind = rng.random()
    if kind < (0.5 if n > 2 else 0.7) or n < 2:
        return "".join(digits)
    mark = str(rng.choice(list(SEPARATORS)))
    if kind < 0.7 or n < 3:
        places = min(n - 1, int(rng.choice(list(PLACES), p=list(PLACES.values()))))
        return "".join([*digits[:-places], "." if mark == "-" else mark, *digits[-places:]])
    if kind < 0.85:
        head = n % 3 or 3
        groups = ["".join(digits[:head])] + ["".join(digits[i : i + 3]) for i in range(head, n, 3)]
        return ("," if mark == "," else ".").join(groups)
    if kind < 0.93:
        fitting = [groups for groups in DATES if sum(groups) <= most]
        if fitting and rng.random() < DATED:
            sizes = fitting[int(rng.integers(len(fitting)))]
            parts = ("".join(map(str, rng.integers(10, size=size))) for size in sizes)
            return ("-" if rng.random() < DASHED else ".").join(parts)
        cuts = sorted({int(c) for c in rng.integers(1, n, size=2)})
        return "-".join("".join(digits[a:b]) for a, b in zip([0, *cuts], [*cuts, n], strict=True))
    return "".join(digits) + ("-" if mark == "-" else ".-")


def number(text: str, hand: Hand, rng: np.random.Generator, *, spacing: str | None = None) -> Run:
    """The digits and separators of `text` set by one hand; `spacing` is a key of SPACING or any."""
    (low, high) = SPACING[spacing or _spacing(rng)][0]
    unruly, drift = rng.uniform(0.01, 0.07), rng.normal(0, 0.02)
    heights = 1.2 * (rng.uniform(0.07, 0.16) if rng.random() < UNEVEN else unruly)
    joined = JOINED if rng.random() < JOINING else 0.0
    tied = TIED if rng.random() < TYING else joined
    tall = float(rng.uniform(1.1, 1.45)) if rng.random() < FIRST else 1.0
    items: list[Item] = []
    edge: np.ndarray | None = None  # the right side of what is written, in each band of height
    x = 0.0
    for c in text:
        if c in SEPARATORS:
            glyph, height, foot = separator(c, hand, rng)
            left = x + max(float(rng.uniform(low, high)), 0.02) + hand.pen.width
            items.append((c, glyph, left, foot, height))
            x, edge = left + glyph.width * height, None
            continue
        glyph = hand.digit(int(c), rng)
        height = float(np.exp(rng.normal(0, heights))) * (1.0 if items else tall)
        foot = float(rng.normal(0, unruly)) + drift * x
        gap = float(rng.uniform(low, high)) + (hand.pen.width if low >= 0 else 0)
        if edge is None:
            left = x + max(gap, 0.02) if x else 0.0
        else:  # however well two shapes nest, each keeps most of its own place
            left = max(_beside(edge, glyph) + gap, x - NESTED * min(glyph.width * height, items[-1][1].width))
        items.append((c, glyph, left, foot, height))
        zeros = c == "0" and bool(items[-2:-1]) and items[-2][0] == "0"
        if edge is not None and rng.random() < (tied if zeros else joined):
            items[-1:-1] = _ligature(items[-2], items[-1], rng)
        x, edge = left + glyph.width * height, left + glyph.right * height
    return Run(text, tuple(items), x)


def _ligature(before: Item, after: Item, rng: np.random.Generator) -> list[Item]:
    """The pen not lifted between two digits: a bow from where one ends to where the next begins."""
    if not before[1].path or not after[1].path:
        return []
    end, start = (
        item[1].path[k][k] * item[4] + (item[2], item[3])  # type: ignore[index]
        for item, k in ((before, -1), (after, 0))
    )
    bow = (end + start) / 2 + rng.uniform(-0.1, 0.25) * np.array([0, 1])
    t = np.linspace(0, 1, 9)[:, None]
    curve = ((1 - t) ** 2 * end + 2 * t * (1 - t) * bow + t**2 * start).astype(np.float32)
    nowhere = np.full(ROWS, np.inf)
    return [("", Glyph([curve], None, np.eye(3), float(curve[:, 0].max()), nowhere, -nowhere), 0.0, 0.0, 1.0)]


def letters(text: str, hand: Hand, rng: np.random.Generator) -> Run:
    """A word in separate letters, small ones two thirds as high; unknown to the truth."""
    items: list[Item] = []
    x = 0.0
    for c in text:
        kind = "letters" if c.isalpha() else "symbols"
        glyph = hand.sign(kind, c, rng)
        height = (1.0 if c in TALL or kind == "symbols" else 0.62) * float(rng.uniform(0.9, 1.1))
        foot = 0.3 if c in "gpqy" else 0.0
        items.append((c, glyph, x, foot, height))
        x += glyph.width * height + float(rng.uniform(0.02, 0.2))
    return Run("", tuple(items), x)


def separator(c: str, hand: Hand, rng: np.random.Generator) -> tuple[Glyph, float, float]:
    """A full stop, comma or dash, with its height and its foot, in units of the digits' height."""
    if c == "-":
        wide, tilt = rng.uniform(0.2, 0.6), rng.normal(0, 0.04)
        dash = np.array([[0, tilt], [wide / 2, rng.normal(0, 0.02)], [wide, -tilt]], np.float32)
        return hand.strokes([dash], rng), max(wide / 1.5, 0.05), float(-rng.uniform(0.3, 0.6))
    if c == ".":
        dot, size = np.array([[0, 0], rng.normal(0, 1, 2)]), float(rng.uniform(0.005, 0.06))
        if rng.random() < ROUND and hand.pen.width < BROAD:
            turns = np.linspace(0, 1, 24)[:, None]
            dot = turns * np.hstack([np.cos(12 * turns), np.sin(12 * turns)])
            size = float(rng.uniform(0.005, BROAD - hand.pen.width))
        return hand.strokes([dot.astype(np.float32)], rng), size, float(rng.normal(0, 0.02))
    lean = rng.normal(-0.25, 0.2)
    comma = np.array([[0, 0], [0.12, 0.4], [lean, 1]], np.float32)
    return hand.strokes([comma], rng), float(rng.uniform(0.12, 0.3)), float(rng.uniform(0.05, 0.2))


def write(
    sheet: Sheet, run: Run, foot: tuple[float, float], height: float, hand: Hand, *, tilt: float = 0.0
) -> list[Mark]:
    """Lay a run down from `foot` (x, y), rising by `tilt` (y per x); a number is noted as a string."""
    marks = []
    for c, glyph, x, y, scale in run.items:
        pen = _scaled(hand.pen, 1 / scale) if glyph.path else hand.pen
        at = foot[0] + height * x, foot[1] + height * (y - tilt * x)
        label = int(c) if run.text and c.isdigit() else None
        mark = sheet.glyph(
            glyph, at, height * scale, pen, label=label, level=hand.level, printed=hand.face is not None
        )
        if mark:
            marks.append(mark)
    if run.text and len(marks) == sum(c.isdigit() for c in run.text):
        sheet.string(run.text, marks)
    return marks


def type_set(
    sheet: Sheet, text: str, foot: tuple[float, float], height: float, rng: np.random.Generator, *,
    dark: float = 0.85, label: int | None = None,
) -> Mark | None:  # fmt: skip
    """Print text in one of OpenCV's fonts with its capitals `height` pixels high; a digit if it has a `label`."""
    bitmap = bitmaps.printed(text, bitmaps.typeface(rng))
    glyph = pixels(bitmap, np.diag([1.25 ** rng.uniform(-1, 0.5), 1, 1]), 110.0)
    return sheet.glyph(glyph, foot, height, Pen(0.05, dark, 0, 0), label=label, printed=True)


def distraction(rng: np.random.Generator, hand: Hand) -> Run:
    """A word, or a currency or other sign."""
    if rng.random() < 0.5:
        return letters(str(rng.choice(list(CURRENCY))), hand, rng)
    return letters(word(rng, int(rng.integers(2, 8))), hand, rng)


def _scaled(pen: Pen, factor: float) -> Pen:
    """The same pen for a sign of another height, so that its line stays as wide."""
    return Pen(pen.width * factor, pen.dark, pen.pressure, pen.fade, pen.grain, pen.gaps)


def _spacing(rng: np.random.Generator) -> str:
    odds = np.cumsum([share for _, share in SPACING.values()])
    return list(SPACING)[int(np.searchsorted(odds, rng.random() * odds[-1]))]


def _beside(edge: np.ndarray, glyph: Glyph) -> float:
    """Where a glyph's left edge goes so that it just touches what is written, in any band or the next to one."""
    reach = np.maximum(edge, np.maximum(np.roll(edge, 1), np.roll(edge, -1)))
    fits = reach - glyph.left
    fits = fits[np.isfinite(fits)]
    return float(fits.max()) if len(fits) else float(edge[np.isfinite(edge)].max())
