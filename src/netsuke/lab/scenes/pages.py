"""Pages of numbers: notes, tables, forms, puzzles and scattered scraps, of up to a megapixel."""

from __future__ import annotations

import numpy as np

from netsuke.lab.pens.ink import Pen
from netsuke.lab.pens.outliers import outlier
from netsuke.lab.scenes import grounds
from netsuke.lab.scenes.hands import Hand, hand, steadier
from netsuke.lab.scenes.sheet import Scene, Sheet
from netsuke.lab.scenes.writing import amount, distraction, number, type_set, write

PAGES = {"notes": 0.3, "table": 0.15, "form": 0.15, "puzzle": 0.2, "scraps": 0.2}  # how often each is chosen
WORDS = (
    "Name",
    "Date",
    "Total",
    "Sum",
    "Page",
    "Phone",
    "Price",
    "Ref",
    "Weight",
    "Street",
    "Each",
    "Tax",
    "Amount",
)


def page(
    rng: np.random.Generator, *, kind: str | None = None, size: tuple[int, int] | None = None,
    digits: int | None = None, split: str = "train",
) -> Scene:  # fmt: skip
    """A page of about `digits` digits, `size` (h, w) pixels, `kind` a key of PAGES; what is not given is drawn.

    Drawn are 10 to 60 digits, none at all on one page in twenty, on 320 to 1 000 pixels a side.
    """
    kind = kind or str(rng.choice(list(PAGES), p=list(PAGES.values())))
    size = size or _size(kind, rng)
    if digits is None:
        digits = int(rng.integers(10, 61)) if rng.random() < 0.95 else 0
    # so high that the digits fill a quarter of the page at most
    height = float(np.sqrt(0.25 * size[0] * size[1] / max(digits, 10))) * float(rng.uniform(0.4, 1.0))
    height = min(max(height, 14.0), 0.2 * min(size))
    sheet = Sheet(size, rng, fine=1 if height >= 26 else 2, view=grounds.view(size, rng))
    ground = _MAKERS[kind](sheet, rng, steadier(hand(rng, split), 1.1 / height), height, digits)
    if rng.random() < 0.25:
        at = rng.uniform(0.1, 0.9, 2) * size[::-1]
        grounds.stamp(sheet, rng, (float(at[0]), float(at[1])), float(rng.uniform(1, 3)) * height)
    _specks(sheet, rng)
    return sheet.photograph(ground, harm=0.5, uneven=0.7)


def _size(kind: str, rng: np.random.Generator) -> tuple[int, int]:
    h, w = int(rng.integers(320, 1001)), int(rng.integers(320, 1001))
    return (h, min(1000, int(h * rng.uniform(0.75, 1.3)))) if kind == "puzzle" else (h, w)


def _notes(sheet: Sheet, rng: np.random.Generator, writer: Hand, height: float, digits: int) -> np.ndarray:
    """Lines of numbers with words among them, by one hand or two."""
    h, w = sheet.size
    gap, y = height * float(rng.uniform(1.5, 2.4)), height * float(rng.uniform(1.3, 4))
    paper = rng.random()
    if paper < 0.35:
        grounds.ruled(sheet, rng, gap, y + 0.1 * height)
    elif paper < 0.6:
        grounds.squared(sheet, rng, height * float(rng.uniform(0.4, 1.2)))
    hands = [writer, steadier(hand(rng, writer.split), 1.1 / height)] if rng.random() < 0.3 else [writer]
    left, words = w * float(rng.uniform(0.03, 0.12)), float(rng.uniform(0.1, 0.6))
    while y < h - 0.3 * height and (digits > 0 or rng.random() < 0.6):
        someone = hands[int(rng.integers(len(hands)))]
        digits -= _row(sheet, rng, someone, height, (left, y), digits, words)
        y += gap * (1 if paper < 0.35 else float(rng.uniform(0.95, 1.2)))
    return grounds.ground(sheet, rng, pattern=0.03, unit=height)


def _row(
    sheet: Sheet, rng: np.random.Generator, writer: Hand, height: float, start: tuple[float, float],
    most: int, words: float,
) -> int:  # fmt: skip
    """One line of numbers and words; the number of digits written."""
    (x, y), tilt, written = start, float(rng.normal(0, 0.02)), 0
    end = sheet.size[1] * float(rng.uniform(0.6, 0.97))
    while x < end:
        wordy = written >= most or rng.random() < words
        run = distraction(rng, writer) if wordy else number(amount(rng, 8), writer, rng)
        if x + run.width * height > end:
            break
        written += len(write(sheet, run, (x, y - tilt * (x - start[0])), height, writer, tilt=tilt))
        x += (run.width + float(rng.uniform(0.9, 2.5))) * height
    return written


def _table(sheet: Sheet, rng: np.random.Generator, writer: Hand, height: float, digits: int) -> np.ndarray:
    """A bordered table, words in its first column, a number in most cells."""
    h, w = sheet.size
    x, y = w * float(rng.uniform(0.03, 0.08)), h * float(rng.uniform(0.03, 0.1))
    tall = height * float(rng.uniform(1.4, 2.2))
    rows = max(2, int((h * 0.93 - y) / tall))
    columns = int(rng.integers(2, 6))
    wide = (w * 0.95 - x) / columns
    grounds.grid(
        sheet, rng, (x, y), [tall * i for i in range(rows + 1)], [wide * i for i in range(columns + 1)]
    )
    filled = min(0.9, digits / (2.5 * rows * columns))
    for row in range(rows):
        for column in range(columns):
            at = x + wide * column + 0.15 * height, y + tall * (row + 0.5) + 0.45 * height
            if row == 0 or (column == 0 and rng.random() < 0.7):
                type_set(sheet, str(rng.choice(WORDS)), at, 0.6 * height, rng)
            elif digits > 0 and rng.random() < filled:
                run = number(amount(rng, max(1, int(wide / height * 0.9))), writer, rng)
                if run.width * height < wide - 0.3 * height:
                    digits -= len(write(sheet, run, at, height, writer))
    return grounds.ground(sheet, rng, pattern=0.05, unit=height)


def _form(sheet: Sheet, rng: np.random.Generator, writer: Hand, height: float, digits: int) -> np.ndarray:
    """Printed labels with combs of boxes, a digit to each, and some words on lines."""
    h, w = sheet.size
    y = height * float(rng.uniform(1.6, 2.5))
    cell = height * float(rng.uniform(1.15, 1.6))
    while y < h - 0.4 * height and digits > 0:
        x = w * float(rng.uniform(0.03, 0.08))
        label = str(rng.choice(WORDS)) + (":" if rng.random() < 0.5 else "")
        type_set(sheet, label, (x, y), 0.55 * height, rng)
        x += height * (0.5 * len(label) + 0.8)
        cells = min(int(rng.integers(2, 11)), int((w * 0.97 - x) / cell))
        if cells >= 1 and rng.random() < 0.75:
            top = y - 0.5 * height - 0.5 * cell
            grounds.grid(sheet, rng, (x, top), [0, cell], [cell * i for i in range(cells + 1)])
            digits -= _comb(sheet, rng, writer, height, (x, y), cell, cells)
        elif cells >= 1:
            sheet.rule([((x, y + 0.1 * height), (w * 0.95, y + 0.1 * height))], max(0.8, 0.03 * height), 0.6)
            write(sheet, distraction(rng, writer), (x, y), 0.9 * height, writer)
        y += cell * float(rng.uniform(1.2, 1.8))
    return grounds.ground(sheet, rng, pattern=0.1, unit=height)


def _comb(
    sheet: Sheet,
    rng: np.random.Generator,
    writer: Hand,
    height: float,
    start: tuple[float, float],
    cell: float,
    cells: int,
) -> int:
    text = "".join(str(int(d)) for d in rng.integers(10, size=int(rng.integers(1, cells + 1))))
    marks = []
    for i, c in enumerate(text):
        glyph = writer.digit(int(c), rng)
        size = height * float(rng.uniform(0.8, 1.05))
        x = start[0] + cell * (i + 0.5) - glyph.width * size / 2 + cell * float(rng.normal(0, 0.06))
        mark = sheet.glyph(
            glyph,
            (x, start[1] + height * float(rng.normal(0, 0.06))),
            size,
            writer.pen,
            label=int(c),
            level=writer.level,
        )
        marks += [mark] if mark else []
    if len(marks) == len(text):
        sheet.string(text, marks)
    return len(marks)


def _puzzle(sheet: Sheet, rng: np.random.Generator, writer: Hand, height: float, digits: int) -> np.ndarray:
    """A sudoku: bold and fine lines, printed clues, handwritten answers, empty cells."""
    h, w = sheet.size
    n = 9 if rng.random() < 0.8 else 6
    side = min(h, w) * float(rng.uniform(0.75, 0.95))
    x, y = (w - side) * float(rng.random()), (h - side) * float(rng.random())
    cell = side / n
    steps = [cell * i for i in range(n + 1)]
    grounds.grid(sheet, rng, (x, y), steps, steps, thick_every=3)
    full = min(1.0, digits / n**2)
    clues, answers = full * float(rng.uniform(0.2, 0.6)), full * float(rng.uniform(0.3, 0.8))
    dark, printed = float(rng.uniform(0.6, 0.95)), 0.55 * cell
    for row in range(n):
        for column in range(n):
            label, chance = int(rng.integers(1, 10)), rng.random()
            middle = x + cell * (column + 0.5), y + cell * (row + 0.5)
            if chance < clues:
                at = middle[0] - 0.3 * printed, middle[1] + 0.5 * printed
                mark = type_set(sheet, str(label), at, printed, rng, dark=dark, label=label)
            elif chance < clues + answers:
                glyph, size = writer.digit(label, rng), cell * float(rng.uniform(0.5, 0.85))
                off = rng.normal(0, 0.06, 2) * cell
                at = (
                    middle[0] - glyph.width * size / 2 + float(off[0]),
                    middle[1] + 0.5 * size + float(off[1]),
                )
                mark = sheet.glyph(glyph, at, size, writer.pen, label=label, level=writer.level)
            else:
                continue
            if mark:
                sheet.string(str(label), [mark])
    return grounds.ground(sheet, rng, unit=height)


def _scraps(sheet: Sheet, rng: np.random.Generator, writer: Hand, height: float, digits: int) -> np.ndarray:
    """Numbers of many sizes here and there, turned a little, among words and scribbles; none over another."""
    h, w = sheet.size
    taken: list[tuple[float, float, float, float]] = []
    for _ in range(60):
        if digits <= 0:
            break
        tall = min(max(height * float(np.exp(rng.normal(0, 0.35))), 12.0), 0.3 * h)
        which = rng.random()
        run = number(amount(rng, 6), writer, rng) if which < 0.7 else distraction(rng, writer)
        wide, tilt = run.width * tall, float(rng.normal(0, 0.08))
        x, y = (
            float(rng.uniform(0.2 * tall, max(w - wide, tall))),
            float(rng.uniform(1.4 * tall, h - 0.3 * tall)),
        )
        box = x - 0.5 * tall, y - 1.5 * tall, x + wide + 0.5 * tall, y + 0.5 * tall
        if x + wide > w or any(
            a[0] < box[2] and box[0] < a[2] and a[1] < box[3] and box[1] < a[3] for a in taken
        ):
            continue
        taken.append(box)
        if which < 0.93:
            digits -= len(write(sheet, run, (x, y), tall, writer, tilt=tilt))
        else:
            sign = outlier(rng, writer.split, several=False)
            if isinstance(sign, list) and sign:
                sheet.glyph(writer.strokes(sign, rng), (x, y), tall, writer.pen)
    return grounds.ground(sheet, rng, pattern=0.1, unit=height)


def _specks(sheet: Sheet, rng: np.random.Generator) -> None:
    """Dirt."""
    if rng.random() < 0.4:
        pen = Pen(float(rng.uniform(0.5, 2)), float(rng.uniform(0.2, 0.8)))
        for at in rng.random((int(rng.integers(1, 20)), 2)) * sheet.size[::-1]:
            sheet.print_path([np.stack([at, at + rng.uniform(0.2, 2, 2)])], pen.width, pen.dark)


_MAKERS = {"notes": _notes, "table": _table, "form": _form, "puzzle": _puzzle, "scraps": _scraps}
