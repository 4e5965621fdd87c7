"""Ink of pages: shadows, polarity, pens of several strengths, patterned ground, ruled lines and boxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.errors import DataError
from netsuke.image import page_digit, page_ink

SHAPE = (240, 640)


def written(ink: float = 0.7, thick: int = 4) -> np.ndarray:
    """Light left by the strokes of 2580, float [H, W]: 1 is paper."""
    canvas = np.zeros(SHAPE, np.uint8)
    cv2.putText(canvas, "2580", (120, 150), cv2.FONT_HERSHEY_SIMPLEX, 3, 255, thick, cv2.LINE_AA)
    return 1 - ink * canvas / 255


def strokes(image: np.ndarray) -> np.ndarray:
    return page_ink(image).pixels > 128


def agree(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union, a pixel's width of edge forgiven."""
    grown = [cv2.dilate(part.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0 for part in (found, truth)]
    return float((found & grown[1]).sum() + (truth & grown[0]).sum()) / max(int(found.sum() + truth.sum()), 1)


TRUTH = written() < 0.65
PAPER = np.random.default_rng(0).normal(0, 2, SHAPE)


def photo(light: np.ndarray) -> np.ndarray:
    return (light * 220 + PAPER).clip(0, 255).astype(np.uint8)


def test_plain_paper_of_either_polarity_and_colour():
    image = photo(written())
    for one in (image, 255 - image, image[..., None], np.dstack([image] * 3)):
        assert agree(strokes(one), TRUTH) > 0.97
    assert page_ink(image).scale == 1


def test_the_digit_of_a_crop_is_its_largest_piece_and_what_is_near():
    crop = np.full((120, 200), 230, np.uint8)
    cv2.rectangle(crop, (60, 30), (84, 90), 40, 6)
    cv2.line(crop, (90, 40), (96, 44), 40, 4)  # a part of it
    cv2.rectangle(crop, (170, 30), (180, 60), 40, 5)  # a neighbour
    half = cv2.resize(crop, (100, 60), interpolation=cv2.INTER_AREA)
    large = np.kron(crop, np.ones((10, 10), np.uint8))
    for by, image in ((1, crop), (0.5, half), (10, large)):
        ink = page_digit(image)
        assert ink is not None
        assert np.allclose(np.array(ink.box) / by, (57, 27, 41, 67), atol=4)
    assert page_digit(np.full((50, 40), 200, np.uint8)) is None


def test_a_shadow_is_no_ink():
    x = np.linspace(0, 1, SHAPE[1])
    for shade in (1 - 0.6 * x, np.where(x < 0.4, 0.45, 1.0), 1 - 0.5 * (2 * x - 1) ** 2):
        assert agree(strokes(photo(written() * shade)), TRUTH) > 0.93


@pytest.mark.parametrize("rim", [3, 20, 80])
def test_a_desk_around_the_paper_is_no_ink_and_hides_none(rim):
    page = cv2.copyMakeBorder(photo(written()), rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=55)
    found = strokes(page)[rim:-rim, rim:-rim]
    assert agree(found[40:-40, 60:-60], TRUTH[40:-40, 60:-60]) > 0.9


@pytest.mark.parametrize("desk", [40, 110])
def test_digits_beside_a_desk_are_as_whole_as_others(desk):
    part = np.s_[84:, 115:]  # the desk begins beside the digits
    image = cv2.copyMakeBorder(photo(written(0.5))[part], 30, 30, 30, 30, cv2.BORDER_CONSTANT, value=desk)
    found = strokes(image)[34:-34, 34:-34]
    assert agree(found, (written(0.5) < 0.75)[part][4:-4, 4:-4]) > 0.9


@pytest.mark.parametrize("desk", [30, 110, 170])
@pytest.mark.parametrize("margin", [30, 200, 600])
@pytest.mark.parametrize("degrees", [0, 9])
def test_a_sheet_that_lies_on_a_desk_is_read_whole(desk, margin, degrees):
    sheet = photo(written(0.6))
    turn = cv2.getRotationMatrix2D((320, 120), degrees, 1)
    turn[:, 2] += margin
    size = (640 + 2 * margin, 240 + 2 * margin)
    image = cv2.warpAffine(sheet, turn, size, borderValue=desk)
    truth = cv2.warpAffine((255 * TRUTH).astype(np.uint8), turn, size) > 128
    page = page_ink(image)
    found = cv2.resize(page.pixels, size, interpolation=cv2.INTER_LINEAR) > 128
    near = cv2.dilate(truth.astype(np.uint8), np.ones((31, 31), np.uint8)) > 0
    assert agree(found & near, truth) > 0.85


def test_digits_that_leave_little_paper_in_an_image():
    canvas = np.zeros((80, 120), np.uint8)
    cv2.ellipse(canvas, (30, 40), (14, 24), 0, 0, 360, 255, 15, cv2.LINE_AA)
    cv2.ellipse(canvas, (86, 40), (17, 24), 0, 0, 360, 255, 17, cv2.LINE_AA)
    image = (240 - 0.85 * canvas).astype(np.uint8)
    assert agree(strokes(image), canvas > 128) > 0.9


@pytest.mark.parametrize("thick", [14, 22, 28])
def test_bold_digits_in_a_small_image_are_ink_and_not_what_they_hold(thick):
    canvas = np.zeros((192, 216), np.uint8)
    cv2.putText(canvas, "802", (30, 140), cv2.FONT_HERSHEY_SIMPLEX, 3, 255, thick, cv2.LINE_AA)
    image = (225 - 0.75 * canvas).astype(np.uint8)
    for one in (image, 255 - image):
        assert agree(strokes(one), canvas > 128) > 0.9


@pytest.mark.parametrize("ink", [0.12, 0.25, 0.9])
def test_faint_and_strong_pens(ink):
    assert agree(strokes(photo(written(ink))), TRUTH) > 0.9


def squared(light: np.ndarray) -> np.ndarray:
    """The strokes of 2580 on squared paper under that light, with noise."""
    paper = written(0.3, thick=3)
    paper[::24] = np.minimum(paper[::24], 0.7)
    paper[:, ::24] = np.minimum(paper[:, ::24], 0.7)
    return photo(cv2.GaussianBlur(paper * light, (0, 0), 1.0))


def test_a_sheet_that_is_half_in_a_shadow_has_dark_strokes():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    lit = 0.5 + 0.5 / (1 + np.exp((y + 120 - 0.3 * x) / 6))
    image = cv2.copyMakeBorder(squared(lit), 12, 26, 50, 8, cv2.BORDER_CONSTANT, value=50)
    found = strokes(image)[12:-26, 50:-8]
    assert agree(found[20:-20, 20:-20], TRUTH[20:-20, 20:-20]) > 0.8


def test_pencil_beside_print_on_a_desk():
    """Neither the desk nor the sheet's rim say how dark ink is, or how large signs are."""
    print_ = np.zeros(SHAPE, np.uint8)
    for k in range(6):
        cv2.putText(print_, "4", (20 + 100 * k, 230), cv2.FONT_HERSHEY_SIMPLEX, 1.6, 255, 6, cv2.LINE_AA)
    light = np.minimum(written(0.14), 1 - 0.95 * print_ / 255)
    image = cv2.copyMakeBorder(photo(light), 40, 40, 60, 60, cv2.BORDER_CONSTANT, value=30)
    found = strokes(image)[40:-40, 60:-60]
    assert agree(found[60:170, 20:-20], TRUTH[60:170, 20:-20]) > 0.7


def test_pencil_beside_print():
    print_ = np.zeros(SHAPE, np.uint8)
    cv2.putText(print_, "Sum", (10, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 255, 4, cv2.LINE_AA)
    light = np.minimum(written(0.3), 1 - 0.9 * print_ / 255)
    found = strokes(photo(light))
    assert agree(found[80:], TRUTH[80:]) > 0.9
    assert found[:70, :120].any()


def test_faint_pencil_beside_bold_print_is_kept_and_remains_of_lines_are_not():
    print_ = np.zeros(SHAPE, np.uint8)
    cv2.putText(print_, "Sum", (10, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 255, 6, cv2.LINE_AA)
    light = np.minimum(written(0.18), 1 - 0.95 * print_ / 255)
    light[200:202, 30:46] = light[60:76, 600:602] = 0.82
    found = strokes(photo(light))
    assert agree(found[80:190], TRUTH[80:190]) > 0.85
    assert not found[195:, :].any()
    assert not found[50:90, 590:].any()


def test_faint_touching_digits_beside_bold_print_are_kept():
    fives, print_ = np.zeros((2, *SHAPE), np.uint8)
    for k in range(6):
        cv2.putText(fives, "5", (80 + 31 * k, 150), cv2.FONT_HERSHEY_SIMPLEX, 2, 255, 4, cv2.LINE_AA)
    cv2.putText(print_, "Sum", (10, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 255, 6, cv2.LINE_AA)
    found = strokes(photo(np.minimum(1 - 0.18 * (fives / 255), 1 - 0.95 * print_ / 255)))
    assert agree(found[80:], fives[80:] > 127) > 0.8


def test_a_printed_ground_is_no_ink():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    ground = 1 - 0.13 * (np.sin(x / 3 + 4 * np.sin(y / 30)) > 0.6)
    assert agree(strokes(photo(written() * ground)), TRUTH) > 0.9


def test_a_pattern_that_breaks_into_strokes_is_no_pencil():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    gaps = cv2.GaussianBlur(np.random.default_rng(0).normal(size=SHAPE), (0, 0), 6) < 0.01
    wave = (np.sin((x + 10 * np.sin(y / 25)) / 3.5) > 0.7) & ~gaps
    light = np.minimum(written(0.9, thick=9), 1 - 0.12 * cv2.GaussianBlur(wave.astype(float), (0, 0), 0.8))
    near = cv2.dilate((written(0.9, thick=9) < 0.6).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert not (strokes(photo(light)) & ~near).any()


def ruled(tilt: float, thick: int, gap: int) -> np.ndarray:
    light = np.ones(SHAPE)
    for y in range(22, 2 * SHAPE[0], gap):
        cv2.line(light, (0, y), (SHAPE[1], round(y - tilt * SHAPE[1])), 0.5, thick, cv2.LINE_AA)
    return light


@pytest.mark.parametrize("tilt", [0.0, 0.02, 0.06])
@pytest.mark.parametrize("thick", [1, 2, 3])
def test_ruled_lines_go_and_strokes_stay_whole(tilt, thick):
    found = strokes(photo(np.minimum(written(thick=7), ruled(tilt, thick, 52))))
    truth = written(thick=7) < 0.65
    assert agree(found, truth) > 0.93
    count, _, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    assert (stats[1:, 4] > 400).sum() == 4  # no stroke is cut
    assert count < 12


def test_thin_faint_lines_that_rise_go():
    light = np.ones((400, 600))
    for y in range(-40, 440, 24):
        cv2.line(light, (0, y + 50), (600, y), 0.76, 1, cv2.LINE_AA)
    for x in range(-40, 640, 24):
        cv2.line(light, (x, 0), (x + 33, 400), 0.76, 1, cv2.LINE_AA)
    grain = np.random.default_rng(3).normal(0, 7, light.shape)
    image = (cv2.GaussianBlur(light, (0, 0), 0.6) * 200 + grain).clip(0, 255).astype(np.uint8)
    assert strokes(image).mean() < 0.02


@pytest.mark.parametrize("degrees", [-9, -5, 8])
def test_squared_paper_that_is_turned_on_a_desk_loses_its_lines(degrees):
    sheet = np.full((500, 800), 235, np.uint8)
    for at in range(20, 800, 40):
        cv2.line(sheet, (at, 0), (at, 500), 150, 1)
        cv2.line(sheet, (0, at), (800, at), 150, 1)
    inked = np.zeros_like(sheet)
    for y in (130, 260, 390):
        cv2.putText(inked, "2580 36", (130, y), cv2.FONT_HERSHEY_SIMPLEX, 2.4, 255, 6, cv2.LINE_AA)
    sheet = (sheet * (1 - 0.45 * inked / 255)).astype(np.uint8)
    turn = cv2.getRotationMatrix2D((400, 250), degrees, 0.9)
    noise = np.random.default_rng(4).normal(0, 2, sheet.shape)
    image = (cv2.warpAffine(sheet, turn, (800, 500), borderValue=60) + noise).clip(0, 255).astype(np.uint8)
    paper = cv2.warpAffine(np.full_like(sheet, 255), turn, (800, 500)) > 0
    paper = cv2.erode(paper.astype(np.uint8), np.ones((31, 31), np.uint8)) > 0
    truth = cv2.warpAffine(inked, turn, (800, 500)) > 128
    found = strokes(image) & paper
    assert agree(found, truth) > 0.9
    assert (found & (cv2.dilate(truth.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0)).mean() < 0.005


def test_squared_paper_and_boxes_go():
    light = written(thick=7)
    for x in range(10, SHAPE[1], 60):
        cv2.line(light, (x, 0), (x, SHAPE[0]), 0.55, 1)
    for y in range(10, SHAPE[0], 60):
        cv2.line(light, (0, y), (SHAPE[1], y), 0.55, 1)
    assert agree(strokes(photo(light)), written(thick=7) < 0.65) > 0.9
    light = written(thick=7)
    cv2.rectangle(light, (100, 60), (400, 180), 0.4, 3)
    assert agree(strokes(photo(light)), written(thick=7) < 0.65) > 0.9


def puzzle(degrees: float, pencil: float) -> tuple[np.ndarray, np.ndarray]:
    """A turned grid of 9 x 9 cells whose frame, and every third line, is broad and black; with a 5 in each second cell,
    which reaches the line above it, in pencil: the image and its strokes."""
    lines, inked = np.zeros((2, 720, 720), np.uint8)
    for k in range(10):
        at, thick = 36 + 72 * k, 9 if k % 3 == 0 else 3
        cv2.line(lines, (at, 36), (at, 684), 255, thick)
        cv2.line(lines, (36, at), (684, at), 255, thick)
        for i in range(k % 2, 9, 2):
            if k < 9:
                corner = (54 + 72 * i, 36 + 4 + 72 * k + 44)
                cv2.putText(inked, "5", corner, cv2.FONT_HERSHEY_SIMPLEX, 1.9, 255, 3, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((360, 360), degrees, 0.92)
    lines, inked = (cv2.warpAffine(part, turn, (720, 720)) for part in (lines, inked))
    light = np.minimum(1 - 0.95 * (lines / 255), 1 - pencil * (inked / 255))
    grain = np.random.default_rng(6).normal(0, 2, light.shape)
    return (light * 210 + grain).clip(0, 255).astype(np.uint8), (inked > 128) & (lines < 20)


@pytest.mark.parametrize("degrees", [0.0, 1.5, -4.0])
@pytest.mark.parametrize("pencil", [0.9, 0.35])
def test_broad_black_lines_of_a_puzzle_go_and_take_no_digit_with_them(degrees, pencil):
    image, truth = puzzle(degrees, pencil)
    found = strokes(image)
    near = cv2.dilate(truth.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
    assert (found & ~near).sum() < 0.03 * truth.sum()
    assert (found & truth).sum() > 0.85 * truth.sum()


@pytest.mark.parametrize("degrees", [0.0, -4.0])
def test_walls_stand_where_upright_lines_were(degrees):
    page = page_ink(puzzle(degrees, 0.7)[0])
    begins = np.diff(page.walls[360].astype(int), prepend=0) > 0
    assert begins.sum() == 10


def test_walls_end_between_fields_below_each_other():
    image = np.full((580, 600), 230, np.uint8)
    for top in range(30, 480, 90):
        for left in range(40, 520, 80):
            cv2.rectangle(image, (left, top), (left + 80, top + 80), 60, 3)
    walls = page_ink(cv2.GaussianBlur(image, (0, 0), 0.8)).walls
    assert all(walls[70 + 90 * row].any() for row in range(5))
    assert not walls[[115 + 90 * row for row in range(4)]].any()


def test_pale_lines_are_no_walls():
    light = written(0.8, thick=7)
    for x in range(10, SHAPE[1], 60):
        cv2.line(light, (x, 0), (x, SHAPE[0]), 0.85, 1)
    page = page_ink(photo(light))
    assert agree(page.pixels > 127, written(0.8, thick=7) < 0.65) > 0.9
    assert not page.walls.any()


def test_a_frame_at_the_edge_of_an_image_goes():
    light = written()
    cv2.rectangle(light, (0, 0), (SHAPE[1] - 1, SHAPE[0] - 1), 0.1, 7)
    assert agree(strokes(photo(light)), TRUTH) > 0.93


def test_touching_bars_are_no_ruled_line():
    light = np.ones((60, 200))
    for x in range(30, 150, 30):
        cv2.ellipse(light, (x, 30), (15, 20), 0, 0, 360, 0.2, 3, cv2.LINE_AA)
    image = (light * 220).astype(np.uint8)
    assert agree(strokes(image), light < 0.6) > 0.97


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_pages_have_no_ink(level):
    assert not page_ink(np.full((90, 120), level, np.uint8)).pixels.any()
    noisy = np.random.default_rng(1).normal(level, 3, (300, 400)).clip(0, 255).astype(np.uint8)
    assert (page_ink(noisy).pixels > 0).mean() < 0.01


def test_large_pages_are_read_smaller():
    image = cv2.resize(photo(written()), (3200, 1200), interpolation=cv2.INTER_CUBIC)
    page = page_ink(image)
    assert page.scale == 2
    assert page.pixels.shape == (600, 1600)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_any_small_image_has_an_answer(h, w, seed):
    image = np.random.default_rng(seed).integers(0, 256, (h, w), dtype=np.uint8)
    page = page_ink(image)
    assert page.pixels.shape == (h, w)
    assert page.pixels.dtype == np.uint8


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1), (2, 3)])
def test_odd_shapes(shape):
    assert page_ink(np.zeros(shape, np.uint8)).pixels.ndim == 2


def test_bad_arrays_are_a_data_error():
    for bad in (np.zeros((3, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros((2, 2, 2), np.uint8)):
        with pytest.raises(DataError):
            page_ink(bad)


def test_strokes_that_cross_a_shadows_edge_make_no_sheet_of_it():
    for wide in (14, 20, 26):
        light = 145 + 80 / (1 + np.exp((np.arange(600) - 295) * 4 / (3 * wide)))
        strokes = np.zeros((640, 600), np.uint8)
        for k in range(4):
            cv2.putText(
                strokes, "83", (200, 105 + 144 * k), cv2.FONT_HERSHEY_SIMPLEX, 2.7, 255, 6, cv2.LINE_AA
            )
        ink = page_ink((light * (1 - 0.75 / 255 * strokes)).astype(np.uint8)).pixels
        assert (ink[strokes > 200] > 100).mean() > 0.9
        assert ink[:, 400:].max() == 0
