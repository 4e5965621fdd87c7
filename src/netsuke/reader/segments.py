"""A page's ink to candidates: atoms of ink in a row, and every run of them that may be one sign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np

from netsuke.image.pieces import pieces
from netsuke.reader import boxed, combs, lines, scanner, seams, stacked
from netsuke.reader.scanner import Scan

# Lengths are shares of the height of the row's digits.
WIDE = 0.75  # wider pieces may be several digits
LONE = 1.25  # of these, wider ones are
RUN = 6  # atoms of one sign, at most
BROAD = 1.6  # widest sign
TOGETHER = 1.3  # widest sign of several pieces
JUMP = 0.4  # widest gap within a sign
HOPELESS = -5.0  # log-probability below which no sign is looked for in several atoms together
BAR, ONE_OR_NONE = 2.5, (1, -1)  # widths of a lone upright stroke's height; columns of what a scan says
RATHER = 1.0  # nats by which such a stroke is rather a 1 than none, as far as the scanner can tell
MUTE = 0.05  # probability below which a row has no digit
TALL, ASIDE = 0.7, 0.12  # two pieces so tall and so far apart are no one sign

Judge = Callable[[list[np.ndarray]], np.ndarray]  # crops of ink to bool: which of them are surely one digit
Scans = Callable[
    [list[np.ndarray], list[float]], list[Scan]
]  # rows' ink and heights to what is read along them


@dataclass(frozen=True, eq=False)
class Atom:
    """Ink that is never divided: its box in the page, area, piece, and the strokes cut to part it from its left."""

    box: tuple[int, int, int, int]
    area: float
    piece: int
    cut: float = 0.0


@dataclass(frozen=True, eq=False)
class Row:
    """The atoms of a number, left to right. In `label`, int32 [H, W] of the page, atom i is `first` + i."""

    atoms: list[Atom]
    first: int
    height: float
    box: tuple[int, int, int, int]
    spans: list[tuple[int, int]] = field(default_factory=list)  # candidates: atoms from, to (exclusive)
    scan: Scan | None = None  # what is read along it
    told: np.ndarray | None = None  # and says of them, float64 [spans, 14] (scanner.told)
    amid: bool = False  # whether it is a single sign amid a cell of a puzzle

    @property
    def upright(self) -> bool:
        """Whether it is an upright stroke there."""
        _, _, w, h = max((atom.box for atom in self.atoms), key=lambda box: box[3])
        return self.amid and h > BAR * w


def rows(
    ink: np.ndarray,
    judge: Judge | None = None,
    scans: Scans | None = None,
    walls: np.ndarray | None = None,
) -> tuple[list[Row], np.ndarray]:
    """The numbers of a page's ink, uint8 [H, W], and its atoms, int32 [H, W], 0 where there is none.

    Wide pieces are cut and neighbours joined, but for those that `judge` knows. A piece is also cut between any two
    signs that `scans` tells of in it, and rows in which it tells of no digit are left out. `walls`, bool [H, W], are
    upright lines that part cells.
    """
    label, stats = stacked.parted(*combs.parted(*boxed.unboxed(*pieces(ink))))
    atoms = np.zeros(ink.shape, np.int32)
    found = lines.numbers(stats, label, walls)
    read: list[Scan | None] = [None] * len(found)
    if scans:
        parts = [_together(ink, label, number) for number in found]
        every = scans(parts, [number.height for number in found])
        speaking = [
            scan.loudest() >= MUTE or len(number.members) == 1 or number.amid
            for number, scan in zip(found, every, strict=True)
        ]
        found, read = [*compress(found, speaking)], [*compress(every, speaking)]
    known = _known(ink, label, stats, found, judge) if judge else set()
    out, first = [], 1
    for number, scan in zip(found, read, strict=True):
        marks = np.zeros(0) if scan is None else scan.marks() + number.box[0]
        parted = (
            _atoms(ink, label, int(i) + 1, stats[i], number.height, marks, int(i) in known)
            for i in number.members
        )
        made = sorted((part for parts in parted for part in parts), key=lambda part: part[0])
        for k, (_, atom, mask) in enumerate(made):
            x, y, w, h = atom.box
            atoms[y : y + h, x : x + w][mask] = first + k
        row = Row([atom for _, atom, _ in made], first, number.height, number.box, amid=number.amid)
        row.spans.extend(_spans(row, known))
        out.append(row)
        first += len(made)
    return (_likely(out, [scan for scan in read if scan]) if scans else out), atoms


def _known(
    ink: np.ndarray, label: np.ndarray, stats: np.ndarray, found: list[lines.Number], judge: Judge
) -> set[int]:
    """Those pieces that are surely one digit."""
    whole = [
        int(i)
        for number in found
        for i in number.members
        if stats[i, 2] <= LONE * number.height and stats[i, 3] > TALL * number.height
    ]
    if not whole:
        return set()
    sure = judge([_piece(ink, label, i + 1, stats[i])[0] for i in whole])
    return {i for i, known in zip(whole, sure, strict=True) if known}


def _together(ink: np.ndarray, label: np.ndarray, number: lines.Number) -> np.ndarray:
    """The ink of a number's own pieces, uint8 [h, w] of its box."""
    x, y, w, h = number.box
    return ink[y : y + h, x : x + w] * np.isin(label[y : y + h, x : x + w], number.members + 1)


def owned(ink: np.ndarray, atoms: np.ndarray, row: Row) -> np.ndarray:
    """The same of a row whose atoms are made."""
    x, y, w, h = row.box
    part = atoms[y : y + h, x : x + w]
    return ink[y : y + h, x : x + w] * ((part >= row.first) & (part < row.first + len(row.atoms)))


def _piece(ink: np.ndarray, label: np.ndarray, piece: int, stat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A component's own ink and its mask."""
    x, y, w, h, _ = (int(v) for v in stat)
    mask = label[y : y + h, x : x + w] == piece
    return ink[y : y + h, x : x + w] * mask, mask


def crop(
    ink: np.ndarray, atoms: np.ndarray, row: Row, span: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A candidate's own ink uint8 [h, w], and which of its box's pixels that is, bool [h, w]."""
    x, y, w, h = around(row, span)
    part = atoms[y : y + h, x : x + w]
    mask = (part >= row.first + span[0]) & (part < row.first + span[1])
    return ink[y : y + h, x : x + w] * mask, mask


def around(row: Row, span: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of a run of atoms."""
    boxes = [atom.box for atom in row.atoms[span[0] : span[1]]]
    x, y = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    return x, y, right - x, bottom - y


def _atoms(
    ink: np.ndarray,
    label: np.ndarray,
    piece: int,
    stat: np.ndarray,
    height: float,
    marks: np.ndarray,
    known: bool,
) -> list[tuple[float, Atom, np.ndarray]]:
    """A piece as atoms, each with the middle of its ink and its mask; one that is narrow or known is one, but where it
    holds two `marks`."""
    x, y, w, h, _ = (int(v) for v in stat)
    pixels, mask = _piece(ink, label, piece, stat)
    inside = marks[(marks > x) & (marks < x + w)] - x
    found: list[seams.Cut] = []
    if h > 0.5 * height and ((w > WIDE * height and not known) or len(inside) > 1):
        found = seams.cuts(pixels, height, 0 if known else round(4 * w / height), inside)
    if not found:
        return [_atom(pixels, mask, x, y, piece, 0.0)]
    side = seams.sides(found, w)
    parts = [(mask & (side == k), found[k - 1].strokes if k else 0.0) for k in range(len(found) + 1)]
    return [_atom(pixels, part, x, y, piece, cut) for part, cut in parts if part.any()]


def _atom(
    pixels: np.ndarray, mask: np.ndarray, x: int, y: int, piece: int, cut: float
) -> tuple[float, Atom, np.ndarray]:
    across, down = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    left, right, top, bottom = across[0], across[-1] + 1, down[0], down[-1] + 1
    part = mask[top:bottom, left:right]
    down = (pixels[top:bottom, left:right] * part).sum(0, dtype=np.int64)
    total = int(down.sum())
    middle = x + left + float(down @ (np.arange(right - left) + 0.5)) / max(total, 1)
    box = (x + int(left), y + int(top), int(right - left), int(bottom - top))
    return middle, Atom(box, total / 255, piece, cut), part


def _likely(rows: list[Row], scans: list[Scan]) -> list[Row]:
    """The rows with what is read along them, less those candidates of several atoms in which no one sign is seen."""
    boxes = [np.array([atom.box for atom in row.atoms], float) for row in rows]
    told = scanner.told(scans, boxes, [row.spans for row in rows], [row.box[0] for row in rows])
    out = []
    for row, scan, says in zip(rows, scans, told, strict=True):
        # a 1 or a bar: along a row of its own none can tell
        if len(row.atoms) == 1 and row.box[3] > BAR * row.box[2]:
            says[:, ONE_OR_NONE] = says[:, ONE_OR_NONE].max(1, keepdims=True) - (0.0, RATHER)
        single = np.array([stop == start + 1 for start, stop in row.spans], bool)
        kept = np.flatnonzero(single | (says[:, :-1].max(1) > HOPELESS))
        out.append(replace(row, spans=[row.spans[k] for k in kept], scan=scan, told=says[kept]))
    return out


def _spans(row: Row, known: set[int]) -> list[tuple[int, int]]:
    """Which runs of atoms may be one sign."""
    out = []
    for i, first in enumerate(row.atoms):
        out.append((i, i + 1))
        x, y, right, bottom = (
            first.box[0],
            first.box[1],
            first.box[0] + first.box[2],
            first.box[1] + first.box[3],
        )
        alone = True
        for j in range(i + 1, min(i + RUN, len(row.atoms))):
            atom = row.atoms[j]
            left, gap = atom.box[0], (atom.box[0] - right) / row.height
            tall = min(bottom - y, atom.box[3]) > TALL * row.height
            x, y = min(x, left), min(y, atom.box[1])
            right, bottom = max(right, left + atom.box[2]), max(bottom, atom.box[1] + atom.box[3])
            if (
                known
                and atom.piece != row.atoms[j - 1].piece
                and {atom.piece - 1, row.atoms[j - 1].piece - 1} & known
            ):
                break
            alone = alone and atom.piece == first.piece
            broadest = (BROAD if alone else TOGETHER) * max(row.height, bottom - y)
            if gap > (ASIDE if tall else JUMP) or right - x > broadest:
                break
            out.append((i, j + 1))
    return out
