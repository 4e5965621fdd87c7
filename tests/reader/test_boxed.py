"""Digits that touch the box they are written in: parted from it, and all else stays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.image.pieces import pieces
from netsuke.reader import Reader
from netsuke.reader.boxed import unboxed

SHAPE = (120, 160)
BOX = (40, 30, 50, 60)  # x, y, w, h


def drawn(
    *, thick: int = 2, degrees: float = 0.0, sign: str = "5", at: tuple[int, int] | None = None
) -> np.ndarray:
    """Ink of a box with a sign at a place in it, turned."""
    ink = np.zeros(SHAPE, np.uint8)
    x, y, w, h = BOX
    cv2.rectangle(ink, (x, y), (x + w - 1, y + h - 1), 255, thick)
    if at is not None:
        cv2.putText(ink, sign, at, cv2.FONT_HERSHEY_SIMPLEX, 1.3, 255, 3)
    turn = cv2.getRotationMatrix2D((SHAPE[1] / 2, SHAPE[0] / 2), degrees, 1)
    return (cv2.warpAffine(ink, turn, SHAPE[::-1]) > 100) * np.uint8(255)


PLACES = {"left": (37, 75), "right": (67, 75), "top": (52, 57), "foot": (52, 88)}


@pytest.mark.parametrize("side", PLACES)
@pytest.mark.parametrize("thick", [1, 2, 4])
@pytest.mark.parametrize("degrees", [0.0, 3.0, -4.0])
def test_a_sign_that_touches_a_side_is_a_piece_of_its_own(side, thick, degrees):
    label, stats = pieces(drawn(thick=thick, degrees=degrees, at=PLACES[side]))
    assert len(stats) == 1
    label, stats = unboxed(label, stats)
    assert stats[0, 4] == 0
    assert not (label == 1).any()
    _, _, w, h, _ = stats[1:][stats[1:, 4].argmax()]
    assert 14 < w < 26
    assert 20 < h < 34
    assert stats[1:, 4].sum() < 450  # of the box nothing is left


@pytest.mark.parametrize(
    "ink",
    [
        drawn(),
        drawn(at=(54, 70)),  # nothing touches the box
        cv2.line(drawn(), (65, 30), (66, 89), 255, 2),  # a bar between two cells
        cv2.ellipse(np.zeros(SHAPE, np.uint8), (70, 60), (24, 34), 0, 0, 360, 255, 3),
        cv2.putText(np.zeros(SHAPE, np.uint8), "80", (20, 90), cv2.FONT_HERSHEY_SIMPLEX, 2.4, 255, 4),
    ],
)
def test_other_pieces_stay(ink):
    label, stats = pieces(ink)
    again, after = unboxed(label.copy(), stats.copy())
    assert np.array_equal(again, label)
    assert np.array_equal(after, stats)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_what_is_left_is_ink_and_well_counted(seed):
    rng = np.random.default_rng(seed)
    ink = np.zeros((90, 140), np.uint8)
    for _ in range(5):
        (x, y), (w, h) = rng.integers((2, 2), (80, 40)).tolist(), rng.integers(10, 50, 2).tolist()
        cv2.rectangle(ink, (x, y), (x + w, y + h), 255, int(rng.integers(1, 5)))
    label, stats = unboxed(*pieces(ink))
    assert not (label[ink == 0]).any()
    for k, (x, y, w, h, area) in enumerate(stats, 1):
        assert (label == k).sum() == area
        if area:
            assert cv2.boundingRect((label == k).astype(np.uint8)) == (x, y, w, h)


@pytest.mark.parametrize("side", PLACES)
def test_a_digit_that_touches_its_box_is_read(side):
    found = Reader().read_all(235 - np.uint8(0.8 * drawn(at=PLACES[side])))
    assert [reading.text for reading in found] == ["5"]
