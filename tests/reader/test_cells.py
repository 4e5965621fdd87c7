"""Which upright lines part numbers, and which tie their digits together."""

from __future__ import annotations

import numpy as np
import pytest

from netsuke.reader import cells, lines

ROW = np.array([[29 + 50 * i, 40, 32, 30, 270] for i in range(6)])  # digits 30 high, 50 apart


def walls(first: int, gap: int, count: int, shape: tuple[int, int] = (120, 400)) -> np.ndarray:
    out = np.zeros(shape, bool)
    out[:, first : first + gap * count : gap] = True
    return out


@pytest.mark.parametrize(("first", "gap", "numbers"), [(20, 50, 6), (20, 100, 3), (25, 30, 1), (390, 50, 1)])
def test_walls_of_roomy_cells_part_numbers(first, gap, numbers):
    """Of digits 30 high, 50 apart: each in a cell; two in each; cells of squared paper; walls that stand elsewhere."""
    assert len(lines.numbers(ROW)) == 1
    found = lines.numbers(ROW, walls=walls(first, gap, 8))
    assert [len(number.members) for number in found] == [6 // numbers] * numbers


@pytest.mark.parametrize(("top", "foot", "tied"), [(30, 80, True), (30, 110, False), (0, 120, False)])
def test_a_single_field_ties_digits_that_are_far_apart(top, foot, tied):
    far = ROW * [2, 1, 1, 1, 1]  # 100 apart
    assert len(lines.numbers(far)) == 6
    stand = walls(20, 100, 7, (120, 800))
    stand[:top] = stand[foot:] = False
    assert len(cells.posts(far, cells.Walls.of(stand))) == 7 * tied
    assert len(lines.numbers(far, walls=stand)) == (1 if tied else 6)


@pytest.mark.parametrize("kept", [True, False])
def test_cells_of_several_signs_are_those_of_a_table(kept):
    """Of a single row, as a field's; its bars are kept, as pieces, or were taken out as lines."""
    pairs = np.array([[25 + 70 * (i // 2) + 30 * (i % 2), 40, 26, 30, 270] for i in range(10)])
    bars = np.array([[16 + 70 * i, 28, 3, 54, 160] for i in range(6)])
    stand = walls(17, 70, 6)
    stand[:28] = stand[82:] = False
    found = lines.numbers(np.concatenate([pairs, bars])) if kept else lines.numbers(pairs, walls=stand)
    assert [number.members.tolist() for number in found] == [[2 * k, 2 * k + 1] for k in range(5)]


def test_posts_that_ink_breaks_are_whole():
    stand = walls(20, 50, 7)
    stand[:30] = stand[80:] = False
    stand[50:60] = False
    assert len(cells.posts(ROW, cells.Walls.of(stand))) == 7


def grid(columns: int, rows: int, cell: int = 40, *, gap: int = 0, pitch: int | None = None) -> np.ndarray:
    """Walls of rows of cells, from (20, 20) on, `gap` pixels between the rows."""
    out = np.zeros((40 + rows * (cell + gap), 40 + columns * (pitch or cell)), bool)
    for row in range(rows):
        top = 20 + row * (cell + gap)
        out[top : top + cell, 20 :: pitch or cell] = True
    out[:, 21 + columns * (pitch or cell) :] = False
    return out


def filled(
    columns: int, rows: int, high: int, *, cell: int = 40, gap: int = 0, wide: float = 0.7
) -> np.ndarray:
    """A sign in the middle of each cell of such rows."""
    x, y = (a.ravel() for a in np.meshgrid(np.arange(columns), np.arange(rows)))
    w = max(2, round(wide * high))
    left, top = 20 + cell * x + (cell - w) // 2, 20 + (cell + gap) * y + (cell - high) // 2
    return np.stack(
        [left, top, np.full_like(x, w), np.full_like(x, high), np.full_like(x, w * high // 3 + 2)], 1
    )


@pytest.mark.parametrize("side", [4, 9])
def test_in_a_square_grid_each_cell_holds_a_number_however_large(side):
    signs = filled(side, side, 35)
    assert len(lines.numbers(signs, walls=grid(side, side))) == side**2
    assert len(lines.numbers(signs, walls=grid(side, 2 * side))) < side**2  # squared paper is not square
    assert len(lines.numbers(filled(3, 3, 35), walls=grid(3, 3))) < 9


def test_a_sheet_of_squared_paper_is_no_puzzle():
    assert len(lines.numbers(filled(14, 14, 35), walls=grid(14, 14))) == 14


def test_in_a_puzzle_room_does_not_matter():
    """Signs may touch its lines: some of these are higher than its cells."""
    signs = filled(6, 6, 39)
    signs[::2, 3] = 44
    assert len(lines.numbers(signs, walls=grid(6, 6))) == 36


@pytest.mark.parametrize("missing", ["left", "right", "both"])
def test_a_puzzle_cut_at_its_outer_lines_is_one(missing):
    stand = grid(6, 6)[20:-20, 20:-20]
    signs = filled(6, 6, 36) - [20, 20, 0, 0, 0]
    if missing != "right":
        stand[:, :2] = False
    if missing != "left":
        stand[:, -2:] = False
    assert len(lines.numbers(signs, walls=stand)) == 36


def test_fields_close_below_each_other_have_posts_of_their_own():
    stand, signs = grid(8, 3, 50, gap=6), filled(8, 3, 30, cell=50, gap=6)
    assert len(cells.posts(signs, cells.Walls.of(stand))) == 27


def test_a_grid_of_uneven_columns_is_no_puzzle():
    stand = grid(6, 6)
    stand[:, 66], stand[:, 60] = stand[:, 60].copy(), False
    stand[:, 146], stand[:, 140] = stand[:, 140].copy(), False
    signs = filled(6, 6, 38)
    assert cells.apart(signs, cells.Walls.of(grid(6, 6)))[0].any()
    assert not cells.apart(signs, cells.Walls.of(stand))[0].any()


@pytest.mark.parametrize(("gap", "numbers"), [(0, 40), (3, 5), (12, 5)])
def test_fields_below_each_other_hold_a_number_each(gap, numbers):
    signs = filled(8, 5, 28, gap=gap)
    assert len(lines.numbers(signs, walls=grid(8, 5, gap=gap))) == numbers


def test_1s_in_a_puzzle_are_no_bars():
    ones = filled(9, 9, 24, wide=0.12)
    found = lines.numbers(ones, walls=grid(9, 9))
    assert sum(len(number.members) for number in found) == 81
    assert not lines.numbers(ones)  # where no wall stands between them, they are


def test_what_stands_amid_a_cell_of_a_puzzle():
    """Not what is left of its lines, nor beside them, nor low; nor where a line between two cells was not found."""
    stand, ones = grid(6, 6), filled(6, 6, 30, wide=0.1)
    assert cells.apart(ones, cells.Walls.of(stand))[1].all()
    assert not cells.apart(ones + np.array([18, 0, 0, 0, 0]), cells.Walls.of(stand))[1].any()
    assert not cells.apart(ones + np.array([14, 0, 0, 0, 0]), cells.Walls.of(stand))[1].any()
    assert not cells.apart(ones - np.array([0, 0, 0, 18, 0]), cells.Walls.of(stand))[1].any()
    assert not cells.apart(ones, cells.Walls.of(grid(14, 14)))[1].any()
    stand[:, 60] = False
    assert not cells.apart(ones[:1] + np.array([20, 0, 0, 0, 0]), cells.Walls.of(stand))[1].any()


def test_fine_strokes_amid_a_puzzles_cells_are_no_hairs():
    signs, fine = filled(6, 6, 30), filled(6, 6, 30, wide=0.05)
    signs[:, 4], fine[:, 4] = 400, 40
    mixed = np.where((np.arange(36) % 3 == 0)[:, None], fine, signs)
    assert len(lines.numbers(mixed, walls=grid(6, 6))) == 36
    assert len(np.concatenate([number.members for number in lines.numbers(mixed)])) == 24


def test_an_upright_stroke_amid_a_puzzles_cell_is_a_number_amid_it():
    ones = filled(6, 6, 30, wide=0.1)
    assert all(number.amid for number in lines.numbers(ones, walls=grid(6, 6)))
    assert not any(number.amid for number in lines.numbers(ones, walls=grid(6, 12)))
