"""Which pieces of ink are drawings: frames, stamps, slashes and what is left of lines."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from netsuke.image.pieces import pieces
from netsuke.reader import lines
from reader.made_pieces import digits, found

RING = [100, 60, 160, 160, 1800]  # a stamp: large both ways, and hollow


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


def test_hairs_at_a_sheets_edge_are_no_digits_and_thin_pens_are():
    edge = [400, 30, 2, 40, 60]
    assert not any(8 in members for members in found(*digits(20, 20, 8), edge))
    thin = [[x, y, w, h, 60] for x, y, w, h, _ in digits(20, 20, 8)]
    assert any(8 in members for members in found(*thin, edge))


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
