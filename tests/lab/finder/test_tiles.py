"""What a finder learns from: which cells are whose digit, and that a tile's boxes stay with its ink."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.lab.finder.tiles import ANY, NONE, Sheets, Tiles, targets, window
from netsuke.reader.finder import STRIDE, TILE, UNIT


@given(
    st.integers(0, 9), st.floats(10, 100), st.floats(10, 100), st.floats(3, 25), st.floats(12.5, 33.5)
)  # fmt: skip
def test_the_middle_of_a_digit_is_its_own_and_knows_its_box(label, x, y, w, h):
    cells, reach = targets(np.array([[label, x, y, w, h]]))
    own = np.argwhere(cells == label)
    assert len(own)
    for row, column in own:
        left, top, right, foot = reach[:, row, column] * UNIT
        at = column * STRIDE + 0.5, row * STRIDE + 0.5
        assert np.allclose(
            [at[0] - left, at[1] - top, at[0] + right, at[1] + foot], [x, y, x + w, y + h], atol=1e-3
        )
    assert np.isnan(reach[:, cells != label]).all()
    far = np.abs(np.arange(TILE // STRIDE) * STRIDE + 0.5 - (x + w / 2)) > max(w / 2, 3.5)
    assert (cells[:, far] == NONE).all()


def test_digits_of_other_sizes_are_not_asked_about():
    cells, reach = targets(np.array([[3, 40, 20, 40, 80.0]]))
    assert set(np.unique(cells)) == {ANY, NONE}
    assert np.isnan(reach).all()


def test_between_two_digits_is_none():
    cells, _ = targets(np.array([[1, 40, 40, 16, 22.0], [2, 56, 40, 16, 22.0]]))
    assert cells[12, 14] == NONE  # pixel 56.5, where they touch
    assert {1, 2} <= set(cells[12])


@settings(max_examples=50)
@given(st.integers(-40, 60), st.integers(-40, 60), st.integers(1, 50), st.integers(1, 50))
def test_a_window_is_the_ink_or_nothing(left, top, w, h):
    ink = np.random.default_rng(0).integers(1, 256, (30, 40), np.uint8)
    wide = np.zeros((200, 200), np.uint8)
    wide[80:110, 80:120] = ink
    assert (window(ink, left, top, w, h) == wide[80 + top : 80 + top + h, 80 + left : 80 + left + w]).all()


def test_boxes_stay_with_their_ink():
    ink = np.zeros((300, 400), np.uint8)
    boxes = np.array([[7, 50, 60, 30, 44], [1, 200, 150, 24, 40]], np.float32)
    for _, x, y, w, h in boxes.astype(int):
        ink[y : y + h, x : x + w] = 255
    sheets = Sheets([cv2.imencode(".png", ink)[1].tobytes()], [boxes])
    tiles, cells, _ = Tiles(sheets, seed=1).draw(60)
    assert tiles.shape == (60, 1, TILE, TILE)
    seen = (cells >= 0) & (cells < NONE)
    assert seen.any()
    for tile, own in zip(tiles[:, 0], seen, strict=True):
        rows, columns = np.nonzero(own)
        assert (tile[rows * STRIDE, columns * STRIDE] > 0).all()
