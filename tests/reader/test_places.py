"""Where signs stand: boxes between their own ink and what the finder sees, and masks within them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.reader import places, segments
from netsuke.reader.lattice import Edge
from netsuke.reader.sight import Seen

OWN = (10, 20, 20, 30)


def placed(theirs, misfit: float, *, symbol: str = "7", found: float = -0.1):
    """A lone digit whose ink fills OWN, where the finder sees a box with that misfit."""
    row = segments.Row([segments.Atom(OWN, 600.0, 0)], 1, 30.0, OWN, [(0, 1)])
    looked = np.full((1, 12), found)
    looked[0, -1] = misfit
    ink = np.full((30, 20), 255, np.uint8)
    seen = Seen(looked, np.array([theirs], float), np.zeros((1, 14)))
    return places.places(row, [Edge(0, 1, symbol, 0.0, 0)], [(ink, ink > 0)], seen)[0]


@pytest.mark.parametrize(("symbol", "misfit"), [("7", 0.09), ("-", 0.9)])
def test_a_digit_that_both_see_alike_keeps_the_box_of_its_ink(symbol, misfit):
    box, mask = placed((0, 0, 40, 60), misfit, symbol=symbol)
    assert box == OWN
    assert mask.all()


def test_without_a_finder_ink_alone_tells():
    row = segments.Row([segments.Atom(OWN, 600.0, 0)], 1, 30.0, OWN, [(0, 1)])
    ink = np.full((30, 20), 255, np.uint8)
    ink[:, :4] = 60  # a blurred edge
    ((box, mask),) = places.places(row, [Edge(0, 1, "7", 0.0, 0)], [(ink, ink > 0)], None)
    assert box == (14, 20, 16, 30)
    assert mask.shape == (30, 16)


def test_a_torn_digit_gets_what_lines_took_from_it():
    (x, y, w, h), mask = placed((10, 5, 20, 45), 0.33)  # its head
    assert (x, w) == (10, 20)
    assert y < 12
    assert y + h == 50
    assert mask.sum() == 600


@given(st.lists(st.integers(0, 60), min_size=4, max_size=4), st.floats(0, 1), st.sampled_from("0123456789"))
def test_each_side_lies_between_both(theirs, misfit, symbol):
    x, y, w, h = theirs
    (left, top, wide, high), mask = placed((x, y, w, h), misfit, symbol=symbol)
    assert mask.shape == (high, wide)
    assert mask.any()
    for got, own, other in ((left, 10, x), (top, 20, y), (left + wide, 30, x + w), (top + high, 50, y + h)):
        assert min(own, other) - 1 <= got <= max(own, other) + 1
