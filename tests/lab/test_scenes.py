"""Strings and pages: the truth must fit the picture."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lab.handwriting import needed
from netsuke import image, zoo
from netsuke.artifact import Artifact
from netsuke.engine import Engine


@pytest.fixture(scope="module")
def scenes():
    needed()
    from netsuke.lab import scenes

    return scenes


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def made(scenes, kind: str, seed: int):
    random = rng(seed)
    if kind in scenes.STRINGS:
        return scenes.string(random, setting=kind)
    return scenes.page(random, kind=kind, size=(420, 520), digits=20)


def check(scene) -> None:
    """Image, boxes, mask and strings agree with one another."""
    high, wide = scene.image.shape
    assert scene.image.dtype == np.uint8
    assert scene.mask.shape == scene.image.shape
    assert [mark.number for mark in scene.digits] == list(range(1, len(scene.digits) + 1))
    assert set(np.unique(scene.mask)) <= {0, *(mark.number for mark in scene.digits)}
    boxes = {}
    for label, (x, y, w, h), number in scene.digits:
        boxes[number] = label, x, y, w, h
        assert 0 <= label <= 9
        assert 0 <= x < x + w <= wide
        assert 0 <= y < y + h <= high
        rows, columns = np.nonzero(scene.mask == number)
        if len(rows):  # the ink of a thin digit under another may all be the other's
            assert x <= columns.min() <= columns.max() < x + w
            assert y <= rows.min() <= rows.max() < y + h
    assert len(scene.members) == len(scene.strings)
    for (text, (x, y, w, h)), members in zip(scene.strings, scene.members, strict=True):
        assert [c for c in text if c.isdigit()] == [str(boxes[m][0]) for m in members]
        for m in members:
            _, a, b, c, d = boxes[m]
            assert x <= a
            assert y <= b
            assert a + c <= x + w
            assert b + d <= y + h


@pytest.mark.parametrize("kind", ["plain", "ruled", "squared", "cheque", "boxed"])
def test_the_truth_of_strings_fits(scenes, kind):
    for seed in range(12):
        check(made(scenes, kind, seed))


@pytest.mark.parametrize("kind", ["notes", "table", "form", "puzzle", "scraps"])
def test_the_truth_of_pages_fits(scenes, kind):
    found = 0
    for seed in range(3):
        scene = made(scenes, kind, seed)
        check(scene)
        found += len(scene.digits)
    assert found > 15


@pytest.mark.parametrize("kind", ["cheque", "notes", "form"])
def test_a_seed_reproduces_a_scene(scenes, kind):
    one, two, other = made(scenes, kind, 5), made(scenes, kind, 5), made(scenes, kind, 6)
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.mask, two.mask)
    assert one.digits == two.digits
    assert one.strings == two.strings
    assert one.digits != other.digits


def test_a_string_holds_the_text_asked_for(scenes):
    for seed in range(10):
        scene = scenes.string(rng(seed), "1.204,50", height=40)
        assert [text for text, _ in scene.strings] == ["1.204,50"]
        assert [mark.label for mark in scene.digits] == [1, 2, 0, 4, 5, 0]


def test_digits_of_a_string_have_about_the_height_asked_for(scenes):
    for height in (16, 48, 110):
        boxes = [
            box for seed in range(8) for _, box, _ in scenes.string(rng(seed), "340", height=height).digits
        ]
        assert 0.8 < np.median([h for _, _, _, h in boxes]) / height < 1.3


def test_the_mask_marks_ink(scenes):
    """On plain paper in even light the marked pixels are the darkest (or brightest) of the strip."""
    from netsuke.lab.scenes.sheet import Sheet
    from netsuke.lab.scenes.strings import hand, number, steadier, write

    for seed in range(12):
        random = rng(seed)
        sheet = Sheet((90, 400), random)
        writer = steadier(hand(random, kind="gel"), 0.04)
        write(sheet, number("2785", writer, random), (20.0, 70.0), 50.0, writer)
        scene = sheet.photograph(np.float32(1), harm=0, uneven=0)
        ink, paper = scene.image[scene.mask > 0], scene.image[scene.mask == 0]
        assert abs(float(np.median(ink)) - float(np.median(paper))) > 40
        far = np.abs(paper.astype(int) - int(np.median(paper))) > 60
        assert far.mean() < 0.03  # edges of strokes


def test_the_mask_of_a_digit_shows_its_class(scenes):
    """Cut out by their masks, clear digits are read by the shipped digit-small as what they are said to be."""
    from netsuke.lab.scenes.sheet import Sheet
    from netsuke.lab.scenes.strings import hand, number, steadier, write

    inputs, labels = [], []
    for seed in range(25):
        random = rng(seed)
        sheet = Sheet((90, 600), random)
        writer = steadier(hand(random, kind="gel"), 0.06)
        write(sheet, number("27850369", writer, random, spacing="wide"), (20.0, 70.0), 45.0, writer)
        scene = sheet.photograph(np.float32(1), harm=0, uneven=0)
        for label, (x, y, w, h), number_ in scene.digits:
            inputs.append(image.fit(((scene.mask == number_)[y : y + h, x : x + w] * 255).astype(np.uint8)))
            labels.append(label)
    answers = Engine(Artifact.load(zoo.path("digit-small"))).run(np.stack(inputs)[:, None]).argmax(1)
    assert (answers == np.array(labels)).mean() >= 0.9


def test_the_truth_goes_through_the_view(scenes):
    """A digit seen through a shifted, doubled view has its box shifted and doubled."""
    from netsuke.lab.pens.ink import Pen
    from netsuke.lab.scenes.hands import hand
    from netsuke.lab.scenes.sheet import Sheet

    glyph = hand(rng(1)).digit(3, rng(2))
    pen = Pen(0.08, 1, 0, 0)
    plain = Sheet((200, 200), rng(), view=np.eye(3)).glyph(glyph, (20, 60), 40, pen, label=3)
    view = np.array([[2, 0, 15], [0, 2, 5], [0, 0, 1.0]])
    moved = Sheet((200, 200), rng(), view=view).glyph(glyph, (20, 60), 40, pen, label=3)
    expected = np.array(plain.box) * 2 + (15, 5, 0, 0)
    assert np.abs(np.array(moved.box) - expected).max() <= 3


def test_digits_cut_off_by_the_edge_are_no_digits(scenes):
    from netsuke.lab.pens.ink import Pen
    from netsuke.lab.scenes.hands import hand
    from netsuke.lab.scenes.sheet import Sheet

    sheet = Sheet((60, 100), rng())
    glyph = hand(rng(1)).digit(0, rng(2))
    assert sheet.glyph(glyph, (-0.7 * 40 * glyph.width, 50), 40, Pen(0.08), label=0) is None
    assert not sheet.mask.any()


def test_touching_digits_touch(scenes):
    import cv2

    joined = 0
    for seed in range(20):
        scene = scenes.string(rng(seed), "88", height=60, setting="plain", spacing="touching")
        count, _ = cv2.connectedComponents((scene.mask > 0).astype(np.uint8), connectivity=8)
        joined += count == 2
    assert joined >= 12


def test_writing_is_by_writers_of_the_split(scenes):
    from netsuke.lab.pens import load
    from netsuke.lab.scenes.hands import hand

    writers = {hand(rng(seed), "val").writer for seed in range(40)} - {None}
    assert writers
    assert writers <= set(load("digits", "val").writers.tolist())


def test_printed_digits_are_told_from_written_ones(scenes):
    scene = scenes.page(rng(3), kind="puzzle", size=(500, 500), digits=60)
    assert 0 < len(scene.printed) < len(scene.digits)


def test_some_strings_are_printed_in_one_typeface(scenes, monkeypatch):
    import cv2

    monkeypatch.setattr("netsuke.lab.scenes.strings.PRINTED", 1.0)
    scene = scenes.string(rng(1), "444444", height=60, setting="plain", spacing="wide")
    check(scene)
    assert scene.printed == {1, 2, 3, 4, 5, 6}
    shapes = []
    for _, (x, y, w, h), number in scene.digits:
        own = (scene.mask[y : y + h, x : x + w] == number).astype(np.float32)
        shapes.append(cv2.resize(own, (24, 24), interpolation=cv2.INTER_AREA))
    assert np.ptp(shapes, 0).mean() < 0.2


def test_numbers_may_be_dates():
    from netsuke.lab.scenes import writing

    texts = [writing.amount(rng(seed)) for seed in range(2000)]
    dates = [text for text in texts if re.fullmatch(r"\d\d([-.])\d\d\1\d{2,4}", text)]
    assert {text[2] for text in dates} == {"-", "."}
    assert 0.01 < len(dates) / len(texts) < 0.05


def test_a_page_may_hold_no_digit(scenes):
    scene = scenes.page(rng(0), kind="notes", size=(400, 400), digits=0)
    assert scene.digits == ()
    assert not scene.mask.any()
    assert scene.image.std() > 0
