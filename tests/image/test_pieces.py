"""Pieces of ink: those of OpenCV, found from inked pixels alone."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.image.pieces import pieces


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_pieces_are_those_of_opencv(seed, high, wide, share):
    rng = np.random.default_rng(seed)
    ink = (rng.random((high, wide)) < share) * rng.integers(1, 256, (high, wide))
    label, stats = pieces(ink.astype(np.uint8))
    _, known, boxes, _ = cv2.connectedComponentsWithStats((ink > 0).astype(np.uint8), connectivity=8)
    assert np.array_equal(stats, boxes[1:])
    assert np.array_equal(label, known)


def test_no_ink_has_no_pieces():
    label, stats = pieces(np.zeros((5, 7), np.uint8))
    assert not label.any()
    assert stats.shape == (0, 5)
