"""Crops fitted together are what each is alone."""

import numpy as np
import pytest

from netsuke import image
from netsuke.image.fitting import LARGE


def crops():
    rng = np.random.default_rng(0)
    sides = [
        *rng.integers(1, LARGE + 12, (150, 2)),
        *((h, w) for h in (19, 20, 21) for w in (5, 20, 21)),
        (1, 1),
    ]
    return [
        (rng.integers(0, 256, side) * (rng.random(side) < rng.random())).astype(np.uint8) for side in sides
    ]


@pytest.mark.parametrize(("size", "box"), [(28, 20), (16, 12), (28, 28)])
@pytest.mark.parametrize("centring", ["mass", "box"])
def test_together_as_alone(size, box, centring):
    given = crops()
    alone = np.stack([image.fit(ink, size=size, box=box, centring=centring) for ink in given])
    np.testing.assert_array_equal(image.fits(given, size=size, box=box, centring=centring), alone)
