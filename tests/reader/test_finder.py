"""The finder: what it says does not hang on where a tile begins, and it takes no other network for one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError
from netsuke.measure.reading import iou
from netsuke.reader.finder import Finder


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder(Artifact.load(zoo.path("finder")), backend="packaged")


def ink(text: str, at: tuple[int, int], size: float, shape: tuple[int, int] = (300, 400)) -> np.ndarray:
    """Printed text as a page's ink; a digit of size 1 is 21 pixels high."""
    page = np.zeros(shape, np.uint8)
    cv2.putText(page, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, max(1, round(2 * size)), cv2.LINE_AA)
    return page


def box(page: np.ndarray) -> np.ndarray:
    return np.array([cv2.boundingRect(page)], float)


ROW = np.zeros(1, int)


@pytest.mark.parametrize("at", [(40, 60), (93, 99), (95, 150), (190, 110), (300, 250)])
@pytest.mark.parametrize("size", [0.7, 1.0, 2.5])
def test_a_digit_is_seen_wherever_it_stands_and_however_large(finder, at, size):
    page = ink("3", at, size)
    (told,), (theirs,) = finder.look(page, box(page), box(page)[:, 3], ROW)
    assert told.shape == (12,)
    assert np.exp(told[:11]).sum() == pytest.approx(1)
    assert told[:10].argmax() == 3
    assert told[3] > told[10]  # likelier that than none
    assert told[11] < 0.5  # and its box is about right
    assert iou([theirs], box(page))[0, 0] == pytest.approx(1 - told[11], abs=1e-6)


def test_paper_and_gaps_are_no_digits(finder):
    page = ink("3", (100, 100), 1.0)
    places = np.array([[200, 200, 14, 21], [0, 0, 14, 21], [140, 79, 14, 21]], float)
    told, _ = finder.look(page, places, np.full(3, 21.0), np.arange(3))
    assert (np.exp(told[:, 10]) > 0.9).all()


@pytest.mark.parametrize("wrong", [0.5, 0.7, 1.4, 1.6])
def test_a_wrong_height_does_not_hide_a_digit(finder, wrong):
    page = ink("58", (100, 120), 1.6)
    left = np.array([[*cv2.boundingRect(page)]], float) * [1, 1, 0.5, 1]
    (told,), _ = finder.look(page, left, left[:, 3] * wrong, ROW)  # as where a bracket stands beside
    assert told[:11].argmax() == 5
    assert told[5] > np.log(0.9)


def test_what_it_takes_for_a_digit_lies_in_the_page(finder):
    page = ink("8", (2, 20), 1.0)[:24, :22]
    places = np.array([[0, 0, 22, 24], [15, 15, 7, 9]], float)
    _, theirs = finder.look(page, places, np.full(2, 21.0), np.zeros(2, int))
    assert (theirs >= 0).all()
    assert (theirs[:, :2] + theirs[:, 2:] <= [22, 24]).all()


def test_another_network_is_no_finder():
    with pytest.raises(ArtifactError, match="does not say what it finds"):
        Finder(Artifact.load(zoo.path("digit-micro")))
    odd = Artifact.load(zoo.path("finder")).with_manifest(finds=["1", "2"])
    with pytest.raises(ArtifactError, match=r"a finder maps \[1, S, S\] to \[6, S/4, S/4\]"):
        Finder(odd)
