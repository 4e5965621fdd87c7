"""Which pieces of ink are one number, and what lies beside it."""

from __future__ import annotations

import numpy as np
import pytest

from netsuke.reader import drawings, lines
from reader.made_pieces import digits, found


@pytest.mark.parametrize(
    ("y", "area", "kept"), [(106, 10, True), (60, 10, False), (106, 4, False), (60, 40, True)]
)
def test_a_fine_pen_makes_small_full_stops(y, area, kept):
    """As broad as its stroke, 3 pixels, and at the foot; elsewhere so little ink is dirt."""
    large = [[20 + 70 * i, 20, 50, 90, 3 * 225] for i in range(3)]
    assert found(*large, [75, y, 3, 4, area]) == [[0, 1, 2, *([3] if kept else [])]]


def test_small_pieces_beside_a_number_are_its_own():
    pieces = [*digits(20, 20, 3), [102, 46, 5, 5, 20]]
    assert found(*pieces) == [[0, 1, 2, 3]]


def test_a_word_space_parts_numbers_and_even_spacing_does_not():
    near, far = digits(20, 20, 4), digits(140, 20, 4)  # gaps of 6 pixels, and one of 22: less than a height
    assert found(*near, *far) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    spaced = [[20 + 42 * i, 20, 20, 30, 270] for i in range(6)]
    assert found(*spaced) == [[0, 1, 2, 3, 4, 5]]


def test_a_lone_bar_much_lower_than_the_pages_signs_is_left_of_a_grid():
    page = [*digits(20, 20, 4), *digits(20, 120, 4)]
    assert [8] not in found(*page, [500, 70, 4, 14, 50])
    assert [8] in found(*page, [500, 70, 6, 28, 160])  # a 1
    assert [8, 9] in found(*page, [500, 70, 4, 14, 50], [510, 70, 8, 14, 70])  # small print


def test_a_tall_comma_at_the_digits_foot_parts_no_number():
    two = [*digits(20, 20, 2), *digits(94, 20, 2)]  # 28 apart: a word space
    assert found(*two) == [[0, 1], [2, 3]]
    assert found(*two, [75, 46, 6, 15, 80]) == [[0, 1, 2, 3, 4]]


def test_texture_is_no_number_and_its_pairs_fit_into_memory(monkeypatch):
    asked = []
    within = drawings.within
    monkeypatch.setattr(drawings, "within", lambda stats: asked.append(len(stats)) or within(stats))
    rng = np.random.default_rng(0)
    grain = [[int(x), int(y), 6, 9, 30] for x, y in rng.integers(0, 400, (5000, 2))]
    assert all(len(members) <= lines.LONG for members in found(*grain))
    assert asked == [lines.PIECES]


def test_bars_between_cells_tie_digits_and_are_none_of_them():
    bars = [[20 + 40 * i, 20 + i, 4, 46, 170] for i in range(6)]
    cells = [[30 + 40 * i, 26 + i, 22, 33, 250] for i in (0, 1, 2)]
    assert found(*bars, *cells) == [[6, 7, 8]]


def test_ones_of_a_hand_are_no_bars_between_cells():
    ones = [[20, 20, 5, 46, 170], [48, 22, 4, 41, 150], [80, 18, 6, 50, 200], [104, 21, 5, 44, 160]]
    assert found(*ones) == [[0, 1, 2, 3]]


def test_a_dash_behind_a_full_stop_ends_a_price_however_far_from_its_digits():
    stop, dash = [106, 46, 5, 5, 20], [126, 34, 14, 4, 50]
    assert found(*digits(20, 20, 3), stop, dash) == [[0, 1, 2, 3, 4]]
    assert found(*digits(20, 20, 3), dash) == [[0, 1, 2]]  # of a word, or a line
    assert found(*digits(20, 20, 3), stop, [126, 60, 14, 4, 50]) == [[0, 1, 2, 3]]
    assert found(*digits(20, 20, 3), stop, [126, 28, 4, 6, 20]) == [[0, 1, 2, 3]]


def test_a_numbers_box_holds_its_separators():
    """Also below the digits' foot; not what hangs lower, nor above."""
    pieces = [
        *digits(20, 20, 2),
        [78, 46, 6, 11, 60],
        [96, 34, 12, 4, 40],
        [30, 58, 5, 5, 20],
        [40, 8, 5, 6, 20],
    ]
    (number,) = lines.numbers(np.array(pieces))
    assert number.box == (20, 20, 88, 37)
    assert number.height == 30
