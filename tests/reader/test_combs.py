"""Bars between the cells of a form, and the digits that touch them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from netsuke.image.pieces import pieces
from netsuke.reader import combs, lines

CELL, HIGH, TOP = 60, 70, 20


def field(touched: tuple[int, ...], places: list[int], stem: float = 0.7) -> np.ndarray:
    """Bars at these places; a stroke of an L, so many bars high, that touches those `touched` from the right."""
    ink = np.zeros((HIGH + 2 * TOP, places[-1] + 60), np.uint8)
    for k, x in enumerate(places):
        cv2.line(ink, (x, TOP), (x, TOP + HIGH), 255, 3)
        left = x + 3 if k in touched else x + 16
        if k + 1 < len(places):
            foot = TOP + round(HIGH * (1 + stem) / 2)
            cv2.line(ink, (left + 10, foot - round(stem * HIGH)), (left + 10, foot), 255, 4)
            cv2.line(ink, (left, foot), (left + 22, foot), 255, 4)
    return ink


def counted(ink: np.ndarray) -> tuple[int, int]:
    """How many pieces are as high as a bar, and how many lower."""
    label, stats = combs.parted(*pieces(ink))
    for i, (x, y, w, h, area) in enumerate(stats.tolist(), 1):  # pieces and their numbers go together
        assert area == (label == i).sum()
        assert not area or cv2.boundingRect((label == i).astype(np.uint8)) == (x, y, w, h)
    high = stats[stats[:, 4] > 0, 3]
    return int((high > 0.9 * HIGH).sum()), int((high <= 0.9 * HIGH).sum())


EVENLY = [20 + CELL * k for k in range(7)]
BY_PAIRS = [20 + (CELL + 12) * (k // 2) + (CELL if k % 2 else 0) for k in range(8)]


@pytest.mark.parametrize("touched", [(), (1,), (1, 2, 4), (0, 2, 5)])
def test_bars_that_are_touched_are_told_by_the_free_ones(touched):
    assert counted(field(touched, EVENLY)) == (7, 6)
    (number,) = lines.numbers(*combs.parted(*pieces(field(touched, EVENLY)))[::-1])
    assert len(number.members) == 6


def test_without_free_bars_or_even_ones_nothing_is_cut():
    all_but_one = field((0, 1, 2, 3, 4, 5), EVENLY)
    assert counted(all_but_one) == (7, 0)
    uneven = field((1,), [20, 80, 175, 200, 290])
    label, stats = pieces(uneven)
    assert len(combs.parted(label, stats)[1]) == len(pieces(uneven)[1])


def test_boxes_that_stand_apart_are_one_field():
    ink = np.zeros((HIGH + 2 * TOP, BY_PAIRS[-1] + 40), np.uint8)
    for k, x in enumerate(BY_PAIRS):
        cv2.line(ink, (x, TOP), (x, TOP + HIGH), 255, 3)
        if k % 2 == 0:
            cv2.line(ink, (x + (2 if k == 2 else 20), 40), (x + 30, 75), 255, 4)
    label, stats = combs.parted(*pieces(ink))
    (number,) = lines.numbers(stats, label)
    assert len(number.members) == 4


def test_fields_beside_each_other_are_numbers_of_their_own():
    places = [20, 80, 140, 180, 240, 300]  # as of a day and a month
    ink = np.zeros((HIGH + 2 * TOP, 340), np.uint8)
    for k, x in enumerate(places):
        cv2.line(ink, (x, TOP), (x, TOP + HIGH), 255, 3)
        if k not in (2, 5):
            cv2.line(ink, (x + 12, 40), (x + 48, 75), 255, 4)
    label, stats = pieces(ink)
    assert [len(number.members) for number in lines.numbers(stats, label)] == [2, 2]


def test_a_stroke_that_crosses_a_bar_keeps_its_ink():
    ink = field((), EVENLY)
    cv2.line(ink, (EVENLY[2] - 20, TOP + 30), (EVENLY[2] + 20, TOP + 36), 255, 4)
    label, stats = combs.parted(*pieces(ink))
    assert label[TOP + 33, EVENLY[2]] == label[TOP + 33, EVENLY[2] - 10] == label[TOP + 33, EVENLY[2] + 10]
    assert (stats[stats[:, 4] > 0, 3] > 0.9 * HIGH).sum() == 7
