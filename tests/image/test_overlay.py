"""Masks as run lengths, and what is drawn over an image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from netsuke.errors import DataError
from netsuke.image.masks import compress, expand
from netsuke.image.overlay import COLOURS, NUMBER, overlay


@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12)))
def test_masks_come_back(mask):
    coded = compress(mask)
    np.testing.assert_array_equal(expand(coded), mask)
    assert sum(coded["counts"]) == mask.size
    assert all(run > 0 for run in coded["counts"][1:])


def test_the_runs_are_cocos():
    mask = np.array([[0, 1], [1, 1], [0, 0]], bool)  # columns 0 1 0, 1 1 0
    assert compress(mask) == {"size": [3, 2], "counts": [1, 1, 1, 2, 1]}
    assert compress(np.ones((2, 1), bool))["counts"] == [0, 2]


@pytest.mark.parametrize(
    "coded",
    [
        {"size": [2, 2], "counts": [3]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [1 << 20, 1 << 20], "counts": [1 << 40]},
        {"size": [-1, -4], "counts": [4]},
    ],
)
def test_runs_that_do_not_fill_a_mask_are_refused(coded):
    with pytest.raises(DataError, match="runs that add up"):
        expand(coded)


def digit(box, state="digit", **more):
    return {"digit": "4", "confidence": 0.9, "box": box, "state": state, **more}


def number(*digits, text="44"):
    return {
        "text": text,
        "confidence": 0.8,
        "box": [90, 90, 120, 60],
        "digits": list(digits),
        "state": "digit",
    }


def there(picture, colour):
    return (picture == np.array(colour)).all(-1)


@pytest.mark.parametrize("state", COLOURS)
def test_boxes_have_the_colour_of_their_state(state):
    picture = overlay(np.full((400, 700), 255, np.uint8), [number(digit([100, 100, 40, 50], state))])
    drawn = there(picture, COLOURS[state])
    assert drawn[100, 100:140].all()
    assert drawn[100:150, 139].all()
    assert drawn[60:98].any()  # its class, above
    assert not there(picture, NUMBER).any()  # one digit needs no second box


def test_a_number_has_a_box_of_its_own_and_small_images_are_enlarged():
    page = np.full((50, 80, 3), 255, np.uint8)
    found = {**number(digit([10, 20, 8, 15]), digit([20, 20, 8, 15])), "box": [10, 20, 18, 15]}
    picture = overlay(page, [found])
    assert picture.shape == (400, 640, 3)
    assert there(picture, NUMBER).any()
    assert (page == 255).all()  # the input is untouched


def test_masks_are_tinted_and_alternatives_written():
    page = np.zeros((300, 700), np.uint8)
    mask = compress(np.pad(np.ones((10, 10), bool), 5))
    plain = overlay(page, [number(digit([200, 100, 20, 20]))])
    tinted = overlay(page, [number(digit([200, 100, 20, 20], mask=mask))])
    assert (tinted[107:113, 207:213] != plain[107:113, 207:213]).any()
    others = {**number(digit([200, 100, 20, 20])), "alternatives": [{"text": "49", "probability": 0.1}]}
    np.testing.assert_array_equal(overlay(page, [others]), plain)
    assert (overlay(page, [others], alternatives=True) != plain).any()


@given(
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=40),
    st.lists(st.tuples(*[st.integers(-50, 90)] * 2, *[st.integers(1, 90)] * 2), max_size=4),
)
def test_no_box_is_too_odd_to_draw(shape, boxes):
    results = [{**number(digit(list(box)), text="é"), "box": list(box)} for box in boxes]
    picture = overlay(np.zeros(shape, np.uint8), results, alternatives=True)
    assert picture.dtype == np.uint8
    assert max(picture.shape) > 320
