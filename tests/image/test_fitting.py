"""Crops fitted together are what each is alone."""

import cv2
import numpy as np
import pytest

from netsuke import image
from netsuke.image.fitting import LARGE, turned


def crops():
    rng = np.random.default_rng(0)
    sides = [
        *rng.integers(1, LARGE + 12, (150, 2)),
        *((h, w) for h in (19, 20, 21) for w in (5, 20, 21)),
        (1, 1),
    ]
    some = [
        (rng.integers(0, 256, side) * (rng.random(side) < rng.random())).astype(np.uint8) for side in sides
    ]
    return [*some, np.full((LARGE - 1, LARGE - 1), 255, np.uint8)]


@pytest.mark.parametrize(("size", "box"), [(28, 20), (16, 12), (28, 28)])
@pytest.mark.parametrize("centring", ["mass", "box"])
def test_together_as_alone(size, box, centring):
    given = crops()
    alone = np.stack([image.fit(ink, size=size, box=box, centring=centring) for ink in given])
    np.testing.assert_array_equal(image.fits(given, size=size, box=box, centring=centring), alone)


def test_turned_ink_is_cut_to_its_size_and_turns_back():
    ink = cv2.putText(np.zeros((60, 40), np.uint8), "4", (6, 48), cv2.FONT_HERSHEY_SIMPLEX, 1.4, 255, 4)
    x, y, w, h = cv2.boundingRect(ink)
    ink = ink[y : y + h, x : x + w]
    there = turned(ink, 20.0)
    assert there[0].any()
    assert there[:, 0].any()
    assert there[-1].any()
    assert there[:, -1].any()
    back = turned(there, -20.0)
    again = cv2.resize(back, (w, h)).astype(float)
    assert np.corrcoef(again.ravel(), ink.ravel())[0, 1] > 0.9
    assert turned(np.full((1, 1), 10, np.uint8), 5.0).shape == (1, 1)
