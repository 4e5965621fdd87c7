"""The scanner: what it says of candidates is what its frames say, wherever a row stands and however long it is."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError
from netsuke.reader import Reader, seams, segments
from netsuke.reader import scanner as scanning
from netsuke.reader.scanner import (
    AROUND,
    MARGIN,
    SIGNS,
    STRIDE,
    TALL,
    WIDE,
    Scanner,
    bounds,
    once,
)

NONE = len(SIGNS)


@pytest.fixture(scope="module")
def scanner() -> Scanner:
    return Scanner(Artifact.load(zoo.path("scanner")), backend="packaged")


def page(text: str, size: float, at: tuple[int, int] = (30, 120), width: int = 1200) -> np.ndarray:
    """Printed text as a page's ink; a digit of size 1 is 21 pixels high."""
    ink = np.zeros((240, width), np.uint8)
    cv2.putText(ink, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, max(1, round(2 * size)), cv2.LINE_AA)
    return ink


def along(scanner: Scanner, ink: np.ndarray) -> str:
    """What the scanner tells along the only row, each run of frames once."""
    x, y, w, h = cv2.boundingRect(ink)
    (scan,) = scanner.scan([ink[y : y + h, x : x + w]], [h])
    best = scan.frames.argmax(1)
    return "".join(SIGNS[k] for i, k in enumerate(best) if k != NONE and (i == 0 or best[i - 1] != k))


@pytest.mark.parametrize("text", ["3", "2580", "90210", "314159265358"])
@pytest.mark.parametrize("size", [0.6, 1.0, 2.0, 3.0, 4.0])
def test_printed_digits_are_read_at_any_size_and_length(scanner, text, size):
    assert along(scanner, page(text, size)) == text


def test_what_a_row_says_does_not_hang_on_where_its_tiles_begin(scanner):
    for size in (0.9, 1.2):
        found = {along(scanner, page("86420" * 3, size, (x, 100))) for x in range(20, 40, 3)}
        assert len(found) == 1
        (number,) = Reader().read_all(page("86420" * 3, size, (20, 100)))
        assert number.text == "86420" * 3  # in the smaller, thin print the scanner alone loses an 8
    assert found == {"86420" * 3}


def test_candidates_are_told_what_they_are(scanner):
    (row,), _ = segments.rows(page("90210", 1.2), scans=scanner.scan)
    assert row.told is not None
    assert row.told.shape == (len(row.spans), NONE + 1)
    sure = {SIGNS[int(told.argmax())] for told in row.told if told[:NONE].max() > np.log(0.8)}
    assert sure == set("9021")


def test_words_and_blots_say_nothing(scanner):
    (row,), _ = segments.rows(page("BAHN", 1.2), scans=scanner.scan)
    assert row.told is not None
    assert np.median(row.told[:, :10].max(1)) < np.log(0.5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 2), st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_once_is_the_sum_over_all_ways_to_tell_a_sign_once(seed, length, before, behind):
    frames = np.random.default_rng(seed).normal(0, 2, (before + length + behind, NONE + 1))
    frames -= np.log(np.exp(frames).sum(1, keepdims=True))
    (found,) = once(frames, np.array([before]), np.array([before + length]))
    for sign in (0, NONE - 1):
        total = 0.0
        for way in product((sign, NONE), repeat=length):
            runs = sum(k == sign and (i == 0 or way[i - 1] != sign) for i, k in enumerate(way))
            if runs == 1:
                total += np.exp(sum(frames[before + i, k] for i, k in enumerate(way)))
        assert found[sign] == pytest.approx(np.log(total))


def test_no_frames_tell_nothing():
    frames = np.full((4, NONE + 1), -np.log(NONE + 1))
    assert (once(frames, np.array([2]), np.array([2])) == -np.inf).all()


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), min_size=1, max_size=12),
    st.floats(0.1, 4),
    st.lists(st.floats(0, 200), max_size=12),
)
@settings(max_examples=50, deadline=None)
def test_every_frame_is_of_one_atom(places, factor, peaks):
    places.sort(key=lambda place: place[0] + place[1] / 2)  # as rows have them: by their middles
    found = bounds(np.array(places, float) * factor, 200, np.sort(peaks))
    assert found[0] == (MARGIN - AROUND) // STRIDE
    assert found[-1] == 200 - found[0]
    assert len(found) == len(places) + 1
    assert (np.diff(found) >= 0).all()


def test_a_bound_lies_between_two_signs_that_are_told_near_it():
    places = np.array([[0, 30], [20, 30]], float)  # leaning over each other: their boxes' middle is pixel 25
    middle = round((25 + MARGIN - 0.5) / STRIDE)
    assert bounds(places, 64, np.array([]))[1] == middle
    assert bounds(places, 64, np.array([middle - 4.0, middle - 2.0]))[1] == middle - 3
    assert bounds(places, 64, np.array([middle + 8.0, middle + 20.0]))[1] == middle  # too far to be its


@pytest.mark.parametrize("width", [1, 95, 96, 97, 500])
def test_tiles_cover_a_strip_once(width):
    one = np.random.default_rng(width).integers(1, 255, (TALL, width), dtype=np.uint8)
    cut = scanning.tiles(one)
    assert cut.shape[1:] == (1, TALL, WIDE)
    seen = np.repeat(
        cut[:, :1, 0, ::STRIDE].astype(float), NONE, 1
    )  # a map that tells the pixel of its frame
    frames = scanning.framed(seen)
    assert len(frames) == (len(cut) * (WIDE - 2 * MARGIN) + 2 * MARGIN) // STRIDE
    shares = frames[MARGIN // STRIDE :, 0] - frames[MARGIN // STRIDE :, -1]  # a logit beside the constant 0
    assert np.allclose(shares[: -(-width // STRIDE)], one[0, ::STRIDE])


@pytest.mark.parametrize(("tall", "height"), [(20, 20), (60, 20), (400, 20), (3, 1), (500, 400)])
def test_strips_keep_their_height(tall, height):
    factor = scanning.scale(tall, height)
    assert 0 < factor <= 4
    assert scanning.strip(np.full((tall, 30), 9, np.uint8), factor, factor).shape[0] == TALL


def test_another_network_is_no_scanner():
    with pytest.raises(ArtifactError, match="does not say that it scans"):
        Scanner(Artifact.load(zoo.path("finder")))
    odd = Artifact.load(zoo.path("finder")).with_manifest(scans=list(SIGNS))
    with pytest.raises(ArtifactError, match=r"a scanner maps .* this maps \[1, 128, 128\]"):
        Scanner(odd)


def silence(inks: list[np.ndarray], heights: list[float]) -> list[scanning.Scan]:
    """A scanner that tells of no sign."""
    frames = np.full((40, NONE + 1), np.log(1e-4))
    frames[:, -1] = np.log1p(-NONE * 1e-4)
    return [scanning.Scan(frames, 1.0) for _ in inks]


def test_rows_that_say_nothing_are_left_out_but_lone_strokes_are_not():
    assert len(segments.rows(page("2580", 1.5))[0]) == 1
    assert not segments.rows(page("2580", 1.5), scans=silence)[0]
    bar = np.zeros((90, 60), np.uint8)
    bar[20:70, 28:33] = 255
    (row,), _ = segments.rows(bar, scans=silence)
    assert row.told is not None
    assert row.told[0, 1] > row.told[0, -1] == np.delete(row.told[0], 1).max()  # rather a 1 than none
    blot = np.zeros((90, 60), np.uint8)
    blot[20:70, 10:50] = 255
    (row,), _ = segments.rows(blot, scans=silence)
    assert row.told is not None
    assert row.told[0].argmax() == NONE


def test_a_piece_is_cut_between_two_signs_that_are_told_of():
    block = np.zeros((30, 44), np.uint8)
    block[np.arange(30) % 4 < 2] = 255  # eight thin strokes: no path through them is cheap
    assert not seams.cuts(block, 30.0, 4)
    (cut,) = seams.cuts(block, 30.0, 4, (10.0, 33.0))
    assert (cut.columns >= 10).all()
    assert (cut.columns <= 33).all()
    assert len(seams.cuts(block, 30.0, 4, (8.0, 22.0, 36.0))) == 2
    assert not seams.cuts(block, 30.0, 4, (20.0,))
    (cut,) = seams.cuts(block, 30.0, 4, (0.0, 40.0))
    assert (cut.columns > 8).all()  # what lies beside a mark is its own
    assert (cut.columns < 32).all()


def test_a_piece_that_looks_like_one_digit_is_cut_where_two_are_told_of():
    known = lambda crops: np.ones(len(crops), bool)  # noqa: E731

    def two(inks: list[np.ndarray], heights: list[float]) -> list[scanning.Scan]:
        (scan,) = silence(inks, heights)
        for at, sign in ((10, 9), (15, 1)):
            scan.frames[at] = np.log(1e-4)
            scan.frames[at, sign] = np.log1p(-NONE * 1e-4)
        return [scan]

    block = np.zeros((60, 60), np.uint8)
    block[15:45, 20:48] = 255
    assert len(segments.rows(block, known)[0][0].atoms) == 1
    (row,), _ = segments.rows(block, known, two)
    assert row.told is not None
    assert [span for span in row.spans if span[1] == span[0] + 1] == [(0, 1), (1, 2)]
    assert [int(row.told[row.spans.index(span)].argmax()) for span in ((0, 1), (1, 2))] == [9, 1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_a_spelling_is_the_sum_of_all_frames_that_say_it(seed, length):
    rng = np.random.default_rng(seed)
    few = [1, 3, 10, NONE]  # signs that are told of; the others never
    chance = np.zeros((length, NONE + 1))
    chance[:, few] = rng.dirichlet(np.full(len(few), 0.7), length)
    said: dict[str, float] = {}
    for told in product(few, repeat=length):
        text = "".join(SIGNS[k] for i, k in enumerate(told) if k != NONE and (i == 0 or told[i - 1] != k))
        said[text] = said.get(text, 0.0) + float(np.prod(chance[np.arange(length), told]))
    with np.errstate(divide="ignore"):
        scan = scanning.Scan(np.log(chance), 1.0)
    texts = [*said, "11111", "2"]
    first, none, again = scanning.spelling([scan, scan, scan], [texts, [], texts[::-1]])
    assert np.allclose(np.exp(first[:-2]), [said[text] for text in texts[:-2]], atol=1e-12)
    assert (first[-2:] < -600).all()  # too long, and a sign that is never told of
    assert not len(none)
    assert np.array_equal(again, first[::-1])
    assert sum(said.values()) == pytest.approx(1)


def test_what_a_row_says_in_print_is_what_it_spells_best(scanner):
    ink = page("2580", 1.5)
    x, y, w, h = cv2.boundingRect(ink)
    scans = scanner.scan([ink[y : y + h, x : x + w]], [h])
    (found,) = scanning.spelling(scans, [["258", "2580", "25880", "2530", ""]])
    assert found.argmax() == 1
    assert found[1] > -0.5
    assert scanning.spelling([], []) == []


def test_what_is_not_clear_is_the_mean_of_two_looks(scanner):
    ink = page("2580", 1.5)
    x, y, w, h = cv2.boundingRect(ink)
    clear = ink[y : y + h, x : x + w]
    torn = clear * (np.random.default_rng(0).random(clear.shape) < 0.3)
    once, twice = scanner.scan([clear, torn], [h, h])
    assert once.second is None
    assert twice.second is not None
    assert [twice.factor, twice.second.factor] == pytest.approx(
        [scanning.scale(h, h) * across for across in scanning.LOOKS]
    )
    texts = ["2580", "258", "2530"]
    box = np.array([[k * w / 4, 0, w / 4, h] for k in range(4)])
    spans = [(0, 1), (1, 3), (3, 4)]
    asked = (
        lambda scans: scanning.spelling(scans, [texts] * len(scans)),
        lambda scans: scanning.told(scans, [box] * len(scans), [spans] * len(scans), [0] * len(scans)),
    )
    for ask in asked:
        first, second = ask([scanning.Scan(look.frames, look.factor) for look in (twice, twice.second)])
        found = ask([twice, once])
        assert np.allclose(np.exp(found[0]), (np.exp(first) + np.exp(second)) / 2)
        assert np.allclose(found[1], *ask([once]))
