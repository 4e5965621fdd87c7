"""Fitting what tells numbers from words: rows with their truth, and weights that part them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs SciPy: pip install 'netsuke[lab]'")

from netsuke.lab import row_trust
from netsuke.reader import Reader, trust


def test_rows_are_numbers_where_digits_stand():
    page = np.full((220, 300), 235, np.uint8)
    cv2.putText(page, "2580", (20, 80), cv2.FONT_HERSHEY_SIMPLEX, 1.8, 30, 4, cv2.LINE_AA)
    cv2.putText(page, "613", (20, 180), cv2.FONT_HERSHEY_SIMPLEX, 1.8, 30, 4, cv2.LINE_AA)
    upper = [(20 + 36 * i, 38, 34, 46) for i in range(4)]
    found = list(row_trust.examples(Reader(backend="packaged"), page, upper))
    assert [number for _, number in found] == [True, False]  # as far as the truth knows
    assert all(row.shape == (len(trust.NAMES),) for row, _ in found)


def test_a_fit_parts_what_can_be_parted():
    rng = np.random.default_rng(0)
    numbers = rng.random(400) < 0.6
    rows = np.c_[np.ones(400), rng.normal(0, 1, 400) + 3 * numbers, rng.normal(0, 1, 400)]
    theta = row_trust.fit(rows, numbers)
    assert ((rows @ theta > 0) == numbers).mean() > 0.9
    assert theta[1] > 10 * abs(theta[2])
    again = row_trust.fit(rows * [1, 100, 1], numbers)  # another unit, the same answer
    assert np.allclose(again * [1, 100, 1], theta, atol=0.05)
