"""Photographed handwriting: seeds, splits, truth, and whether a reader agrees with the labels."""

from __future__ import annotations

import numpy as np
import pytest

from lab.handwriting import needed
from netsuke import image, zoo
from netsuke.artifact import Artifact
from netsuke.engine import Engine
from netsuke.errors import DataError, OptionError


@pytest.fixture(scope="module")
def pens():
    needed()
    from netsuke.lab import pens

    return pens


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- the paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "count"), [("digits", 20682), ("letters", 67562), ("symbols", 12041)])
def test_every_sample_is_in_one_split_and_no_writer_in_two(pens, kind, count):
    whole, train, val = (pens.load(kind, split) for split in ("all", "train", "val"))
    assert len(whole) == count
    assert len(train) + len(val) == len(whole)
    assert not set(train.writers) & set(val.writers)
    assert set(train.labels) == set(val.labels) == set(whole.labels)
    assert 0.04 < len(val) / len(whole) < 0.2


def test_a_path_is_strokes_of_points_within_the_unit_square(pens):
    strokes = pens.load("letters", "val")
    for i in range(0, len(strokes), 97):
        points = np.concatenate(strokes.path(i))
        assert points.shape[1] == 2
        assert points.min() >= 0
        assert points.max() <= 1.001


def test_what_does_not_show_its_label_is_left_out(pens):
    """Dashes called 1, and other lying strokes."""
    strokes = pens.load("digits", "all")
    for i in range(len(strokes)):
        wide, high = np.ptp(np.concatenate(strokes.path(i)), axis=0)
        assert high >= 0.3 * wide, i


def test_take_keeps_paths_with_their_labels(pens):
    strokes = pens.load("digits", "val")
    some = strokes.take(np.array([5, 3]))
    assert list(some.labels) == [strokes.labels[5], strokes.labels[3]]
    assert all(np.array_equal(a, b) for a, b in zip(some.path(1), strokes.path(3), strict=True))


def test_pen_strokes_that_are_missing_say_where_to_put_them(pens, tmp_path, monkeypatch):
    monkeypatch.setenv("NETSUKE_DATA", str(tmp_path))
    monkeypatch.setenv("NETSUKE_CACHE", str(tmp_path))
    pens.load.cache_clear()
    with pytest.raises(DataError, match=r"letters\.npz: put it into .*pen-strokes"):
        pens.load("letters")


def test_another_kind_or_split_is_an_option_error(pens):
    with pytest.raises(OptionError, match="digits, letters, symbols"):
        pens.load("runes")
    with pytest.raises(OptionError, match="train, val, all"):
        pens.load("digits", "test")


# --- photographs -------------------------------------------------------------------------------------


def test_a_seed_reproduces_every_photo(pens):
    first, second = (pens.crops(40, rng(3), outliers=0.4) for _ in range(2))
    for (a, label), (b, again) in zip(first, second, strict=True):
        assert label == again
        assert np.array_equal(a, b)
    assert any(not np.array_equal(a, b) for (a, _), (b, _) in zip(first, pens.crops(40, rng(4)), strict=True))


def test_crops_have_any_size_from_12_to_200_and_any_contrast(pens):
    photos = [photo for photo, _ in pens.crops(300, rng(1), outliers=0.3)]
    sides = np.array([photo.shape for photo in photos])
    assert all(photo.dtype == np.uint8 and photo.ndim == 2 for photo in photos)
    assert sides.min() >= 12
    assert sides.max() <= 200
    assert sides.min() < 18
    assert sides.max() > 120
    assert len({int(np.median(photo)) // 32 for photo in photos}) >= 6  # dark and bright papers


def test_the_box_holds_the_ink(pens):
    """Without paper, light and camera the photo is ink alone: nothing of it may lie outside the box."""
    from netsuke.lab.pens import photos

    strokes = pens.load("digits", "val")
    for i in range(30):
        random = rng(i)
        ink, place, _, _ = photos._written(strokes.path(i), pens.Pen(0.08, 1, 0, 0), random)
        box, cover = photos._box_of(ink, place)
        x, y, w, h = box
        scale = place.board[0] / place.size[0], place.board[1] / place.size[1]
        outside = ink.copy()
        outside[int(y * scale[0]) : int(np.ceil((y + h) * scale[0])),
                int(x * scale[1]) : int(np.ceil((x + w) * scale[1]))] = 0  # fmt: skip
        assert outside.max() < 0.41
        assert 0 < cover <= 1


def test_render_draws_one_path_with_the_pen_given(pens):
    path = pens.load("digits", "val").path(0)
    thin, thick = (pens.render(path, pens.Pen(width, 1, 0, 0), rng(2)) for width in (0.02, 0.14))
    assert thin.shape == thick.shape
    assert thin.astype(int).sum() != thick.astype(int).sum()


@pytest.mark.parametrize("kind", ["ball", "pencil", "gel", "felt", "marker", "screen"])
def test_every_pen_keeps_to_its_range(pens, kind):
    (thin, thick), (faint, dark), *_ = pens.PENS[kind]
    for seed in range(20):
        pen = pens.pen(rng(seed), kind)
        assert thin <= pen.width <= thick
        assert faint <= pen.dark <= dark


def test_a_wider_pen_leaves_more_ink(pens):
    from netsuke.lab.pens.ink import draw, placed

    path = placed(pens.load("digits", "val").path(4), (50, 50), 70)
    inks = [draw(path, (100, 100), pens.Pen(w, 1, 0, 0), 70, rng()).sum() for w in (0.015, 0.04, 0.08, 0.14)]
    assert inks == sorted(inks)
    assert inks[-1] > 4 * inks[0]


@pytest.mark.parametrize("edge", [0.05, 1.0])
@pytest.mark.parametrize("level", [60.0, 160.0])
def test_a_bitmap_leaves_the_paper_around_it_bare(pens, level, edge):
    from netsuke.lab.pens.bitmaps import through, traced

    bitmap = np.zeros((28, 28), np.uint8)
    bitmap[4:24, 10:18] = 255
    ink = traced(bitmap, through(bitmap, np.eye(3), (30, 30), 40), (60, 60), level, edge)
    assert ink[30, 30] > 0.7
    assert not ink[:, :10].any()
    assert not ink[:, 50:].any()


def test_ink_alone_is_tight_around_the_sign(pens):
    """Specks of noise away from the sign would shrink it in the model's input."""
    from netsuke.lab.pens.photos import ink_alone

    strokes = pens.load("digits", "val")
    small = 0
    for i in range(400):
        ink = ink_alone(strokes.path(i % len(strokes)), rng(i))
        x = image.fit(ink)
        rows, columns = np.nonzero(x > 60)
        small += max(np.ptp(rows), np.ptp(columns)) < 14
    assert small == 0


# --- samples -----------------------------------------------------------------------------------------


def test_samples_are_inputs_that_a_seed_reproduces(pens):
    images, labels = pens.samples(200, 7, outliers=0.4)
    again, labels_again = pens.samples(200, 7, outliers=0.4)
    assert images.shape == (200, 1, 28, 28)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert np.array_equal(images, again)
    assert np.array_equal(labels, labels_again)
    assert 0.25 < (labels == pens.NONE).mean() < 0.55
    assert set(labels) == set(range(11))
    assert not np.array_equal(images, pens.samples(200, 8, outliers=0.4)[0])


def test_samples_can_do_without_outliers_or_with_nothing_else(pens):
    assert (pens.samples(60, 1, outliers=0)[1] < 10).all()
    assert (pens.samples(60, 1, outliers=1)[1] == pens.NONE).all()


def test_samples_say_which_sources_there_are(pens):
    with pytest.raises(OptionError, match="mnist, photo, pen, print"):
        pens.samples(1, 0, kinds={"cheques": 1.0})
    with pytest.raises(OptionError, match="photo, pen and print"):
        pens.crops(1, rng(), kinds={"mnist": 1.0})


def test_mnist_goes_in_as_it_is_or_a_little_changed(pens):
    from netsuke.lab.pens.bitmaps import bitmaps

    images, labels = pens.samples(60, 2, outliers=0, kinds={"mnist": 1.0})
    source, names = bitmaps("mnist")
    known = {image.tobytes(): int(label) for image, label in zip(source, names, strict=True)}
    as_they_are = [known.get(x.tobytes()) for x in images[:, 0]]
    kept = [i for i, label in enumerate(as_they_are) if label is not None]
    assert 10 < len(kept) < 40
    assert all(as_they_are[i] == labels[i] for i in kept)


def test_validation_samples_are_of_other_writers_and_other_images(pens):
    from netsuke.lab.pens.bitmaps import bitmaps

    train, val = ({x.tobytes() for x in bitmaps("mnist", split)[0]} for split in ("train", "val"))
    assert not train & val
    assert pens.samples(20, 0, split="val")[0].shape == (20, 1, 28, 28)


def test_another_normaliser_may_be_given(pens):
    seen = []

    def whole(photo):
        seen.append(photo.shape)
        return np.full((28, 28), 7, np.uint8), (0, 0, photo.shape[1], photo.shape[0])

    images, _ = pens.samples(20, 0, outliers=1, found=0, normalise=whole)
    assert len(seen) >= 20
    assert (images == 7).all()


# --- labels ------------------------------------------------------------------------------------------


def clean(pens, path) -> np.ndarray:
    """A path in a clear hand: no paper, no camera."""
    import cv2

    from netsuke.lab.pens.ink import draw, placed

    ink = draw(placed(path, (48, 48), 76), (96, 96), pens.Pen(0.09, 1, 0, 0), 76, rng())
    grey = (ink * 255).astype(np.uint8)
    x, y, w, h = cv2.boundingRect((grey > 0).astype(np.uint8))
    return image.fit(grey[y : y + h, x : x + w])


def answers(inputs: np.ndarray) -> np.ndarray:
    """What the shipped digit-small says of inputs uint8 [n, 1, 28, 28]."""
    return Engine(Artifact.load(zoo.path("digit-small"))).run(inputs).argmax(1)


@pytest.mark.parametrize(("kind", "least"), [("mnist", 0.97), ("pen", 0.75), ("photo", 0.75)])
def test_samples_carry_the_label_of_what_they_show(pens, kind, least):
    inputs, labels = pens.samples(200, 5, outliers=0, kinds={kind: 1.0})
    assert (answers(inputs) == labels).mean() >= least


def test_the_shipped_reader_agrees_with_the_labels_of_clear_writing(pens):
    strokes = pens.load("digits", "val")
    some = strokes.take(rng().permutation(len(strokes))[:500])
    inputs = np.stack([clean(pens, some.path(i)) for i in range(500)])[:, None]
    assert (answers(inputs) == some.labels.astype(int)).mean() >= 0.9


def test_outliers_leave_out_what_a_person_would_read_as_a_digit(pens):
    from netsuke.lab.pens.outliers import LETTERS, SIGNS

    assert not set("oOlISsZzqgbBiD") & set(LETTERS)
    assert set("ACEFGHKMNPRTUVWXY") <= set(LETTERS)
    assert not set("|/\\!()") & set(SIGNS)


def test_every_kind_of_outlier_can_be_photographed(pens):
    from netsuke.lab.pens.outliers import SHARES

    for make in SHARES:
        for seed in range(5):
            random = rng(seed)
            photo = pens.take(make(random, "train"), random)
            assert min(photo.pixels.shape) >= 12, make.__name__


def test_a_lone_upright_stroke_is_no_outlier(pens):
    from netsuke.lab.pens.sampling import _upright

    bar, dash = np.zeros((28, 28), np.uint8), np.zeros((28, 28), np.uint8)
    bar[4:24, 13:15] = dash[13:15, 4:24] = 255
    assert _upright(bar)
    assert not _upright(dash)
    assert not _upright(np.maximum(bar, dash))
