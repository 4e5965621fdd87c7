"""Which pieces of ink are one number, and which are drawings beside it."""

from __future__ import annotations

import numpy as np

from netsuke.reader import lines


def digits(x: int, y: int, count: int, height: int = 30) -> list[list[int]]:
    return [[x + 26 * i, y, 20, height, 9 * height] for i in range(count)]


RING = [100, 60, 160, 160, 1800]  # a stamp: large both ways, and hollow


def found(*pieces: list[int]) -> list[list[int]]:
    return [sorted(number.members.tolist()) for number in lines.numbers(np.array(pieces))]


def test_digits_in_and_beside_a_stamp_are_numbers_of_their_own():
    inside, beside = digits(140, 120, 3), digits(20, 180, 2)
    pieces = [*inside, *beside, RING]
    assert found(*pieces) == [[0, 1, 2], [3, 4]]


def test_large_thin_digits_among_small_print_are_no_stamps():
    words = [[20 + 9 * i, 10, 7, 8, 20] for i in range(12)]
    large = [[60, 60, 40, 60, 400], [130, 62, 42, 58, 380]]  # thin strokes: as hollow as a ring
    assert [12, 13] in found(*words, *large)


def test_small_pieces_beside_a_number_are_its_own():
    pieces = [*digits(20, 20, 3), [102, 46, 5, 5, 20]]
    assert found(*pieces) == [[0, 1, 2, 3]]


def test_a_word_space_parts_numbers_and_even_spacing_does_not():
    near, far = digits(20, 20, 4), digits(140, 20, 4)  # gaps of 6 pixels, and one of 22: less than a height
    assert found(*near, *far) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    spaced = [[20 + 42 * i, 20, 20, 30, 270] for i in range(6)]
    assert found(*spaced) == [[0, 1, 2, 3, 4, 5]]


def test_texture_is_no_number_and_its_pairs_fit_into_memory(monkeypatch):
    asked = []
    within = lines._within
    monkeypatch.setattr(lines, "_within", lambda stats: asked.append(len(stats)) or within(stats))
    rng = np.random.default_rng(0)
    grain = [[int(x), int(y), 6, 9, 30] for x, y in rng.integers(0, 400, (5000, 2))]
    assert all(len(members) <= lines.LONG for members in found(*grain))
    assert asked == [lines.PIECES]
