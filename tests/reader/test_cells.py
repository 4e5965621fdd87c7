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
    assert len(cells.posts(far, stand)) == 7 * tied
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
    assert len(cells.posts(ROW, stand)) == 7
