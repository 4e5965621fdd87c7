"""A page's ink to candidates: atoms of ink in a row, and every run of them that may be one sign."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from netsuke.reader import lines, seams

WIDE = 0.75  # of the digits' height: wider pieces may be several digits
RUN = 6  # atoms of one sign, at most
BROAD = 1.7  # widest sign, as a share of the digits' height
JUMP = 0.45  # widest gap within a sign


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


def rows(ink: np.ndarray) -> tuple[list[Row], np.ndarray]:
    """The numbers of a page's ink, uint8 [H, W], and its atoms, int32 [H, W], 0 where there is none."""
    import cv2

    count, label, stats, centres = cv2.connectedComponentsWithStats(
        (ink > 0).astype(np.uint8), connectivity=8
    )
    atoms = np.zeros(ink.shape, np.int32)
    out, first = [], 1
    for number in lines.numbers(stats[1:]):
        pieces = [_atoms(ink, label, int(i) + 1, stats[i + 1], number.height) for i in number.members]
        made = sorted((part for piece in pieces for part in piece), key=lambda part: part[0])
        for k, (_, atom, mask) in enumerate(made):
            x, y, w, h = atom.box
            atoms[y : y + h, x : x + w][mask] = first + k
        row = Row([atom for _, atom, _ in made], first, number.height, number.box)
        row.spans.extend(_spans(row))
        out.append(row)
        first += len(made)
    return out, atoms


def crop(
    ink: np.ndarray, atoms: np.ndarray, row: Row, span: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A candidate's own ink uint8 [h, w], and which of its box's pixels that is, bool [h, w]."""
    x, y, w, h = around(row, span)
    part = atoms[y : y + h, x : x + w]
    mask = (part >= row.first + span[0]) & (part < row.first + span[1])
    return np.where(mask, ink[y : y + h, x : x + w], 0), mask


def around(row: Row, span: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of a run of atoms."""
    boxes = np.array([atom.box for atom in row.atoms[span[0] : span[1]]])
    x, y = boxes[:, 0].min(), boxes[:, 1].min()
    return (
        int(x),
        int(y),
        int((boxes[:, 0] + boxes[:, 2]).max() - x),
        int((boxes[:, 1] + boxes[:, 3]).max() - y),
    )


def _atoms(
    ink: np.ndarray, label: np.ndarray, piece: int, stat: np.ndarray, height: float
) -> list[tuple[float, Atom, np.ndarray]]:
    """A piece as atoms, each with the middle of its ink and its mask; a narrow piece is one."""
    x, y, w, h, _ = (int(v) for v in stat)
    mask = label[y : y + h, x : x + w] == piece
    pixels = np.where(mask, ink[y : y + h, x : x + w], 0)
    found = (
        seams.cuts(pixels, height, round(4 * w / height)) if w > WIDE * height and h > 0.5 * height else []
    )
    if not found:
        return [_atom(pixels, mask, x, y, piece, 0.0)]
    side = sum((np.arange(w) >= cut.columns[:, None]).astype(int) for cut in found)
    parts = [(mask & (side == k), found[k - 1].strokes if k else 0.0) for k in range(len(found) + 1)]
    return [_atom(pixels, part, x, y, piece, cut) for part, cut in parts if part.any()]


def _atom(
    pixels: np.ndarray, mask: np.ndarray, x: int, y: int, piece: int, cut: float
) -> tuple[float, Atom, np.ndarray]:
    across, down = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    left, right, top, bottom = across[0], across[-1] + 1, down[0], down[-1] + 1
    part = mask[top:bottom, left:right]
    own = np.where(part, pixels[top:bottom, left:right], 0).astype(np.float64)
    total = own.sum()
    middle = x + left + float(own.sum(0) @ (np.arange(right - left) + 0.5)) / max(total, 1)
    box = (x + int(left), y + int(top), int(right - left), int(bottom - top))
    return middle, Atom(box, total / 255, piece, cut), part


def _spans(row: Row) -> list[tuple[int, int]]:
    out = []
    for i in range(len(row.atoms)):
        right = row.atoms[i].box[0] + row.atoms[i].box[2]
        for j in range(i + 1, min(i + RUN, len(row.atoms)) + 1):
            if j > i + 1:
                if row.atoms[j - 1].box[0] - right > JUMP * row.height:
                    break
                right = max(right, row.atoms[j - 1].box[0] + row.atoms[j - 1].box[2])
                if around(row, (i, j))[2] > BROAD * row.height:
                    break
            out.append((i, j))
    return out
