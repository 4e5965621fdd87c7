"""Rings drawn around numbers and stamped over them: taken out, and nothing else."""

from __future__ import annotations

from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.handwriting import needed
from netsuke.image import page_ink
from netsuke.image.rings import without_rings

FONT = cv2.FONT_HERSHEY_SIMPLEX
AT = (330, 150)  # x, y: the middle of the ring


def page(text: str = "47", scale: float = 1.6, thick: int = 3, *, others: int = 6) -> np.ndarray:
    """Ink of three lines of numbers, and of one in their middle."""
    ink = np.zeros((320, 660), np.uint8)
    for left, foot in [(20, 50), (480, 50), (20, 165), (480, 165), (20, 300), (480, 300)][:others]:
        cv2.putText(ink, "2583", (left, foot), FONT, 1.6, 255, 3)
    (wide, high), _ = cv2.getTextSize(text, FONT, scale, thick)
    cv2.putText(ink, text, (AT[0] - wide // 2, AT[1] + high // 2), FONT, scale, 255, thick)
    return ink


def ring(
    axes: tuple[float, float], *, thick: int = 3, degrees: float = 0.0, wobble: float = 0.0, lobes: int = 2,
    gap: float = 0.0, at: tuple[float, float] = AT,
) -> np.ndarray:  # fmt: skip
    """Ink of a ring with half axes in pixels, drawn by hand as far as it wobbles and has a gap, a share of it."""
    t = np.linspace(0.5, 0.5 + 2 * np.pi * (1 - gap), 200)
    radius = 1 + wobble * np.sin(lobes * t + 1)
    x, y = axes[0] * radius * np.cos(t), axes[1] * radius * np.sin(t)
    turn = np.deg2rad(degrees)
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1) + at
    ink = np.zeros((320, 660), np.uint8)
    cv2.polylines(ink, [np.round(points * 16).astype(np.int32)], gap == 0, 255, thick, cv2.LINE_AA, 4)
    return ink


def parted(own: np.ndarray, ring: np.ndarray) -> tuple[np.ndarray, float]:
    """The ink without the ring, bool [H, W], and how much of the ring is left where it covers no other ink."""
    left = without_rings(np.maximum(own, ring)) > 128
    alone = (ring > 128) & ~(cv2.dilate(own, np.ones((5, 5), np.uint8)) > 0)
    return left, float(left[alone].mean())


def is_kept(own: np.ndarray, left: np.ndarray, share: float = 0.97) -> bool:
    """Whether ink is left, and nothing of it in parts."""
    parts = [
        cv2.connectedComponentsWithStats(ink.view(np.uint8), connectivity=8)[2] for ink in (own > 128, left)
    ]
    large = [int((stats[1:, 4] > 20).sum()) for stats in parts]
    return left[own > 128].mean() > share and large[0] == large[1]


@pytest.mark.parametrize(
    "drawn",
    [
        ring((60, 45)),
        ring((60, 45), thick=6),
        ring((42, 26)),  # crosses both digits
        ring((38, 32), at=(AT[0] + 12, AT[1])),  # crosses one
        ring((33, 30), at=(AT[0], AT[1] - 5), thick=2),
        ring((75, 38), degrees=15),
        ring((62, 46), wobble=0.04),
        ring((62, 46), gap=0.1),
        np.maximum(ring((85, 85)), ring((62, 62))),
    ],
)
def test_a_ring_around_a_number_goes_and_the_number_stays(drawn):
    own = page()
    left, rest = parted(own, drawn)
    assert is_kept(own, left)
    assert rest < 0.05


def test_a_ring_that_lines_were_cut_out_of_goes():
    own, drawn = page(), ring((60, 45))
    drawn[188:192] = 0
    left, rest = parted(own, drawn)
    assert is_kept(own, left)
    assert rest < 0.05


@pytest.mark.parametrize(
    "drawn",
    [
        ring((60, 60), at=(200, 230)),  # touches the numbers to its left
        np.maximum(ring((60, 60), at=(200, 200)), ring((44, 44), at=(200, 200))),
        ring((90, 90), at=(90, 250)),  # cut by the edge
    ],
)
def test_a_stamp_goes_that_touches_a_number(drawn):
    own = cv2.line(page(), (30, 150), (175, 150), 255, 3)  # its digits are one piece, longer than the stamp
    left, rest = parted(own, drawn)
    assert is_kept(own, left, 0.94)
    assert rest < 0.05


@pytest.mark.parametrize(
    "ink",
    [
        page("0"),
        page("0", 3.2),  # a headline's
        cv2.line(page("00", 4.4, 5), (300, 160), (350, 160), 255, 5),  # which touch
        page("8", 2.4),
        page("60", 2.4, 9),
        np.maximum(page(""), ring((26, 30))),  # around nothing
        np.maximum(page("/"), ring((18, 23))),  # a 0 with a stroke through it,
        cv2.line(
            np.maximum(page(""), ring((22, 29), thick=5)), (340, 124), (320, 176), 255, 5
        ),  # and a larger one
        np.maximum(
            page("7", others=0), cv2.line(ring((17, 17), at=(380, AT[1])), (380, 138), (380, 162), 255, 3)
        ),
        np.maximum(page("l", 0.5), ring((60, 45))),  # around a crumb
        np.maximum(page(), ring((62, 46), gap=0.3)),  # a bracket
        np.maximum(page(), ring((62, 46), wobble=0.1, lobes=9)),  # a cloud
        cv2.rectangle(page(), (280, 105), (380, 195), 255, 3),
        cv2.rectangle(page(), (300, 140), (300, 200), 255, 3),
    ],
)
def test_all_else_stays(ink):
    np.testing.assert_array_equal(without_rings(ink), ink)


def test_touching_digits_are_no_rings():
    needed()
    from netsuke.lab import scenes

    rng = np.random.default_rng(3)
    with mock.patch("netsuke.image.page.without_rings", side_effect=without_rings) as asked:
        for _ in range(150):
            page_ink(scenes.string(rng, spacing="touching", split="val").image)
    inks = [call.args[0] for call in asked.call_args_list]
    assert len(inks) == 150
    assert all(without_rings(ink) is ink for ink in inks)


def test_a_sole_number_loses_its_ring():
    own = page("7", others=0)
    left, rest = parted(own, ring((30, 36), at=(AT[0] + 4, AT[1] - 5)))
    assert is_kept(own, left)
    assert rest < 0.05


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60))
def test_ink_only_goes(seed, high, wide):
    rng = np.random.default_rng(seed)
    ink = cv2.resize(rng.integers(0, 256, (high, wide), np.uint8), None, fx=7, fy=7)
    ink[ink < rng.integers(60, 255)] = 0
    left = without_rings(ink)
    assert ((left == ink) | (left == 0)).all()
