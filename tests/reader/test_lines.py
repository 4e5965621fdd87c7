"""Which pieces of ink are one number, and which are drawings beside it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from netsuke.image.pieces import pieces
from netsuke.reader import lines


def digits(x: int, y: int, count: int, height: int = 30) -> list[list[int]]:
    return [[x + 26 * i, y, 20, height, 9 * height] for i in range(count)]


RING = [100, 60, 160, 160, 1800]  # a stamp: large both ways, and hollow


def found(*pieces: list[int]) -> list[list[int]]:
    return [sorted(number.members.tolist()) for number in lines.numbers(np.array(pieces))]


def test_digits_in_and_beside_a_stamp_are_numbers_of_their_own():
    inside, beside = digits(140, 120, 3), digits(20, 180, 2)
    pieces = [*inside, *beside, RING]
    assert found(*pieces) == [[0, 1, 2], [3, 4]]


def test_touching_digits_with_specks_in_their_loops_are_no_stamp():
    chain = [100, 60, 160, 60, 1300]
    specks = [[120, 85, 7, 7, 20], [180, 88, 8, 7, 20], [220, 84, 7, 8, 20]]
    assert [0, 1, 2, 3] in found(chain, *specks, *digits(20, 200, 5))
    assert [0, 1, 2, 3] not in found([100, 60, 160, 160, 1800], *digits(120, 120, 3), *digits(20, 300, 5))


def test_a_large_sign_that_holds_nothing_is_no_stamp():
    large = [100, 60, 110, 110, 1600]
    assert [0] in found(large, *digits(20, 300, 12))
    assert [0] not in found([100, 60, 160, 160, 3000], *digits(20, 300, 12))


def test_large_thin_digits_among_small_print_are_no_stamps():
    words = [[20 + 9 * i, 10, 7, 8, 20] for i in range(12)]
    large = [[60, 60, 40, 60, 400], [130, 62, 42, 58, 380]]  # thin strokes: as hollow as a ring
    assert [12, 13] in found(*words, *large)


def test_a_crosswords_black_squares_and_lines_are_no_sign():
    grid = [10, 10, 200, 200, 12_000]  # ink covers 0.3 of it
    cells = [row for i in range(3) for j in range(3) for row in digits(30 + 65 * j, 30 + 60 * i, 1)]
    assert found(*cells, grid) == [[i] for i in range(9)]


def test_what_is_left_of_a_frame_ties_no_digits():
    left = [10, 10, 66, 400, 3000]  # its side, and a stroke that lies on it
    column = [row for i in range(5) for row in digits(40, 20 + 80 * i, 1)]
    others = [row for i in range(4) for row in digits(200, 20 + 80 * i, 4)]
    assert all([i] in found(*column, *others, left) for i in range(5))


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


def test_hairs_at_a_sheets_edge_are_no_digits_and_thin_pens_are():
    edge = [400, 30, 2, 40, 60]
    assert not any(8 in members for members in found(*digits(20, 20, 8), edge))
    thin = [[x, y, w, h, 60] for x, y, w, h, _ in digits(20, 20, 8)]
    assert any(8 in members for members in found(*thin, edge))


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
    within = lines._within
    monkeypatch.setattr(lines, "_within", lambda stats: asked.append(len(stats)) or within(stats))
    rng = np.random.default_rng(0)
    grain = [[int(x), int(y), 6, 9, 30] for x, y in rng.integers(0, 400, (5000, 2))]
    assert all(len(members) <= lines.LONG for members in found(*grain))
    assert asked == [lines.PIECES]


def drawn(ink: np.ndarray) -> list[tuple[int, int, int, int]]:
    """The boxes of the numbers in ink."""
    _, label, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    return [number.box for number in lines.numbers(stats[1:], label)]


def test_touching_digits_around_a_loose_stroke_are_no_frame():
    ink = np.zeros((120, 240), np.uint8)
    cv2.putText(ink, "524", (20, 90), cv2.FONT_HERSHEY_SIMPLEX, 2.5, 255, 5)
    cv2.line(ink, (20, 88), (200, 88), 255, 4)  # all in one piece
    cv2.line(ink, (110, 42), (104, 64), 255, 4)
    assert len(cv2.connectedComponents(ink)[1:]) == 1
    (box,) = drawn(ink)
    assert box[2] > 140


@pytest.mark.parametrize("gap", [0, 5, 80])
def test_a_frame_is_none_of_what_it_holds_be_it_broken_or_open(gap):
    ink = np.zeros((120, 240), np.uint8)
    cv2.rectangle(ink, (20, 20), (200, 100), 255, 3)
    ink[15:105, 198:204][20 : 20 + gap] = 0
    cv2.putText(ink, "36", (60, 82), cv2.FONT_HERSHEY_SIMPLEX, 2, 255, 4)
    (box,) = drawn(ink)
    assert 50 < box[0] < 70
    assert box[2] < 110


def test_bars_between_cells_tie_digits_and_are_none_of_them():
    bars = [[20 + 40 * i, 20 + i, 4, 46, 170] for i in range(6)]
    cells = [[30 + 40 * i, 26 + i, 22, 33, 250] for i in (0, 1, 2)]
    assert found(*bars, *cells) == [[6, 7, 8]]


def test_ones_of_a_hand_are_no_bars_between_cells():
    ones = [[20, 20, 5, 46, 170], [48, 22, 4, 41, 150], [80, 18, 6, 50, 200], [104, 21, 5, 44, 160]]
    assert found(*ones) == [[0, 1, 2, 3]]


def test_a_number_beside_a_tall_stamp_is_one_still():
    stamp = [186, 30, 79, 112, 2600]
    assert found(*digits(20, 70, 5, height=46), stamp)[0][:5] == [0, 1, 2, 3, 4]


def test_digits_beside_a_desks_edges_are_numbers_still():
    edges = [[760, 100, 108, 685, 16000], [238, 175, 102, 684, 13000], [244, 84, 512, 84, 9400]]
    assert [0, 1, 2, 3] in found(*digits(430, 220, 4, height=50), *edges)


def test_what_leans_in_a_cell_of_its_own_is_no_slash():
    label, _ = score(0.6, 1.6)
    label, stats = pieces(np.pad(label > 0, ((90, 90), (0, 0))).astype(np.uint8))
    wall = np.zeros(label.shape, bool)
    wall[:, [20, 140, 210, 350]] = True
    assert len(lines.numbers(stats, label)) == 2
    assert [len(number.members) for number in lines.numbers(stats, label, wall)] == [2, 1, 2]


def score(lean: float, tall: float) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of 17/20 whose slash leans so far to the right of its foot, and is as many times as high as the digits."""
    ink = np.zeros((160, 420), np.uint8)
    for sign, x in (("1", 40), ("7", 90), ("2", 230), ("0", 290)):
        cv2.putText(ink, sign, (x, 110), cv2.FONT_HERSHEY_SIMPLEX, 2.2, 255, 4)
    high = round(tall * 48)
    foot, head = ((185 + way * round(lean * high / 2), 88 - way * high // 2) for way in (-1, 1))
    cv2.line(ink, foot, head, 255, 4)
    return pieces(ink)


@pytest.mark.parametrize(("lean", "tall"), [(0.35, 1.5), (0.6, 1.6), (0.5, 1.4)])
def test_a_slash_parts_two_numbers_and_is_of_neither(lean, tall):
    label, stats = score(lean, tall)
    found = lines.numbers(stats, label)
    assert [len(number.members) for number in found] == [2, 2]
    assert found[0].box[0] + found[0].box[2] < 185 < found[1].box[0]


@pytest.mark.parametrize(("lean", "tall"), [(0.1, 1.5), (0.35, 1.0), (-0.5, 1.5)])
def test_a_1_that_leans_or_is_tall_is_no_slash(lean, tall):
    label, stats = score(lean, tall)
    assert sum(len(number.members) for number in lines.numbers(stats, label)) == 5


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
