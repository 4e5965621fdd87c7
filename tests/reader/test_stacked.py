"""Digits that touch the line above them: cut between the lines, and nothing else is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.image.pieces import pieces
from netsuke.reader.stacked import parted


def page(*signs: tuple[int, int, int, int]) -> np.ndarray:
    """Ink with hollow signs at these places (x, y, w, h)."""
    ink = np.zeros((200, 400), np.uint8)
    for x, y, w, h in signs:
        ink[y : y + h, x : x + w] = 255
        ink[y + 4 : y + h - 4, x + 4 : x + w - 4] = 0
    return ink


UPPER = [(x, 40, 24, 36) for x in (20, 60, 140)]
LOWER = [(x, 82, 24, 36) for x in (24, 64, 144)]
TIED = (100, 38, 24, 82)


def test_a_piece_of_two_lines_is_cut_between_them():
    label, stats = pieces(page(*UPPER, *LOWER, TIED))
    count = len(stats)
    ink = label > 0
    label, stats = parted(label, stats)
    assert len(stats) == count + 1
    assert np.array_equal(label > 0, ink)
    above, below = sorted(box for box in stats.tolist() if box[0] == TIED[0])
    assert above[1] == 38
    assert 60 < above[1] + above[3] <= below[1] < 95
    assert below[1] + below[3] == 120


def test_a_number_that_hangs_together_is_cut_from_the_line_above():
    ink = page(*[(x, 40, 24, 36) for x in range(20, 360, 40)], *LOWER[:2])
    ink[82:118, 150:350] |= page((150, 82, 200, 36))[82:118, 150:350]
    ink[70:90, 190:194] = 255  # its first stroke reaches the line above
    _, stats = parted(*pieces(ink))
    assert sorted(stats[stats[:, 2] > 100, 1:4].tolist())[0][0] > 65
    assert (stats[:, 3] < 50).all()


@pytest.mark.parametrize(
    "signs",
    [
        [*UPPER, *LOWER],  # no tall one
        [*UPPER, TIED],  # of one line alone: a long 7
        [*UPPER, *LOWER, (160, 60, 24, 36), (80, 60, 16, 36), TIED],  # and some between
        [TIED],
    ],
)
def test_other_tall_pieces_stay(signs):
    label, stats = pieces(page(*signs))
    again, after = parted(label.copy(), stats.copy())
    assert np.array_equal(again, label)
    assert np.array_equal(after, stats)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_pieces_stay_pieces_of_the_same_ink(seed):
    rng = np.random.default_rng(seed)
    ink = page(*((*rng.integers(0, (360, 140)), *rng.integers((8, 8), (40, 100))) for _ in range(12)))
    label, stats = parted(*pieces(ink))
    assert np.array_equal(label > 0, ink > 0)
    for k, (x, y, w, h, area) in enumerate(stats, 1):
        assert cv2.boundingRect((label == k).astype(np.uint8)) == (x, y, w, h)
        assert (label == k).sum() == area
